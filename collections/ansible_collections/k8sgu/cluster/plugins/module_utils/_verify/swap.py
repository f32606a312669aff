# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that there is no swap, which the scheduler does not take into account. Standard library only."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.checks import Check

SWAPS = Path("/proc/swaps")


def swap_areas(text: str) -> list[str]:
    """Files and devices listed in /proc/swaps. Pure."""
    return [line.split()[0] for line in text.splitlines()[1:] if line.strip()]


def in_container() -> bool:
    """Whether the node is a container, so that kernel and swap are its host's."""
    return subprocess.run(["systemd-detect-virt", "--quiet", "--container"], check=False).returncode == 0


def judge_swap(areas: list[str], container: bool, where: str) -> Check:
    """Pure."""
    seen = f"on {', '.join(areas)}" if areas else "none"
    return Check(
        "the node has no swap",
        not areas or container,
        "no swap, in a container none of its own",
        f"{seen}, the host's" if areas and container else seen,
        where,
        "cat /proc/swaps; systemctl status k8sgu-kernel",
    )


def check_swap(where: str) -> Check:
    areas = swap_areas(SWAPS.read_text())
    return judge_swap(areas, bool(areas) and in_container(), where)
