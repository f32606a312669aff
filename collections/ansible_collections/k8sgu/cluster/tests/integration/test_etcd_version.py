# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""etcd from one minor version to the next, back, and forward again from the middle, while a client writes.

The members are real ones of both versions. The module is killed where it has begun something, and run again.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import ansible_program
import etcd_cluster

pytestmark = pytest.mark.timeout(900)

WAIT_S = 60
# What was proposed to a leader while another one takes over can be dropped, and whoever wrote it learns so. A program
# that ends hands its leadership over.
PER_ELECTION = 2


@pytest.fixture(scope="module")
def versions() -> tuple[Path, Path]:
    """The programs of the older version and of the newer one."""
    old, new = etcd_cluster.programs("3.6"), etcd_cluster.programs("3.7")
    if old is None or new is None:
        pytest.skip("no mirror with etcd 3.6 and 3.7; fill one with two releases (docs/releases.md)")
    return old, new


@pytest.fixture
def etcd(tmp_path: Path, versions: tuple[Path, Path]) -> Iterator[etcd_cluster.Etcd]:
    with etcd_cluster.running(tmp_path, versions[0]) as etcd:
        yield etcd


def call(etcd: etcd_cluster.Etcd, state: str, version: str, check: bool = False, **more: Any) -> dict[str, Any]:
    return etcd.run("etcd_version", "cp-0", check, state=state, version=version, nodes=etcd.nodes, **more)


def data(etcd: etcd_cluster.Etcd) -> dict[str, str]:
    return {name: status["storageVersion"] for name, status in etcd.statuses().items()}


def everywhere(etcd: etcd_cluster.Etcd, version: str) -> dict[str, str]:
    return dict.fromkeys(etcd.members, version)


def killed_when(etcd: etcd_cluster.Etcd, what: str, state: str, version: str, condition: Any) -> None:
    """Starts the module, and kills it as soon as the condition holds."""
    command, environment = etcd.module("etcd_version", "cp-0", state=state, version=version, nodes=etcd.nodes)
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + WAIT_S
    seen = condition()
    while not seen and time.monotonic() < deadline:
        time.sleep(0.02)
        seen = condition()
    process.send_signal(signal.SIGKILL)
    said = process.communicate()[0]
    assert seen, f"not seen within {WAIT_S} s: {what}; the module said: {said or 'nothing yet'}"


def on_the_way_back(etcd: etcd_cluster.Etcd) -> bool:
    return any((status.get("downgradeInfo") or {}).get("enabled") for status in etcd.statuses().values())


def replaced(etcd: etcd_cluster.Etcd, order: list[str], programs: Path) -> None:
    for name in order:
        etcd.restart(name, programs)


def test_forward_and_back_while_a_client_writes(etcd: etcd_cluster.Etcd, versions: tuple[Path, Path]) -> None:
    old, new = versions
    elections = 0
    with etcd_cluster.Writer(etcd).running() as writer:
        # Forward.
        made = call(etcd, "ready", "3.7")
        assert (made["changed"], made["plan"]) == (False, [])
        assert made["order"][-1] == etcd.leader()
        first, *others = made["order"]
        etcd.restart(first, new)
        # From here both ways are open without more ado.
        assert call(etcd, "ready", "3.6")["changed"] is False
        vain = call(etcd, "settled", "3.7")
        assert vain["failed"] and vain["msg"].startswith("1 of 3 members run etcd 3.7, and etcd is there only when all")
        replaced(etcd, others, new)
        elections += 1
        killed_when(etcd, "one member's data rises", "settled", "3.7", lambda: "3.7.0" in data(etcd).values())
        settled = call(etcd, "settled", "3.7")
        assert (settled["changed"], settled["settled"], data(etcd)) == (False, True, everywhere(etcd, "3.7.0"))

        # Without being told, etcd does not go back: a program of the older version refuses its data.
        etcd.stop("cp-2")
        etcd.start("cp-2", old)
        process = etcd.members["cp-2"].process
        assert process is not None and process.wait(timeout=WAIT_S) != 0
        silent = call(etcd, "ready", "3.6")
        assert silent["failed"] and "2 of 3 members of etcd answer" in silent["msg"] and "cp-2" in silent["msg"]
        etcd.start("cp-2", new)
        etcd.wait("cp-2")
        elections += 1

        # Back, with a run that is cut off when etcd was told and not every member knows.
        planned = call(etcd, "ready", "3.6", check=True)
        assert planned["changed"] and planned["plan"][-1] == "let etcd go back to 3.6: all 3 members are at 3.7"
        assert not on_the_way_back(etcd)
        killed_when(etcd, "etcd is on its way back", "ready", "3.6", lambda: on_the_way_back(etcd))
        made = call(etcd, "ready", "3.6")
        assert data(etcd) == everywhere(etcd, "3.6.0")
        first = made["order"][0]
        etcd.restart(first, old)
        assert call(etcd, "ready", "3.6")["changed"] is False

        # Forward again after all, from the middle, cut off as well.
        planned = call(etcd, "ready", "3.7", check=True)
        assert planned["changed"] and planned["plan"][0].startswith(
            "end etcd's way back: it was on its way back to 3.6"
        )
        killed_when(etcd, "the way back is over", "ready", "3.7", lambda: not on_the_way_back(etcd))
        assert call(etcd, "ready", "3.7")["changed"] is False
        etcd.restart(first, new)
        call(etcd, "settled", "3.7")
        assert data(etcd) == everywhere(etcd, "3.7.0")

        # Back to the end.
        made = call(etcd, "ready", "3.6")
        assert made["changed"]
        replaced(etcd, made["order"], old)
        elections += 1
        killed_when(etcd, "the last member answers", "settled", "3.6", lambda: True)
        settled = call(etcd, "settled", "3.6")
        assert (settled["settled"], data(etcd), on_the_way_back(etcd)) == (True, everywhere(etcd, "3.6.0"), False)
        assert {one["version"].rpartition(".")[0] for one in settled["members"].values()} == {"3.6"}
        nothing = call(etcd, "ready", "3.6")
        assert (nothing["changed"], nothing["plan"]) == (False, [])
    print(
        f"{len(writer.written)} written, {len(writer.failed)} failed, longest {writer.longest:.1f} s: {writer.failed}"
    )
    assert len(writer.written) > 100
    assert writer.missing() == []
    assert len(writer.failed) <= PER_ELECTION * elections, writer.failed


