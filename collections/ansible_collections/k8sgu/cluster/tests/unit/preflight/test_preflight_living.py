# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes that a living cluster cannot make: fixed options, the count, versions, runtimes, and members without data."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.filter.joining_members import joining_members
from ansible_collections.k8sgu.cluster.plugins.filter.living_problems import living_problems
from ansible_collections.k8sgu.cluster.plugins.module_utils._preflight import living, members

MADE: dict[str, Any] = {
    "k8sgu_vpc_cidr": "10.240.0.0/16",
    "k8sgu_pod_cidr": "10.200.0.0/16",
    "k8sgu_pod_cidr_node_prefix": 24,
    "k8sgu_pod_network": "routed",
    "k8sgu_service_cidr": "10.32.0.0/16",
    "k8sgu_api_service_address": "10.32.0.1",
    "k8sgu_cluster_dns_address": "10.32.0.10",
    "k8sgu_cluster_domain": "cluster.local",
}
VALUES = {
    **MADE,
    "k8sgu_vpc_id": "",
    "k8sgu_cluster_name": "demo",
    "k8sgu_kubernetes_version": "1.36.4",
    "k8sgu_container_runtime": "containerd",
}
OTHERS: dict[str, Any] = {
    "k8sgu_vpc_cidr": "10.241.0.0/16",
    "k8sgu_pod_cidr": "10.201.0.0/16",
    "k8sgu_pod_cidr_node_prefix": 25,
    "k8sgu_pod_network": "vxlan",
    "k8sgu_service_cidr": "10.33.0.0/16",
    "k8sgu_api_service_address": "10.33.0.1",
    "k8sgu_cluster_dns_address": "10.33.0.10",
    "k8sgu_cluster_domain": "other.local",
}
RECORD = {"fixed": MADE, "members": ["cp-0"]}
THREE = {"fixed": MADE, "members": ["cp-0", "cp-1", "cp-2"]}
FILE = "/state/birth.json"


def member(number: int, started: bool = True, learner: bool = False) -> dict[str, Any]:
    name = "" if learner and not started else f"cp-{number}"
    return {"name": name, "address": f"10.240.0.1{number}", "started": started, "learner": learner}


ALL = [member(0), member(1), member(2)]


def node(name: str, etcd: dict[str, Any] | None = None, **membership: Any) -> dict[str, Any]:
    """A node that was read; `etcd` and `membership` are the differences from a new machine."""
    control_plane = name.startswith("cp")
    return {
        "name": name,
        "control_plane": control_plane,
        "etcd": control_plane,
        "address": f"10.240.0.1{name[-1]}",
        "membership": {
            "cluster": "",
            "fixed": {},
            "born": False,
            "etcd": {"data": False, "joined": False, "initial": [], "members": None, **(etcd or {})},
            "programs": {},
            "kept": {},
            "emulates": "",
            "runtime": "",
            "pods": 0,
            **membership,
        },
    }


