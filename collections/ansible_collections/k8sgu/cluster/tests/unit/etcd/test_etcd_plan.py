# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How nodes join etcd and leave it: what is removed and added, in which order, and when nothing may be changed."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import etcdctl, plan
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.plan import Member

NODES = {f"cp-{number}": f"10.240.0.1{number}" for number in range(5)}


def member(number: int, **changes: Any) -> Member:
    facts: dict[str, Any] = {
        "id": number + 1,
        "name": f"cp-{number}",
        "peers": (f"https://10.240.0.1{number}:2380",),
        "clients": (f"https://10.240.0.1{number}:2379",),
        "learner": False,
        **changes,
    }
    return Member(**facts)


def added(number: int) -> Member:
    """A learner that has not started."""
    return member(number, name="", clients=(), learner=True)


ZERO, ONE, TWO = member(0), member(1), member(2)
JOINS: list[tuple[str, list[Member], set[int], str, list[str], list[tuple[str, str]]]] = [
    ("a second member", [ZERO], {1}, "cp-1", ["cp-1", "cp-2"], [("", "no member yet")]),
    ("the third", [ZERO, ONE], {1, 2}, "cp-2", ["cp-2"], [("", "no member yet")]),
    ("a run that was cut off after it was added", [ZERO, added(1)], {1}, "cp-1", ["cp-1"], []),
    (
        "its data is lost",
        [ZERO, ONE, TWO],
        {1, 2},
        "cp-2",
        ["cp-2"],
        [("cp-2", "lost its data"), ("", "no member yet")],
    ),
    (
        "it was a learner and lost its data",
        [ZERO, member(1, learner=True)],
        {1},
        "cp-1",
        ["cp-1"],
        [("cp-1", "lost its data"), ("", "no member yet")],
    ),
    (
        "two of five are lost",
        [ZERO, ONE, TWO, member(3), member(4)],
        {1, 2, 3},
        "cp-3",
        ["cp-3", "cp-4"],
        [("cp-3", "lost its data"), ("", "no member yet")],
    ),
    (
        "another was added by a run that was cut off",
        [ZERO, added(2)],
        {1},
        "cp-1",
        ["cp-1", "cp-2"],
        [("10.240.0.12", "joins later"), ("", "no member yet")],
    ),
    (
        "a member is no node any more",
        [ZERO, ONE, member(9, name="gone")],
        {1, 2},
        "cp-2",
        ["cp-2"],
        [("gone", "no node of this cluster"), ("", "no member yet")],
    ),
]


@pytest.mark.parametrize(
    ("case", "members", "healthy", "name", "empty", "expected"), JOINS, ids=[row[0] for row in JOINS]
)
def test_what_is_done_before_a_node_starts(
    case: str, members: list[Member], healthy: set[int], name: str, empty: list[str], expected: list[tuple[str, str]]
) -> None:
    made = plan.join(members, healthy, name, NODES, empty)
    assert made.problem == ""
    assert [step.remove.shown if step.remove else "" for step in made.steps] == [shown for shown, _reason in expected]
    for step, (_shown, reason) in zip(made.steps, expected, strict=True):
        assert reason in step.reason


REFUSED: list[tuple[str, list[Member], set[int], list[str], str]] = [
    ("no quorum", [ZERO, ONE, TWO], {1}, ["cp-2"], "lost its quorum: 1 of 3 members answer (cp-0), and it needs 2"),
    ("nobody answers", [ZERO], set(), ["cp-2"], "0 of 1 members answer (none), and it needs 1"),
    ("another is down", [ZERO, ONE, member(3), TWO], {1, 3, 2}, ["cp-2"], "cp-3: this member of etcd does not answer"),
    (
        "another is a learner",
        [ZERO, member(1, learner=True)],
        {1, 2},
        ["cp-2"],
        "cp-1: this member of etcd is a learner",
    ),
]


