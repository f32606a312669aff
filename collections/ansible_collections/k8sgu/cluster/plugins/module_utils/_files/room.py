# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much room there is."""

# Paths are text here, as in the modules' options.
# ruff: noqa: PTH112, PTH120
from __future__ import annotations

import os


def free_bytes(directory: str) -> int:
    """Free bytes of the file system that has the directory, or will have it. Raises OSError."""
    while not os.path.isdir(directory):
        directory = os.path.dirname(directory)
    here = os.statvfs(directory)
    return here.f_bavail * here.f_frsize
