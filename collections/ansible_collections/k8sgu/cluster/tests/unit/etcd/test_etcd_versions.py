# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When etcd's members may be replaced by those of another version, what has to be done before, and what is awaited."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import plan, versions
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.versions import CANCEL, ENABLE, RISE, Running

OLD, NEW = "3.6.14", "3.7.3"


def member(number: int, version: str = OLD, data: str = "3.6.0", **more: Any) -> Running:
    return Running(f"cp-{number}", version, data, **{"leads": number == 0, **more})


def three(versions_: str, data: str = "3.6.0", **more: Any) -> list[Running]:
    """Three members, o of the old version and n of the new one."""
    return [member(number, {"o": OLD, "n": NEW}[kind], data, **more) for number, kind in enumerate(versions_)]


BACK: dict[str, Any] = {"target": "3.6.0"}
STEPS: list[tuple[str, list[Running], str, list[tuple[str, tuple[int, int]]]]] = [
    ("forward from the start", three("ooo"), NEW, []),
    ("forward, one member is there already", three("noo"), NEW, []),
    ("forward, all are there", three("nnn", "3.7.0"), NEW, []),
    ("a patch forward", three("ooo"), "3.6.20", []),
    ("back from the end", three("nnn", "3.7.0"), OLD, [(ENABLE, (3, 6))]),
    ("back, and etcd was told", three("nnn", "3.7.0", **BACK), OLD, []),
    ("back, and etcd was told and is ready", three("nnn", "3.6.0", **BACK), OLD, []),
    ("back, one member is back already", three("nno", "3.6.0", **BACK), OLD, []),
    ("back, all are back, and etcd still says so", three("ooo", "3.6.0", **BACK), OLD, []),
    ("back from the middle of the way forward", three("nno"), OLD, []),
    (
        "back a moment after the last was replaced",
        three("nnn", "3.6.0"),
        OLD,
        [(RISE, (3, 7)), (ENABLE, (3, 6))],
    ),
    (
        "back when some data has risen",
        [*three("nn", "3.7.0"), member(2, NEW, "3.6.0")],
        OLD,
        [(RISE, (3, 7)), (ENABLE, (3, 6))],
    ),
    ("forward again from the way back", three("nno", "3.6.0", **BACK), NEW, [(CANCEL, (3, 7))]),
    ("forward again before the first was replaced", three("nnn", "3.6.0", **BACK), NEW, [(CANCEL, (3, 7))]),
    ("forward when the way back has just ended", three("ooo", "3.6.0", **BACK), NEW, [(CANCEL, (3, 7))]),
    ("a single member back", [member(0, NEW, "3.7.0")], "3.6", [(ENABLE, (3, 6))]),
]


@pytest.mark.parametrize(("case", "running", "version", "expected"), STEPS, ids=[row[0] for row in STEPS])
def test_what_is_done_before_members_are_replaced(
    case: str, running: list[Running], version: str, expected: list[tuple[str, tuple[int, int]]]
) -> None:
    made = versions.ready(running, [], version)
    assert made.problem == ""
    assert [(step.kind, step.version) for step in made.steps] == expected
    assert all(step.shown.endswith(step.reason) and step.reason for step in made.steps)


REFUSED: list[tuple[str, list[Running], list[str], str, str]] = [
    ("two minors forward", three("ooo"), [], "3.8.1", "one minor version at a time, and to 3.8 it is 2: cp-0 has 3.6"),
    ("two minors back", three("nnn", "3.7.0"), [], "3.5.9", "one minor version at a time, and to 3.5 it is 2: cp-0"),
    ("one member is two minors away", three("noo"), [], "3.5.9", "to 3.5 it is 2: cp-0 has 3.7.3; see"),
    ("another major version", three("ooo"), [], "4.0.0", "one minor version at a time"),
    ("a member is silent", three("oo"), ["cp-2"], NEW, "2 of 3 members of etcd answer, and its version changes only"),
    ("nobody answers", [], ["cp-0", "cp-1", "cp-2"], NEW, "0 of 3 members of etcd answer"),
    ("a learner", [*three("oo"), member(2, learner=True)], [], NEW, "cp-2: this member of etcd has no vote yet"),
    ("an alarm", [*three("oo"), member(2, alarms=("alarm:NOSPACE",))], [], NEW, "(cp-2: alarm:NOSPACE); clear it"),
    ("no leader", [member(1), member(2)], [], NEW, "etcd has no leader now"),
    ("two that say they lead", [member(0), member(1, leads=True)], [], NEW, "etcd has no leader now"),
    ("data of no version", [member(0, "3.5.21", "")], [], OLD, "cp-0 (3.5.21) does not say which version its data"),
    (
        "too old a patch to be joined by the next minor",
        [*three("oo"), member(2, "3.6.10")],
        [],
        NEW,
        "members of etcd 3.7 join only those of 3.6.11 or later, and cp-2 has 3.6.10; go to the newest 3.6 first",
    ),
    ("a way back to elsewhere", three("ooo", "3.6.0", **BACK), [], "3.5.9", "on its way back to 3.6, which has to be"),
]