@pytest.mark.parametrize(("case", "members", "healthy", "empty", "expected"), REFUSED, ids=[row[0] for row in REFUSED])
def test_when_nothing_may_be_changed(
    case: str, members: list[Member], healthy: set[int], empty: list[str], expected: str
) -> None:
    made = plan.join(members, healthy, "cp-2", NODES, empty)
    assert made.steps == ()
    assert expected in made.problem


def test_a_member_that_is_no_node_stays_while_it_answers() -> None:
    made = plan.join([ZERO, member(9, name="other")], {1, 10}, "cp-1", NODES, ["cp-1"])
    assert [step.remove for step in made.steps] == [None]


def test_the_new_member_is_told_everybody_by_name_and_address() -> None:
    assert (
        plan.initial_cluster([ZERO, added(1)], "cp-1", NODES)
        == "cp-0=https://10.240.0.10:2380,cp-1=https://10.240.0.11:2380"
    )


def test_the_list_is_read_as_etcdctl_writes_it() -> None:
    document = {
        "members": [
            {"ID": 5064114007733062527, "name": "cp-0", "peerURLs": ["https://10.240.0.10:2380"], "clientURLs": ["x"]},
            {"ID": 6044540287465893972, "peerURLs": ["https://10.240.0.11:2380"], "isLearner": True},
        ]
    }
    assert [(one.shown, one.started, one.learner) for one in plan.parse(document)] == [
        ("cp-0", True, False),
        ("10.240.0.11", False, True),
    ]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            subprocess.CalledProcessError(1, "etcdctl", stderr=b'{"level":"warn"}\nError: unhealthy cluster\n'),
            "unhealthy cluster",
        ),
        (subprocess.CalledProcessError(3, "etcdctl", stderr=b""), "etcdctl ended with 3"),
        (FileNotFoundError(2, "No such file", "etcdctl"), "[Errno 2] No such file: 'etcdctl'"),
    ],
)
def test_what_etcdctl_says_without_its_log(error: Exception, expected: str) -> None:
    assert etcdctl.reason(error) == expected


def addresses(*numbers: int) -> dict[str, str]:
    return {name: NODES[name] for name in (f"cp-{number}" for number in numbers)}


ALL = [member(number) for number in range(5)]
LEAVES: list[tuple[str, list[Member], set[int], int, tuple[int, ...], tuple[int, ...], list[str]]] = [
    ("nobody is a member any more", ALL[:3], {1, 2, 3}, 1, (3, 4), (0, 1, 2), []),
    ("two of five", ALL, {1, 2, 3, 4, 5}, 1, (3, 4), (0, 1, 2), ["cp-3", "cp-4"]),
    ("two of three", ALL[:3], {1, 2, 3}, 1, (1, 2), (0,), ["cp-1", "cp-2"]),
    ("the leader last, and another leads", ALL[:3], {1, 2, 3}, 2, (1, 2), (0,), ["cp-2", "cp-1 cp-0"]),
    ("one that is down first", ALL[:3], {1, 2}, 2, (1, 2), (0,), ["cp-2", "cp-1 cp-0"]),
    ("a run was cut off after the first", ALL[:2], {1, 2}, 1, (1, 2), (0,), ["cp-1"]),
    ("a learner that is not needed any more", [ZERO, added(1)], {1}, 1, (1,), (0,), ["10.240.0.11"]),
    ("to be replaced", ALL[:3], {1, 2, 3}, 3, (2,), (0, 1), ["cp-2 cp-0"]),
]


@pytest.mark.parametrize(
    ("case", "members", "healthy", "leader", "leaving", "staying", "expected"), LEAVES, ids=[row[0] for row in LEAVES]
)
def test_in_which_order_members_leave(
    case: str,
    members: list[Member],
    healthy: set[int],
    leader: int,
    leaving: tuple[int, ...],
    staying: tuple[int, ...],
    expected: list[str],
) -> None:
    made = plan.leave(members, healthy, leader, addresses(*leaving), addresses(*staying))
    assert made.problem == ""
    shown = [f"{step.member.shown} {step.successor.shown if step.successor else ''}".strip() for step in made.steps]
    assert shown == expected
    # At no step fewer members than a quorum work.
    left = list(members)
    for step in made.steps:
        left.remove(step.member)
        voters = [member for member in left if not member.learner]
        assert sum(member.id in healthy for member in voters) >= plan.quorum(len(voters))


