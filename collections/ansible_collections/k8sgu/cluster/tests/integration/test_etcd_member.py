# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real members of etcd leave while a client writes to all of them."""

from __future__ import annotations

import contextlib
import http.client
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import api_server
import etcd_cluster

pytestmark = pytest.mark.timeout(600)

WAIT_S = 60
# What was proposed to a leader while another one takes over can be dropped, and whoever wrote it learns so.
PER_ELECTION = 2
STAYS, *LEAVE = ["cp-0", "cp-1", "cp-2"]


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[etcd_cluster.Etcd]:
    programs = etcd_cluster.programs("3.6")
    if programs is None:
        pytest.skip("no mirror with etcd 3.6; fill one (docs/releases.md)")
    with etcd_cluster.running(tmp_path, programs) as etcd:
        yield etcd


def member(etcd: etcd_cluster.Etcd, state: str, check: bool = False, **more: Any) -> dict[str, Any]:
    leaving = dict.fromkeys(LEAVE, "127.0.0.1")
    return etcd.run("etcd_member", STAYS, check, state=state, leaving=leaving, nodes={STAYS: "127.0.0.1"}, **more)


def lead(etcd: etcd_cluster.Etcd, name: str) -> None:
    statuses, leader = etcd.statuses(), etcd.leader()
    if leader != name:
        etcd.etcdctl(leader, "move-leader", f"{statuses[name]['header']['member_id']:x}")
    assert etcd.leader() == name


def retire(etcd: etcd_cluster.Etcd, name: str) -> None:
    """Starts a member with another address for clients, which nobody knows."""
    port = api_server.free_port()
    etcd.stop(name)
    with contextlib.ExitStack() as stack:
        etcd.flags.append(f"--listen-client-urls=https://127.0.0.1:{port}")
        stack.callback(etcd.flags.pop)
        etcd.start(name)
    deadline = time.monotonic() + WAIT_S
    while True:
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=etcd.tls(), timeout=5)
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        assert time.monotonic() < deadline, f"{name} is not healthy within {WAIT_S} s"
        time.sleep(0.05)


def members(etcd: etcd_cluster.Etcd) -> list[str]:
    listed = etcd.etcdctl(STAYS, "member", "list").stdout
    return sorted(line.split(", ")[2] for line in listed.splitlines())


@pytest.mark.parametrize("leader", [STAYS, LEAVE[1]])
def test_no_write_is_lost_by_a_member_that_leaves(leader: str, etcd: etcd_cluster.Etcd) -> None:
    lead(etcd, leader)
    with etcd_cluster.Writer(etcd).running() as writer:
        planned = member(etcd, "follower", check=True)
        assert etcd.leader() == leader
        said = member(etcd, "follower")
        assert said == planned
        assert said["changed"] == (leader != STAYS)
        assert said["retiring"] == LEAVE
        assert etcd.leader() == STAYS
        again = member(etcd, "follower")
        assert (again["changed"], again["retiring"]) == (False, LEAVE)
        for name in said["retiring"]:
            retire(etcd, name)
        gone = member(etcd, "absent", retired=said["retiring"])
    assert gone["members"] == members(etcd) == [STAYS]
    assert len(writer.written) > 100
    assert len(writer.failed) <= (PER_ELECTION if leader != STAYS else 0), writer.failed
    assert writer.missing() == []
    assert not member(etcd, "absent")["changed"]


def test_who_serves_no_client_is_lost_only_if_nobody_says_otherwise(etcd: etcd_cluster.Etcd) -> None:
    """A run that was cut off: the next one has them serve again first, or is refused."""
    lead(etcd, STAYS)
    for name in LEAVE:
        retire(etcd, name)
    assert "etcd has lost its quorum: 1 of 3 members answer" in member(etcd, "absent")["msg"]
    assert members(etcd) == [STAYS, *LEAVE]
    for name in LEAVE:
        etcd.restart(name, etcd.members[name].programs)
    assert member(etcd, "absent")["members"] == [STAYS]


def test_only_who_leaves_retires(etcd: etcd_cluster.Etcd) -> None:
    assert "retired: cp-0 is not among leaving (cp-1, cp-2)" in member(etcd, "absent", retired=[STAYS])["msg"]
    assert members(etcd) == [STAYS, *LEAVE]
