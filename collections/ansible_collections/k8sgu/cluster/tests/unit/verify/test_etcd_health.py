# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verify's look at etcd: how many members are healthy, and that a quota is used up, which looks like a lost quorum."""

from __future__ import annotations

import json
import subprocess

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import etcdctl
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify import node

ROWS = [{"endpoint": f"https://192.0.2.{number}:2379", "health": number != 3} for number in (1, 2, 3)]
CURE = "playbooks/etcd_maintenance.yml"


@pytest.mark.parametrize(
    ("healthy", "alarms", "passed", "seen"),
    [
        (True, b"", True, "2 of 2 members healthy"),
        (False, b"", False, "2 of 3 members healthy"),
        (None, b"", False, "unhealthy cluster"),
        (None, b"memberID:1 alarm:NOSPACE \n", False, f"unhealthy cluster; its quota is used up, .* {CURE}"),
        (None, None, False, "unhealthy cluster"),
    ],
)
def test_what_is_seen(
    monkeypatch: pytest.MonkeyPatch, healthy: bool | None, alarms: bytes | None, passed: bool, seen: str
) -> None:
    def run(*arguments: str) -> bytes:
        failed = subprocess.CalledProcessError(1, "etcdctl", stderr=b"Error: unhealthy cluster\n")
        if arguments[0] == "alarm":
            if alarms is None:
                raise failed
            return alarms
        if healthy is None:
            raise failed
        return json.dumps(ROWS[:2] if healthy else ROWS).encode()

    monkeypatch.setattr(etcdctl, "run", run)
    check = node.check_etcd_health(2 if healthy else 3, "cp-0")
    assert check.passed is passed
    with pytest.raises(AssertionError, match=f"^{seen}$"):
        raise AssertionError(check.seen)
