# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node's checks are made again where they fail, for as long as is asked, and only those."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._verify import node
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.checks import Check
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.options import ARGUMENT_SPECS

DEFAULTS = {name: option.get("default") for name, option in ARGUMENT_SPECS["verify_node"].items()}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was slept so far, which is all the time that passes."""
    slept: list[float] = []
    monkeypatch.setattr(node.time, "sleep", slept.append)
    monkeypatch.setattr(node.time, "monotonic", lambda: sum(slept))
    return slept


@pytest.mark.parametrize(
    ("timeout", "passes_at", "passed", "looks"),
    [(0, 1, True, 1), (0, 2, False, 1), (15, 4, True, 4), (3, 9, False, 4)],
)
def test_a_check_that_fails_is_made_again(
    monkeypatch: pytest.MonkeyPatch, clock: list[float], timeout: int, passes_at: int, passed: bool, looks: int
) -> None:
    made = {"kubelet": 0, "swap": 0}

    def kubelet(*_arguments: Any) -> Check:
        made["kubelet"] += 1
        return Check("kubelet", made["kubelet"] >= passes_at, "", f"look {made['kubelet']}")

    def swap(where: str) -> Check:
        made["swap"] += 1
        return Check("swap", True, "", "none", where)

    monkeypatch.setattr(node, "check_plaintext", lambda *_arguments: Check("plain", True, "", ""))
    monkeypatch.setattr(node, "check_anonymous", kubelet)
    monkeypatch.setattr(node, "check_swap", swap)
    checks, audited = node.node_checks({**DEFAULTS, "node": "worker-0", "address": "192.0.2.1", "timeout": timeout})
    assert [(check.name, check.passed) for check in checks] == [("plain", True), ("kubelet", passed), ("swap", True)]
    assert checks[1].seen == f"look {looks}"
    assert made == {"kubelet": looks, "swap": 1}
    assert sum(clock) <= timeout
    assert audited is False


def test_all_together_wait_no_longer_than_one(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    monkeypatch.setattr(node, "check_plaintext", lambda *_arguments: Check("plain", False, "", ""))
    monkeypatch.setattr(node, "check_anonymous", lambda *_arguments: Check("kubelet", False, "", ""))
    monkeypatch.setattr(node, "check_swap", lambda *_arguments: Check("swap", False, "", ""))
    checks, _audited = node.node_checks({**DEFAULTS, "node": "worker-0", "address": "192.0.2.1", "timeout": 10})
    assert not any(check.passed for check in checks)
    assert sum(clock) == 10
