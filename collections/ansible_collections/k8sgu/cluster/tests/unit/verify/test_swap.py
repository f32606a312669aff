# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""verify finds swap on a node, but for the host's in a container."""

from __future__ import annotations

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.swap import judge_swap, swap_areas

HEADING = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
ON = f"{HEADING}/dev/nvme0n1p2                          partition\t8388604\t\t0\t\t-2\n/swapfile  file\t1024\t0\t-3\n"


@pytest.mark.parametrize(
    ("text", "container", "passed", "seen"),
    [
        (HEADING, False, True, "none"),
        ("", False, True, "none"),
        (ON, False, False, "on /dev/nvme0n1p2, /swapfile"),
        (ON, True, True, "on /dev/nvme0n1p2, /swapfile, the host's"),
    ],
)
def test_swap(text: str, container: bool, passed: bool, seen: str) -> None:
    check = judge_swap(swap_areas(text), container, "node-0")
    assert (check.passed, check.seen, check.where) == (passed, seen, "node-0")
