# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The names of processor architectures."""

from __future__ import annotations

# By the kernel's name, that of Go, Debian and the mirror. EC2 calls the second one as they do.
NAMES = {"x86_64": "amd64", "aarch64": "arm64"}


def mirror_name(machine: str) -> str | None:
    """`amd64` or `arm64`, by whichever of these names; None for any other machine."""
    return machine if machine in NAMES.values() else NAMES.get(machine)
