# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which members are defragmented, in which order, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import defragment, etcd_space, space
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.etcdctl import EtcdError
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.members import Members
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.options import ARGUMENT_SPECS
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.plan import Member, Plan
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.space import Room
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call

MIB = 1 << 20


def room(number: int, used: int, size: int = 100, **changes: Any) -> Room:
    name = f"cp-{number}"
    member = Member(number + 1, name, ("https://192.0.2.1:2380",), ("https://192.0.2.1:2379",), False)
    return replace(Room(member, name, size * MIB, used * MIB, 1000 * MIB, revision=number), **changes)


THREE = [room(0, 10, leads=True), room(1, 60), room(2, 55)]


def kinds(plan: Plan[space.Step]) -> list[tuple[str, str]]:
    assert plan.problem == ""
    return [(step.kind, step.name) for step in plan.steps]


@pytest.mark.parametrize(
    ("percent", "expected"),
    [
        (91, []),
        (90, [("move", "cp-1"), ("defragment", "cp-0")]),
        (45, [("defragment", "cp-2"), ("move", "cp-1"), ("defragment", "cp-0")]),
        (40, [("defragment", "cp-1"), ("defragment", "cp-2"), ("move", "cp-1"), ("defragment", "cp-0")]),
    ],
)
def test_those_with_enough_free_and_the_leader_last(percent: int, expected: list[tuple[str, str]]) -> None:
    for rooms in (THREE, THREE[::-1]):
        assert kinds(space.plan(rooms, [], percent, False)) == expected
        # A run that was not needed for the alarm does no more.
        assert kinds(space.plan(rooms, [], percent, True)) == expected


def test_a_single_member_leads_on_and_a_learner_never_does() -> None:
    alone = room(0, 10, leads=True)
    assert kinds(space.plan([alone], [], 45, False)) == [("defragment", "cp-0")]
    learner = room(1, 10)
    learner = replace(learner, member=replace(learner.member, learner=True))
    assert kinds(space.plan([alone, learner], [], 45, False)) == [("defragment", "cp-1"), ("defragment", "cp-0")]


def test_a_file_as_large_as_a_lowered_quota_is_cured_before_a_write_raises_the_alarm() -> None:
    lowered = [replace(one, quota=100 * MIB) for one in THREE]
    assert kinds(space.plan(lowered, [], 99, True))[0] == ("compact", "")
    assert kinds(space.plan(lowered, [], 99, True))[-1] == ("disarm", "")
    # It takes writes for the moment, so that the timer has no say.
    assert kinds(space.plan(lowered, [], 99, False)) == []


def test_an_empty_file_is_left_alone() -> None:
    assert kinds(space.plan([room(0, 0, size=0, leads=True)], [], 1, False)) == []


def test_a_full_quota_is_cured_on_request_alone() -> None:
    full = [replace(one, full=True, used=one.size) for one in THREE]
    assert kinds(space.plan(full, [], 45, True)) == [
        ("compact", ""),
        *(("defragment", "cp-1"), ("defragment", "cp-2")),
        *(("move", "cp-1"), ("defragment", "cp-0")),
        ("disarm", ""),
    ]
    problem = space.plan(full, [], 45, False).problem
    assert (
        "has used up its quota (cp-0: 100.0 MiB of 1000.0, " in problem and "playbooks/etcd_maintenance.yml" in problem
    )


@pytest.mark.parametrize(
    ("rooms", "silent", "problem", "passing"),
    [
        (THREE[:2], ["cp-2"], "2 of 3 members of etcd answer, .* start it on cp-2 first", True),
        (THREE[1:], [], "etcd has no leader now", True),
        (
            [replace(THREE[0], faults=("memberID:1 alarm:CORRUPT",)), *THREE[1:]],
            [],
            "cp-0: memberID:1 alarm:CORRUPT",
            False,
        ),
    ],
)
def test_what_is_refused(rooms: list[Room], silent: list[str], problem: str, passing: bool) -> None:
    made = space.plan(rooms, silent, 1, True)
    assert made.steps == () and made.passing is passing
    with pytest.raises(EtcdError, match=problem):
        raise EtcdError(made.problem)


def test_data_that_fills_the_quota_keeps_the_alarm() -> None:
    assert space.still_full(THREE) == ""
    over = space.still_full([*THREE[:2], replace(THREE[2], quota=100 * MIB)])
    assert "(cp-2: 100.0 MiB of 100.0)" in over and "k8sgu_etcd_quota_bytes" in over


@pytest.mark.parametrize(("used", "warned"), [(89, False), (90, True), (100, True)])
def test_a_quota_that_is_nearly_used_up(used: int, warned: bool) -> None:
    told = space.advice([replace(one, quota=100 * MIB) for one in (room(0, 10, leads=True), room(1, used))])
    assert len(told) == warned
    assert not warned or f"fills {used} % of its quota ({used}.0 of 100.0 MiB)" in told[0]


def test_what_a_member_says() -> None:
    status = {
        "header": {"member_id": 1, "revision": 7},
        "leader": 1,
        "dbSize": 20480,
        "dbSizeInUse": 4096,
        "dbSizeQuota": 65536,
        "errors": ["memberID:2 alarm:NOSPACE ", "memberID:1 alarm:CORRUPT ", "etcdserver: no leader"],
    }
    read = space.parse(THREE[0].member, "node", status)
    assert (read.name, read.size, read.used, read.quota, read.revision) == ("node", 20480, 4096, 65536, 7)
    assert (read.leads, read.full, read.faults) == (True, True, ("memberID:1 alarm:CORRUPT",))
    assert read.free_percent == 80


@pytest.mark.parametrize("percent", [0, 100])
def test_a_share_that_is_none(percent: int) -> None:
    defaults = {name: option.get("default") for name, option in ARGUMENT_SPECS["etcd_space"].items()}
    with pytest.raises(EtcdError, match=f"percent: {percent}; choose from 1 to 99"):
        etcd_space.run(Call({**defaults, "percent": percent}))


def test_the_program_leaves_it_to_the_leader(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[dict[str, Any]] = []

    def run(call: Call) -> dict[str, Any]:
        asked.append(dict(call.options))
        return {"plan": ["defragment cp-1: because"], "freed": 3 * MIB}

    monkeypatch.setattr(etcd_space, "run", run)
    monkeypatch.setattr(Members, "leads", lambda _members: False)
    assert defragment.main(["--percent=30"]) == 0 and asked == []
    assert capsys.readouterr().out == "another member leads, and sees to it\n"
    monkeypatch.setattr(Members, "leads", lambda _members: True)
    assert defragment.main(["--percent=30"]) == 0
    assert [(one["percent"], one["state"]) for one in asked] == [(30, "defragmented")]
    assert capsys.readouterr().out == "defragment cp-1: because\n3.0 MiB freed\n"


def test_the_program_says_why_it_could_not(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def leads(_members: Members) -> bool:
        raise EtcdError("etcd on this node does not say who leads: refused")

    monkeypatch.setattr(Members, "leads", leads)
    assert defragment.main(["--percent=45"]) == 1
    assert capsys.readouterr().err == "etcd on this node does not say who leads: refused\n"