@pytest.mark.parametrize(("case", "running", "silent", "version", "expected"), REFUSED, ids=[row[0] for row in REFUSED])
def test_when_nothing_may_be_changed(
    case: str, running: list[Running], silent: list[str], version: str, expected: str
) -> None:
    made = versions.ready(running, silent, version)
    assert made.steps == ()
    assert expected in made.problem
    # Worth a few seconds' wait, unlike the others.
    assert made.passing == ("answer" in expected or "no leader" in expected)


AWAITED: list[tuple[str, list[Running], list[str], str, str]] = [
    ("back, and all data is lowered", three("nnn", "3.6.0", **BACK), [], OLD, ""),
    ("back, and one member's is not", [*three("nn", "3.6.0", **BACK), member(2, NEW, "3.7.0")], [], OLD, "cp-2 to be"),
    ("back from the middle", three("noo"), [], OLD, ""),
    ("forward after the way back was ended", three("nno"), [], NEW, ""),
    ("forward, and one does not know it yet", [*three("no"), member(2, **BACK)], [], NEW, "cp-2 to know that etcd"),
    ("one went silent", three("no"), ["cp-2"], NEW, "cp-2 to answer"),
    ("an election", [member(1), member(2)], [], NEW, "agree on a leader"),
]


@pytest.mark.parametrize(("case", "running", "silent", "version", "expected"), AWAITED, ids=[row[0] for row in AWAITED])
def test_what_is_awaited_before_the_first_is_replaced(
    case: str, running: list[Running], silent: list[str], version: str, expected: str
) -> None:
    lacking = versions.lacks_ready(running, silent, version)
    assert (expected in lacking) if expected else lacking == ""


LAST: list[tuple[str, list[Running], list[str], str, str]] = [
    ("forward, all is there", three("nnn", "3.7.0"), [], NEW, ""),
    ("forward, and its data has not risen", three("nnn"), [], NEW, "the data of cp-0, cp-1, cp-2 to be of 3.7"),
    ("back, all is there", three("ooo"), [], OLD, ""),
    ("back, and etcd still says so", three("ooo", "3.6.0", **BACK), [], OLD, "the way back to 3.6 to be over"),
    ("one is silent", three("oo"), ["cp-2"], OLD, "cp-2 to answer"),
    ("no leader", [member(1), member(2)], [], OLD, "agree on a leader"),
]


@pytest.mark.parametrize(("case", "running", "silent", "version", "expected"), LAST, ids=[row[0] for row in LAST])
def test_what_is_awaited_after_the_last_was_replaced(
    case: str, running: list[Running], silent: list[str], version: str, expected: str
) -> None:
    lacking = versions.lacks_settled(running, silent, version)
    assert (expected in lacking) if expected else lacking == ""
    assert versions.settled(running, version) == ""


def test_waiting_is_in_vain_while_a_program_is_of_the_other_version() -> None:
    said = versions.settled(three("nno"), NEW)
    assert said.startswith("2 of 3 members run etcd 3.7") and said.endswith("still to be replaced: cp-2 (3.6.14)")
    said = versions.settled(three("nnn", "3.6.0", **BACK), NEW)
    assert said.startswith("etcd is on its way back to 3.6, and comes to 3.7 only when that is ended")


def test_the_leader_is_replaced_last() -> None:
    assert versions.order([member(0), member(1), member(2)]) == ["cp-1", "cp-2", "cp-0"]


def test_a_members_status_is_read_as_etcdctl_writes_it() -> None:
    listed = plan.Member(7, "cp-0", (), (), learner=False)
    status = {
        "header": {"cluster_id": 1, "member_id": 7, "revision": 9},
        "version": "3.7.3",
        "storageVersion": "3.6.0",
        "leader": 7,
        "downgradeInfo": {"enabled": True, "targetVersion": "3.6.0"},
        "errors": ["memberID:7 alarm:NOSPACE "],
    }
    read = versions.parse(listed, status)
    assert read == Running("cp-0", "3.7.3", "3.6.0", "3.6.0", leads=True, alarms=("memberID:7 alarm:NOSPACE ",))
    assert versions.parse(listed, {**status, "downgradeInfo": {}, "leader": 8}).target == ""
    # During an election, which is no alarm that somebody could clear.
    assert versions.parse(listed, {**status, "leader": 0, "errors": ["etcdserver: no leader"]}).alarms == ()