def test_the_four_steps(etcd: etcd_cluster.Etcd, versions: tuple[Path, Path], tmp_path: Path) -> None:
    """By Ansible, as on a node: check mode, run, check mode, run."""
    for name in etcd.members:
        etcd.restart(name, versions[1])
    # At once: the module waits until etcd has risen, since only then it can go back.
    given = {
        "version": "3.6.14",
        "state": "ready",
        "nodes": etcd.nodes,
        "etcdctl": str(versions[1] / "etcdctl"),
        "environment": str(etcd.environment("cp-1")),
    }
    module = "k8sgu.cluster.etcd_version"
    results, said = ansible_program.run_tasks(
        tmp_path,
        [
            {module: given, "register": "planned", "check_mode": True},
            {module: given, "register": "told"},
            {module: given, "register": "planned_again", "check_mode": True},
            {module: given, "register": "again"},
            {module: {**given, "state": "settled"}, "register": "settled", "check_mode": True},
        ],
        "--diff",
        variables={},
    )
    assert [results[name]["changed"] for name in ("planned", "told", "planned_again", "again", "settled")] == [
        *(True, True),
        *(False, False),
        False,
    ]
    assert results["told"]["plan"][-1] == "let etcd go back to 3.6: all 3 members are at 3.7"
    assert "data of 3.6, on the way back to 3.6" in said
    assert results["settled"]["plan"][0].startswith("wait until etcd is at 3.6; now: 0 of 3 members run etcd 3.6")
    assert data(etcd) == everywhere(etcd, "3.6.0")


def test_an_election_and_a_member_that_is_kept_from_answering_are_waited_for(etcd: etcd_cluster.Etcd) -> None:
    leader = etcd.leader()
    term = etcd.statuses()[leader]["raftTerm"]
    node = next(name for name in etcd.members if name != leader)
    frozen = etcd.members[leader].process
    assert frozen is not None
    command, environment = etcd.module("etcd_version", node, state="ready", version="3.7", nodes=etcd.nodes)
    frozen.send_signal(signal.SIGSTOP)
    try:
        module = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        # Longer than a member is given for its answer.
        time.sleep(7)
        assert module.poll() is None, module.communicate()[0]
    finally:
        frozen.send_signal(signal.SIGCONT)
    said = json.loads(module.communicate(timeout=WAIT_S)[0])
    assert (said["changed"], set(said["order"])) == (False, set(etcd.members)), said
    assert etcd.statuses()[node]["raftTerm"] > term


def test_two_minors_a_node_that_is_no_member_and_a_version_that_is_none(etcd: etcd_cluster.Etcd) -> None:
    far = call(etcd, "ready", "3.8")
    assert far["failed"] and "etcd goes one minor version at a time, and to 3.8 it is 2: cp-" in far["msg"]
    more = etcd.run("etcd_version", "cp-0", state="ready", version="3.7", nodes={**etcd.nodes, "cp-9": "192.0.2.9"})
    assert more["failed"] and "cp-9 is no member of etcd, which has cp-0, cp-1, cp-2" in more["msg"]
    wrong = call(etcd, "ready", "v3.7")
    assert wrong["failed"] and wrong["msg"].startswith("version: v3.7 is no version of etcd; it has the form 3.7")
    waited = call(etcd, "settled", "3.7", timeout=1)
    assert waited["failed"] and waited["msg"].startswith("0 of 3 members run etcd 3.7")
