# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real members of etcd are defragmented while a client writes, and one that has used up its quota comes back."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import ansible_program
import etcd_cluster

from ansible_collections.k8sgu.cluster.plugins.plugin_utils._compiled import zipapp

pytestmark = pytest.mark.timeout(600)

MIB = 1 << 20
QUOTA = 24 * MIB
WAIT_S = 60
# What was proposed to a leader while another one takes over can be dropped, and whoever wrote it learns so.
PER_ELECTION = 2


@pytest.fixture(scope="module")
def programs() -> Path:
    found = etcd_cluster.programs("3.6")
    if found is None:
        pytest.skip("no mirror with etcd 3.6; fill one (docs/releases.md)")
    return found


@pytest.fixture
def etcd(tmp_path: Path, programs: Path) -> Iterator[etcd_cluster.Etcd]:
    with etcd_cluster.running(tmp_path, programs, flags=[f"--quota-backend-bytes={QUOTA}"]) as etcd:
        yield etcd


def space(etcd: etcd_cluster.Etcd, state: str = "defragmented", check: bool = False, **more: Any) -> dict[str, Any]:
    return etcd.run("etcd_space", "cp-0", check, state=state, nodes=etcd.nodes, **more)


def sizes(etcd: etcd_cluster.Etcd) -> dict[str, int]:
    return {name: status["dbSize"] for name, status in etcd.statuses().items()}


def in_use(etcd: etcd_cluster.Etcd) -> list[int]:
    return [status["dbSizeInUse"] for status in etcd.statuses().values()]


def revision(etcd: etcd_cluster.Etcd) -> int:
    return int(etcd.statuses()["cp-0"]["header"]["revision"])