def test_who_serves_no_client_any_more_counts_while_somebody_serves() -> None:
    three = ALL[:3]
    asked = addresses(1, 2), addresses(0)
    made = plan.leave(three, {1}, 3, *asked, retired={2, 3})
    assert made.problem == ""
    # And takes no order: nobody can be told to lead instead of cp-2.
    assert [(step.member.shown, step.successor) for step in made.steps] == [("cp-1", None), ("cp-2", None)]
    assert "lost its quorum: 0 of 3" in plan.leave(three, set(), 0, *asked, retired={2, 3}).problem
    assert "lost its quorum: 1 of 3" in plan.leave(three, {1}, 1, *asked).problem


RETIRE: list[tuple[str, list[Member], set[int], tuple[int, ...], list[str]]] = [
    ("both that leave, one after another", ALL[:3], {1, 2, 3}, (1, 2), ["cp-1", "cp-2"]),
    ("not one of two, whom the other needs", ALL[:2], {1, 2}, (1,), []),
    ("none beside one that is down", ALL[:3], {1, 2}, (1, 2), []),
    ("those of five that answer", ALL, {1, 2, 3, 4}, (3, 4), ["cp-3"]),
    ("no learner, whom nobody asks", [*ALL[:3], member(3, learner=True)], {1, 2, 3, 4}, (2, 3), ["cp-2"]),
]


@pytest.mark.parametrize(("case", "members", "healthy", "leaving", "expected"), RETIRE, ids=[row[0] for row in RETIRE])
def test_who_can_be_without_clients(
    case: str, members: list[Member], healthy: set[int], leaving: tuple[int, ...], expected: list[str]
) -> None:
    staying = [number for number in range(len(members)) if number not in leaving]
    made = plan.leave(members, healthy, 1, addresses(*leaving), addresses(*staying))
    assert made.problem == ""
    assert sorted(one.shown for one in plan.retiring(members, healthy, made.steps)) == expected


CANNOT: list[tuple[str, list[Member], set[int], tuple[int, ...], tuple[int, ...], str]] = [
    ("the only one", [ZERO], {1}, (0,), (), "etcd has 1 member (cp-0), and without cp-0 nobody has its data"),
    ("all of them", ALL[:3], {1, 2, 3}, (0, 1, 2), (), "without cp-0, cp-1, cp-2 nobody has its data"),
    ("no quorum", ALL[:3], {1}, (2,), (0, 1), "lost its quorum: 1 of 3 members answer (cp-0), and it needs 2"),
    ("one that stays is down", ALL, {1, 2, 4, 5}, (3, 4), (0, 1, 2), "5 members (cp-0, cp-1, cp-2, cp-3, cp-4); cp-3"),
    ("one that stays has no vote", [ZERO, ONE, member(2, learner=True)], {1, 2, 3}, (1,), (0, 2), "cp-2 has no vote"),
    ("the others have no vote", [ZERO, member(1, learner=True)], {1, 2}, (0,), (1,), "without cp-0 nobody has its"),
    ("one that nobody knows", [ZERO, ONE, member(9, name="odd")], {1, 2, 10}, (1,), (0,), "odd is no node of this"),
]


@pytest.mark.parametrize(
    ("case", "members", "healthy", "leaving", "staying", "expected"), CANNOT, ids=[row[0] for row in CANNOT]
)
def test_members_that_cannot_be_spared(
    case: str,
    members: list[Member],
    healthy: set[int],
    leaving: tuple[int, ...],
    staying: tuple[int, ...],
    expected: str,
) -> None:
    made = plan.leave(members, healthy, 1, addresses(*leaving), addresses(*staying))
    assert made.steps == () and expected in made.problem
