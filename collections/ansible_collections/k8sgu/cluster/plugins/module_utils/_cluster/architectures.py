# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The names of processor architectures."""

from __future__ import annotations

# {the kernel's name: the name of Go, Debian and the mirror}. For the second, EC2 uses the latter.
NAMES = {"x86_64": "amd64", "aarch64": "arm64"}


def mirror_name(machine: str) -> str | None:
    """`amd64` or `arm64` for any of these names; None for any other architecture."""
    return machine if machine in NAMES.values() else NAMES.get(machine)
