# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hashes of files."""

# Paths are text here, as in the options and in results.
# ruff: noqa: PTH123
from __future__ import annotations

import hashlib

_BLOCK = 1 << 20


def sha256_of(path: str) -> str:
    """SHA-256 of a file in hexadecimal, read block by block. Raises OSError."""
    total = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(_BLOCK), b""):
            total.update(block)
    return total.hexdigest()