def until(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"not seen within {WAIT_S} s: {what}"
        time.sleep(0.02)


def takes_writes(etcd: etcd_cluster.Etcd) -> bool:
    return etcd.etcdctl("cp-1", "put", "small", "value", check=False).returncode == 0


def overwritten(etcd: etcd_cluster.Etcd, mebibytes: int) -> None:
    """History of that size, compacted: pages that are free."""
    for number in range(mebibytes):
        etcd.fill({"overwritten": str(number % 10) * MIB})
    etcd.etcdctl("cp-0", "compact", str(revision(etcd)), "--physical")
    # Each member compacts for itself, and counts the pages with the next write.
    until("free pages", lambda: takes_writes(etcd) and all(used < 3 * MIB for used in in_use(etcd)))


def full(etcd: etcd_cluster.Etcd) -> list[str]:
    """Writes to one key until the quota is used up; the values that may be there then.

    They are the last that was acknowledged, and the one that was refused: a write that finds the quota used up is
    carried out nevertheless if no other did before. quotaApplierV3 in
    https://github.com/etcd-io/etcd/blob/main/server/etcdserver/apply/apply.go
    """
    last = ""
    for number in range(40):
        value = f"{number:02}" * (MIB // 2)
        try:
            etcd.fill({"growing": value})
        except AssertionError as error:
            assert "database space exceeded" in str(error)
            return [last, value]
        last = value
    raise AssertionError("the quota was never used up")


def steps(result: dict[str, Any]) -> list[str]:
    """The plan's steps without their reasons."""
    return [line.partition(": ")[0] for line in result["plan"]]


def test_members_shrink_one_after_another_while_a_client_writes(etcd: etcd_cluster.Etcd) -> None:
    overwritten(etcd, 9)
    before, leader = sizes(etcd), etcd.leader()
    assert space(etcd, percent=99)["plan"] == []
    planned = space(etcd, check=True)
    assert planned["changed"] and sizes(etcd) == before and etcd.leader() == leader
    with etcd_cluster.Writer(etcd).running() as writer:
        made = space(etcd)
    assert steps(made) == steps(planned)
    *others, move, last = steps(made)
    assert others == [f"defragment {name}" for name in sorted(set(etcd.members) - {leader})]
    assert (move, last) == (f"let {others[0].split()[1]} lead", f"defragment {leader}")
    assert etcd.leader() != leader
    after = sizes(etcd)
    assert all(after[name] < before[name] // 2 for name in etcd.members), (before, after)
    assert made["freed"] > sum(before.values()) // 2
    assert len(writer.written) > 20
    assert writer.missing() == [] and len(writer.failed) <= PER_ELECTION, writer.failed
    # The writer's own history is not worth it.
    assert space(etcd, percent=90)["changed"] is False


@pytest.mark.parametrize("cut", ["nowhere", "after the compaction", "among the members"])
def test_a_quota_that_is_used_up(etcd: etcd_cluster.Etcd, cut: str) -> None:
    there = full(etcd)
    assert not takes_writes(etcd)
    # What is there can be saved all the same.
    saved = etcd.run(
        "etcd_snapshot",
        "cp-0",
        directory=str(etcd.directory / "snapshots"),
        etcdutl=str(etcd.members["cp-0"].programs / "etcdutl"),
    )
    assert saved.get("changed"), saved
    refused = space(etcd)
    assert refused["failed"] and "etcd has used up its quota (cp-0: " in refused["msg"]
    planned = space(etcd, "writable", check=True)
    assert (steps(planned)[0], steps(planned)[-1]) == ("compact etcd's history", "clear the alarm NOSPACE")
    assert planned["alarm"] is False and not takes_writes(etcd)
    if cut != "nowhere":
        command, environment = etcd.module("etcd_space", "cp-0", state="writable", nodes=etcd.nodes)
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
        if cut == "after the compaction":
            until("free pages", lambda: etcd.statuses()["cp-2"]["dbSizeInUse"] < QUOTA // 2)
        else:
            until("a smaller file", lambda: min(sizes(etcd).values()) < QUOTA // 2)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    made = space(etcd, "writable")
    assert not made.get("failed"), made
    assert made["alarm"] is False and max(sizes(etcd).values()) < QUOTA // 2
    assert takes_writes(etcd)
    assert etcd.etcdctl("cp-2", "get", "growing", "--print-value-only").stdout.strip() in there
    assert space(etcd, "writable")["changed"] is False


def test_data_that_fills_the_quota_by_itself(etcd: etcd_cluster.Etcd, programs: Path) -> None:
    etcd.fill({f"kept-{number}": "x" * MIB for number in range(8)})
    etcd.flags = [f"--quota-backend-bytes={4 * MIB}"]
    for name in etcd.members:
        etcd.restart(name, programs)
    assert not takes_writes(etcd)
    said = space(etcd, "writable")
    assert said["failed"] and "what is in it still fills its quota (cp-0: 8" in said["msg"]
    assert not takes_writes(etcd)
    # The way out: what is not needed goes, which is no write to the quota.
    for number in range(5):
        etcd.etcdctl("cp-1", "del", f"kept-{number}")
    made = space(etcd, "writable")
    assert made["alarm"] is False and takes_writes(etcd)


def test_a_silent_member(etcd: etcd_cluster.Etcd) -> None:
    overwritten(etcd, 4)
    before = sizes(etcd)
    etcd.stop("cp-2")
    said = space(etcd, timeout=2)
    assert said["failed"] and said["msg"].startswith("nothing was changed: 2 of 3 members of etcd answer")
    etcd.start("cp-2")
    etcd.wait("cp-2")
    assert sizes(etcd) == before
    unknown = etcd.run("etcd_space", "cp-0", state="defragmented", nodes={**etcd.nodes, "cp-9": "192.0.2.9"})
    assert unknown["failed"] and "cp-9 is no member of etcd" in unknown["msg"]


def test_the_four_steps(etcd: etcd_cluster.Etcd, tmp_path: Path) -> None:
    """By Ansible, as on a node: check mode, run, check mode, run."""
    overwritten(etcd, 6)
    given = {
        "state": "defragmented",
        "nodes": etcd.nodes,
        "etcdctl": str(etcd.members["cp-1"].programs / "etcdctl"),
        "environment": str(etcd.environment("cp-1")),
    }
    module = "k8sgu.cluster.etcd_space"
    results, said = ansible_program.run_tasks(
        tmp_path,
        [
            {module: given, "register": "planned", "check_mode": True},
            {module: given, "register": "made"},
            {module: given, "register": "planned_again", "check_mode": True},
            {module: given, "register": "again"},
        ],
        "--diff",
        variables={},
    )
    assert [results[name]["changed"] for name in ("planned", "made", "planned_again", "again")] == [
        *(True, True),
        *(False, False),
    ]
    assert "MiB in use, quota 24.0 MiB" in said


def test_the_program_of_the_timer(etcd: etcd_cluster.Etcd, tmp_path: Path) -> None:
    """As the timers start it, on every member: all of them are defragmented, by the one that leads."""
    overwritten(etcd, 6)
    before = sizes(etcd)
    path = tmp_path / "etcd-defragment.pyz"
    path.write_bytes(zipapp("_etcd.defragment"))
    assert zipfile.is_zipfile(io.BytesIO(path.read_bytes()))
    leader = etcd.leader()
    said = {}
    for name in [*(name for name in etcd.members if name != leader), leader]:
        settings = [f"--etcdctl={etcd.members[name].programs / 'etcdctl'}", f"--environment={etcd.environment(name)}"]
        done = subprocess.run(
            [sys.executable, str(path), "--percent=45", *settings],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        said[name] = done.stdout
        if name != leader:
            assert done.stdout == "another member leads, and sees to it\n" and sizes(etcd) == before
    assert said[leader].count("defragment cp-") == 3 and said[leader].splitlines()[-1].endswith("MiB freed")
    after = sizes(etcd)
    assert all(after[name] < before[name] for name in etcd.members)