def lived(name: str, told: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    """A member that had a quorum; `told` is what it answers."""
    initial = ["cp-0", "cp-1", "cp-2"]
    etcd = {"data": True, "joined": True, "initial": initial, "members": told, **more}
    return node(name, etcd, born=True, fixed=MADE, cluster="demo")


def waiting(name: str) -> dict[str, Any]:
    """A member that has data and never had a quorum."""
    return node(name, {"data": True, "initial": ["cp-0", "cp-1", "cp-2"]})


def lost(name: str) -> dict[str, Any]:
    return node(name, {"joined": True}, born=True, fixed=MADE, cluster="demo")


def unread(name: str) -> dict[str, Any]:
    return {**node(name), "membership": None}


def judged(
    changes: dict[str, Any],
    *nodes: dict[str, Any],
    record: dict[str, Any] | None = None,
    count: int | None = None,
) -> list[str]:
    return living.check_living({**VALUES, **changes}, count, record or {}, list(nodes))


OLD = node("cp-0", {"data": True, "joined": True, "members": [member(0)]}, born=True, fixed=MADE)
NEW = node("worker-1")


@pytest.mark.parametrize("option", living.FIXED)
@pytest.mark.parametrize(
    ("nodes", "record"),
    [((OLD,), {}), ((NEW,), RECORD), ((unread("cp-0"),), RECORD), ((node("worker-1", born=True, fixed=MADE),), {})],
    ids=["the node tells", "the record tells", "nobody answers", "a worker tells"],
)
def test_every_fixed_option_is_refused_with_both_values(
    option: str, nodes: tuple[dict[str, Any], ...], record: dict[str, Any]
) -> None:
    problems = judged({option: OTHERS[option]}, *nodes, record=record)
    assert len(problems) == 1, problems
    assert problems[0].startswith(f"{option}: {OTHERS[option]}, ")
    assert f"put back {MADE[option]}, or make a new cluster" in problems[0]
    assert judged({}, *nodes, record=record) == []


def test_all_of_them_at_once_and_in_other_types() -> None:
    problems = judged({**OTHERS, "k8sgu_control_plane_count": 2}, OLD, count=2)
    assert [problem.partition(":")[0] for problem in problems] == [*living.FIXED, "k8sgu_control_plane_count"]
    assert judged({"k8sgu_pod_cidr_node_prefix": "24"}, OLD) == []


@pytest.mark.parametrize(
    ("nodes", "record"),
    [
        ((), {}),
        ((), RECORD),  # every node is gone, and the cluster with them
        ((node("cp-0"), NEW), {}),
        ((node("cp-0", fixed=MADE, cluster="demo"), node("worker-1", fixed=MADE, cluster="demo")), {}),
        ((waiting("cp-0"), node("cp-1", fixed=MADE), node("cp-2")), {}),  # never had a quorum: nothing is in it
    ],
)
def test_before_its_birth_a_cluster_may_change_everything(
    nodes: tuple[dict[str, Any], ...], record: dict[str, Any]
) -> None:
    assert judged(OTHERS, *nodes, record=record) == []


def test_the_record_goes_before_the_nodes_and_the_control_plane_before_workers() -> None:
    worker = node("worker-1", born=True, fixed={**MADE, "k8sgu_cluster_dns_address": "10.32.0.99"})
    assert judged({}, worker, OLD) == []
    broken = node("cp-0", {"data": True, "joined": True}, born=True, fixed=OTHERS)
    assert judged({}, broken, record=RECORD) == []


def test_a_cluster_without_a_record_tells_the_address_of_the_api_by_its_range() -> None:
    shown = node("cp-0", {"data": True, "joined": True}, born=True, fixed={"k8sgu_service_cidr": "10.32.0.0/16"})
    problems = judged({"k8sgu_api_service_address": "10.33.0.1"}, shown)
    assert len(problems) == 1 and "made with 10.32.0.1" in problems[0]


def test_the_range_of_a_vpc_that_was_brought_is_not_fixed() -> None:
    assert judged({"k8sgu_vpc_cidr": "10.9.0.0/16", "k8sgu_vpc_id": "vpc-1"}, OLD) == []


@pytest.mark.parametrize(
    ("count", "nodes", "record", "expected"),
    [
        (
            2,
            (OLD,),
            {},
            "k8sgu_control_plane_count: 2, and this cluster's etcd has 1 member (cp-0); with an even number",
        ),
        (4, (lived("cp-0", ALL), lived("cp-1"), lived("cp-2")), {}, "make it 5, or put back 3"),
        (3, (node("cp-0", {"data": True, "initial": ["cp-0"]}),), {}, "it was started with these and waits for them"),
        (2, (lived("cp-0", ALL), lived("cp-1"), lived("cp-2")), {}, "make it 1, or put back 3"),
        (2, (unread("cp-0"), unread("cp-1")), THREE, "3 members (cp-0, cp-1, cp-2)"),
        (2, (lived("cp-0"),), {}, "put back 3"),  # by the unit beside the data
        (1, (waiting("cp-0"), node("cp-1"), node("cp-2")), {}, "put back 3, "),
        (None, (OLD, node("cp-1")), {}, "the inventory's group etcd: 2 (cp-0, cp-1), and"),
        (None, (lived("cp-0", ALL), lived("cp-1", ALL)), {}, "machines of your own"),
        (None, (lived("cp-0", ALL),), {}, "put back cp-1, cp-2, "),
    ],
)
def test_numbers_of_members_that_are_refused(
    count: int | None, nodes: tuple[dict[str, Any], ...], record: dict[str, Any], expected: str
) -> None:
    problems = judged({}, *nodes, record=record, count=count)
    assert len(problems) == 1, problems
    assert expected in problems[0]


@pytest.mark.parametrize(
    ("count", "nodes", "record"),
    [
        (3, (lived("cp-0", ALL), lived("cp-1", ALL)), {}),  # one of three is missing, and described
        (3, (lived("cp-0", ALL), lived("cp-1"), node("cp-2")), {}),  # and made anew
        (3, (node("worker-1", born=True, fixed=MADE),), THREE),
        (None, (node("worker-1", born=True, fixed=MADE),), RECORD),  # the description has the default
        (3, (node("cp-0"),), {}),
        (3, (OLD,), RECORD),  # more of them
        (5, (lived("cp-0", ALL), lived("cp-1"), lived("cp-2")), THREE),
        (3, (lived("cp-0", [member(0), member(1)]), lived("cp-1")), THREE),  # the third is being replaced
        (3, (lived("cp-0", [member(0), member(1, started=False, learner=True)]),), RECORD),
        (None, (OLD, node("cp-1"), node("cp-2")), {}),
        (1, (lived("cp-0", ALL), lived("cp-1"), lived("cp-2")), {}),  # fewer of them
        (3, (unread("cp-0"), unread("cp-1")), {**THREE, "members": ["cp-0", "cp-1", "cp-2", "cp-3", "cp-4"]}),
    ],
)
def test_numbers_of_members_that_can_be_had(
    count: int | None, nodes: tuple[dict[str, Any], ...], record: dict[str, Any]
) -> None:
    assert judged({}, *nodes, record=record, count=count) == []


@pytest.mark.parametrize(
    ("there", "wanted", "expected"),
    [
        (["1.36.4"], "1.36.4", ""),
        (["1.36.4"], "1.36.2", "runs 1.36.4; this playbook does not change the release"),
        (["1.36.4"], "1.37.2", "run playbooks/upgrade.yml, or put back 1.36.4"),
        (["1.37.2"], "1.36.4", "put back 1.37.2"),
        (["1.36.4", "1.37.2"], "1.36.4", "not come to its end (1.36.4 on cp-0; 1.37.2 on cp-1)"),
        (["1.36.4", "1.37.2"], "1.37.2", "or with k8sgu_upgrade_back: true to go back"),
        ([], "1.38.0", ""),
    ],
)
def test_versions(there: list[str], wanted: str, expected: str) -> None:
    nodes = [
        node(f"cp-{number}", born=True, programs={"kubelet": version, "etcd": "3.6.14"})
        for number, version in enumerate(there)
    ]
    problems = judged({"k8sgu_kubernetes_version": wanted}, *nodes)
    assert [expected in problem for problem in problems] == ([True] if expected else [])


def test_an_upgrade_has_checks_of_its_own_for_the_version() -> None:
    nodes = [node("cp-0", born=True, programs={"kubelet": "1.36.4"})]
    values = {**VALUES, "k8sgu_kubernetes_version": "1.37.2"}
    found = {"values": values, "count": None, "record": RECORD, "record_file": FILE, "nodes": nodes}
    assert [len(living_problems({**found, "upgrading": upgrading})) for upgrading in (False, True)] == [1, 0]


@pytest.mark.parametrize(("runtime", "pods", "refused"), [("docker", 3, 1), ("docker", 0, 0), ("", 0, 0)])
def test_a_runtime_changes_only_without_pods(runtime: str, pods: int, refused: int) -> None:
    problems = judged({}, node("worker-1", born=True, runtime=runtime, pods=pods))
    assert len(problems) == refused
    assert not refused or problems[0].startswith(
        "worker-1: k8sgu_container_runtime: containerd, and the node runs 3 pods with docker"
    )


def test_nodes_of_another_cluster_are_named_and_say_nothing_of_this_one() -> None:
    foreign = node("worker-1", born=True, fixed=OTHERS, cluster="prod")
    found = {"values": VALUES, "count": None, "record": {}, "record_file": FILE, "nodes": [foreign]}
    problems = living_problems(found)
    assert len(problems) == 1
    assert problems[0].startswith("worker-1: belongs to the cluster 'prod'")


@pytest.mark.parametrize(("count", "problems"), [("1", 0), (1, 0), (None, 0), ("3", 0), ("2", 1)])
def test_a_count_of_the_command_line_is_a_number(count: Any, problems: int) -> None:
    found = {"values": VALUES, "count": count, "record": RECORD, "record_file": FILE, "nodes": [OLD]}
    assert len(living_problems(found)) == problems


NO_QUORUM = "has lost its quorum: 1 of 3 members answer (cp-0), and 2 are needed"
STALE = "is no member (any more) of this cluster's etcd"
DATA_LOSS = "its database is lost"
HALF = [member(0), member(1), member(2, started=False)]
ADDED = [member(0), member(1, started=False, learner=True)]
LEARNER = [member(0), member(1, learner=True)]
# The nodes, the record, the problems by node, and who joins.
MEMBERS: list[tuple[str, list[dict[str, Any]], dict[str, Any], dict[str, str], list[str]]] = [
    ("a first start", [node("cp-0"), node("cp-1"), node("cp-2")], {}, {}, []),
    ("a first start alone", [node("cp-0"), NEW], {}, {}, []),
    ("all is well", [lived("cp-0"), lived("cp-1"), lived("cp-2")], THREE, {}, []),
    ("a birth cut off before a quorum", [waiting("cp-0"), node("cp-1"), node("cp-2")], {}, {}, []),
    ("a birth cut off before a quorum, two", [waiting("cp-0"), waiting("cp-1"), node("cp-2")], {}, {}, []),
    ("a birth cut off before the third", [lived("cp-0", HALF), lived("cp-1", HALF), node("cp-2")], {}, {}, []),
    (
        "that one is another machine now",
        [lived("cp-0", HALF), lived("cp-1", HALF), {**node("cp-2"), "address": "10.240.0.99"}],
        {},
        {},
        ["cp-2"],
    ),
    ("one lost its directory", [lived("cp-0", ALL), lived("cp-1", ALL), lost("cp-2")], THREE, {}, ["cp-2"]),
    ("one was made anew", [lived("cp-0", ALL), lived("cp-1", ALL), node("cp-2")], {}, {}, ["cp-2"]),
    (
        "made anew at another address",
        [lived("cp-0", ALL), lived("cp-1", ALL), {**node("cp-2"), "address": "10.240.0.99"}],
        {},
        {},
        ["cp-2"],
    ),
    (
        "two were made anew",
        [lived("cp-0", ALL), node("cp-1"), node("cp-2")],
        {},
        {"cp-1": NO_QUORUM, "cp-2": NO_QUORUM},
        ["cp-1", "cp-2"],
    ),
    ("from one to three", [OLD, node("cp-1"), node("cp-2")], RECORD, {}, ["cp-1", "cp-2"]),
    (
        "cut off after the second was added",
        [lived("cp-0", ADDED), node("cp-1"), node("cp-2")],
        {},
        {},
        ["cp-1", "cp-2"],
    ),
    (
        "cut off before the third got its vote",
        [lived("cp-0", LEARNER), lived("cp-1", LEARNER), node("cp-2")],
        {},
        {},
        ["cp-1", "cp-2"],
    ),
    (
        "another was removed and came back with its data",
        [lived("cp-0", [member(0), member(1)]), lived("cp-1", [member(0), member(1)]), lived("cp-2")],
        {},
        {"cp-2": STALE},
        [],
    ),
    (
        "who could tell does not answer",
        [lived("cp-0"), node("cp-1")],
        {},
        {"cp-1": "none of cp-0, which have data, lists its members"},
        [],
    ),
    ("the only one lost its directory", [lost("cp-0")], RECORD, {"cp-0": DATA_LOSS}, []),
    ("the only one was made anew", [node("cp-0")], RECORD, {"cp-0": DATA_LOSS}, []),
    ("the same, told by a worker", [node("cp-0"), node("worker-1", born=True)], {}, {"cp-0": DATA_LOSS}, []),
    ("the same, told by its own mark", [lost("cp-0")], {}, {"cp-0": DATA_LOSS}, []),
    (
        "all three lost theirs",
        [lost("cp-0"), lost("cp-1"), lost("cp-2")],
        {},
        {"cp-0": DATA_LOSS, "cp-1": DATA_LOSS, "cp-2": DATA_LOSS},
        [],
    ),
    ("another was not read", [unread("cp-0"), node("cp-1")], {}, {"cp-1": "whether cp-0 has could not be read"}, []),
    (
        "another was not read, and one tells",
        [unread("cp-0"), lived("cp-1", ALL), lost("cp-2")],
        {},
        {"cp-2": "1 of 3 members answer (cp-1), and 2 are needed; cp-0 could not be read. Start etcd on cp-0, cp-2"},
        ["cp-2"],
    ),
    ("nobody was read", [unread("cp-0")], RECORD, {}, []),
    (
        "a cluster without marks",
        [node("cp-0", {"data": True, "members": [member(0)]}, born=True), node("cp-1")],
        {},
        {},
        ["cp-1"],
    ),
]


@pytest.mark.parametrize(("case", "nodes", "record", "expected", "joins"), MEMBERS, ids=[row[0] for row in MEMBERS])
def test_which_members_may_start_without_data_and_who_joins(
    case: str, nodes: list[dict[str, Any]], record: dict[str, Any], expected: dict[str, str], joins: list[str]
) -> None:
    problems = members.check_members(record, nodes, FILE)
    assert [problem.partition(": ")[0] for problem in problems] == list(expected)
    for problem, text in zip(problems, expected.values()):
        assert text in problem
    found = {"values": VALUES, "count": None, "record": record, "record_file": FILE, "nodes": nodes}
    assert living_problems(found, "members") == problems
    joining = joining_members(found)
    assert joining["names"] == joins
    assert joining["without_data"] == [name for name in joins if not by_name(nodes, name)["membership"]["etcd"]["data"]]
    assert joining["by"] == (
        next(each["name"] for each in nodes if each["membership"] and each["membership"]["etcd"]["members"])
        if joins
        else ""
    )


def by_name(nodes: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(each for each in nodes if each["name"] == name)


def test_two_clusters_of_one_name_are_named_and_neither_is_touched() -> None:
    nodes = [lived("cp-0", [member(0)]), lived("cp-1", [member(1), member(2)]), node("cp-2")]
    problems = members.check_members(THREE, nodes, FILE)
    assert len(problems) == 1
    assert "cp-0 and cp-1 are members of two different etcd clusters (cp-0; cp-1, cp-2)" in problems[0]


@pytest.mark.parametrize(
    ("volume", "etcd", "words"),
    [
        ("vol-1", {"data": True}, ["cp-0: has the volume vol-1 for etcd", "on the root disk", "put back 0"]),
        ("", {"data": True, "volume": True}, ["cp-0: its etcd lives on a volume", "attach it again as /dev/sdf"]),
        ("", {"joined": True, "volume": True}, ["cp-0: its etcd lives on a volume"]),
        ("vol-1", {"data": True, "volume": True}, []),
        ("", {"data": True}, []),
        # Before a first start the data can be anywhere.
        ("vol-1", {}, []),
        ("", {"volume": True}, []),
    ],
)
def test_a_living_members_data_stays_where_it_is(volume: str, etcd: dict[str, Any], words: list[str]) -> None:
    problems = living.check_volume([{**node("cp-0", etcd), "volume": volume}])
    assert len(problems) == bool(words)
    assert all(word in problem for problem in problems for word in words)
    assert living.check_volume([{**node("worker-1", {"data": True}), "etcd": False, "volume": "vol-1"}]) == []
    assert problems == judged({}, {**node("cp-0", etcd), "volume": volume})


def test_a_member_whose_volume_is_not_mounted_does_not_pass_for_lost() -> None:
    def last(**etcd: Any) -> dict[str, Any]:
        return node("cp-2", {"joined": True, "volume": True, **etcd}, born=True, fixed=MADE)

    others = [lived("cp-0", ALL), lived("cp-1", ALL)]
    [problem] = members.check_members(THREE, [*others, last(mounted=False)], FILE)
    assert problem.startswith("cp-2: the volume of /var/lib/etcd is not mounted")
    assert "systemctl start var-lib-etcd.mount" in problem
    assert members.joining([*others, last(mounted=False)]) == []
    # With it mounted and empty the data is lost, as on a root disk.
    assert members.check_members(THREE, [*others, last(mounted=True)], FILE) == []
    assert members.joining([*others, last(mounted=True)]) == ["cp-2"]


def test_a_restore_that_was_cut_off_is_named_and_nothing_else() -> None:
    """Members without data would be told to join, or to come back from a backup."""
    nodes = [lived("cp-0", ALL[:1], restoring="s.db"), node("cp-1", {"joined": True}), node("cp-2", {"joined": True})]
    assert members.check_members(THREE, nodes, FILE) == [
        "cp-0: a restore of s.db was begun and has not come to its end, so that members of etcd may be without data; "
        "complete it: playbooks/restore.yml"
    ]
    assert members.check_members(THREE, nodes, FILE, restoring=True) == []
    assert members.joining(nodes) == ["cp-1", "cp-2"]
