# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Members of etcd are replaced one in a run, and what is left for later runs keeps what it lives on."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from test_ec2_plan import FACTS, OURS, description, finished, instance, pool

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import cluster, plan, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.balancer.load_balancer import LoadBalancer
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.network.nat import NatGateway
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.network.route_tables import (
    DeleteRoute,
    Route,
    RouteTable,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.network.subnets import Subnet
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.departures import departures
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.instances import Terminate
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.launch import Replace
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.members import ending

ZONES = ("us-east-1a", "us-east-1b", "us-east-1c")


def members(count: int, **more: Any) -> Current:
    """An account with so many control-plane nodes; `more` is what is different about all of them."""
    current = finished()
    others = [
        instance(f"demo-control-plane-{number}", 9 + number, tags.CONTROL_PLANE, "control_plane")
        for number in range(1, count)
    ]
    current.instances = [
        dataclasses.replace(node, **more) if "control-plane" in node.name else node
        for node in [*current.instances, *others]
    ]
    table = current.route_tables[0]
    routes = {node.tags[tags.POD_CIDR]: Route(node.tags[tags.POD_CIDR], node.id) for node in others}
    current.route_tables = [dataclasses.replace(table, routes={**table.routes, **routes})]
    return current


def changed(current: Current, number: int, **more: Any) -> Current:
    name = f"demo-control-plane-{number}"
    current.instances = [dataclasses.replace(node, **more) if node.name == name else node for node in current.instances]
    return current


def wanted(count: int, kind: str = "m5.large", **more: Any) -> Description:
    pools = (pool("control_plane", count, instance_type=kind), pool("workers", 2))
    return description(**{"pools": pools, "allow_replace": True, **more})


def ended(made: plan.Plan) -> list[str]:
    return [
        step.key for step in made.changes if isinstance(step, (Replace, Terminate)) and "control-plane" in step.resource
    ]


REPLACE, DELETE = "replace instance/demo-control-plane-", "delete instance/demo-control-plane-"
BIG, STOPPED = {"instance_type": "m5.xlarge"}, {"state": "stopped"}
BIG_ONES = wanted(3, "m5.xlarge")
TABLE: list[tuple[str, Description, Current, list[str], list[int]]] = [
    ("three of another type", BIG_ONES, members(3), [REPLACE + "0"], [1, 2]),
    ("two of another type", BIG_ONES, changed(members(3), 0, **BIG), [REPLACE + "1"], [2]),
    ("one of another type", BIG_ONES, changed(members(3, **BIG), 1, instance_type="m5.large"), [REPLACE + "1"], []),
    ("from five to one", wanted(1), members(5), [DELETE + "4"], [1, 2, 3]),
    ("to be replaced comes before to be removed", wanted(1, "m5.xlarge"), members(3), [REPLACE + "0"], [1, 2]),
    ("the one that is down first", BIG_ONES, changed(members(3), 2, **STOPPED), [REPLACE + "2"], [0, 1]),
    ("two that are down", wanted(1), changed(members(3, **STOPPED), 0, state="running"), [DELETE + "2"], [1]),
    ("none while another is missing", BIG_ONES, changed(members(3), 1, state="terminated"), [], [0, 2]),
    ("none while another starts", BIG_ONES, changed(members(3), 0, **BIG, **STOPPED), [], [1, 2]),
    ("none while it grows", BIG_ONES, members(1), [], [0]),
    ("a single member", wanted(1, "m5.xlarge"), members(1), [REPLACE + "0"], []),
    ("nothing", wanted(3), members(3), [], []),
]


@pytest.mark.parametrize(("case", "given", "current", "steps", "held"), TABLE, ids=[row[0] for row in TABLE])
def test_one_member_in_a_run(
    case: str, given: Description, current: Current, steps: list[str], held: list[int]
) -> None:
    made = cluster.make(given, current, FACTS)
    assert ended(made) == steps
    named = ", ".join(f"demo-control-plane-{number}" for number in held)
    assert [warning.partition(":")[0] for warning in made.warnings] == ([named] if held else [])


LIVING: list[tuple[str, Description, Current, list[str]]] = [
    ("three of another type", BIG_ONES, members(3), [REPLACE + "0"]),
    ("from five to three", wanted(3), members(5), [DELETE + "3", DELETE + "4"]),
    ("from three to one", wanted(1), members(3), [DELETE + "1", DELETE + "2"]),
    ("to be replaced comes before to be removed", wanted(1, "m5.xlarge"), members(3), [REPLACE + "0"]),
    ("one that is stopped", wanted(1), changed(members(3), 2, **STOPPED), [DELETE + "1", DELETE + "2"]),
    ("none while one that stays is stopped", wanted(3), changed(members(5), 1, **STOPPED), []),
    ("but one that is down", wanted(3), changed(changed(members(5), 1, **STOPPED), 3, **STOPPED), [DELETE + "3"]),
    ("none while another is missing", wanted(3), changed(members(5), 1, state="terminated"), []),
    ("one that has ended", wanted(3), changed(members(3), 1, state="terminated"), []),
    ("one that is stopped and stays", wanted(3), changed(members(3), 1, **STOPPED), []),
    ("from one to three", wanted(3), members(1), []),
]


@pytest.mark.parametrize(("case", "given", "current", "steps"), LIVING, ids=[row[0] for row in LIVING])
def test_which_members_of_a_living_cluster_leave_in_a_run(
    case: str, given: Description, current: Current, steps: list[str]
) -> None:
    given = dataclasses.replace(given, lives=True)
    made = cluster.make(given, current, FACTS)
    assert sorted(step.key for step in ending(current, made)) == steps
    leaving = [departure.shown() for departure in departures(given, made, current)]
    names = [step.rpartition("/")[2] for step in steps]
    assert [entry["name"] for entry in leaving if entry["role"] == tags.CONTROL_PLANE] == names


def test_workers_may_go_while_the_control_plane_stays() -> None:
    given = description(pools=(pool("control_plane", 1), pool("workers", 0)), lives=True)
    made = cluster.make(given, finished(), FACTS)
    assert made.of(Terminate) and ending(finished(), made) == []


def test_before_a_cluster_lives_its_control_plane_has_nothing_to_leave() -> None:
    made = cluster.make(wanted(1), members(3), FACTS)
    assert ended(made) and departures(wanted(1), made, members(3)) == []


@pytest.mark.parametrize("lives", [False, True])
def test_the_balancer_of_a_living_cluster_stays(lives: bool) -> None:
    current = members(1)
    current.load_balancers = [
        LoadBalancer("lb-1", "demo-api", "dns", "internal", "active", frozenset(), frozenset(), OURS)
    ]
    made = cluster.make(wanted(1, lives=lives), current, FACTS)
    assert made.balanced == lives
    assert ("delete load-balancer" in [step.key for step in made.changes]) != lives


def test_workers_are_replaced_all_at_once() -> None:
    pools = (pool("control_plane", 1), pool("workers", 2, instance_type="m5.xlarge"))
    made = cluster.make(description(pools=pools, allow_replace=True), finished(), FACTS)
    assert len(made.replacements()) == 2 and made.warnings == []


def test_a_replacement_that_is_not_allowed_names_them_all() -> None:
    made = cluster.make(wanted(3, "m5.xlarge", allow_replace=False), members(3), FACTS)
    assert len(made.replacements()) == 3


def test_a_member_that_is_left_keeps_its_route_and_stays_a_node() -> None:
    made = cluster.make(wanted(1), members(3), FACTS)
    left = next(node for node in made.nodes if node.name == "demo-control-plane-1")
    assert [node.name for node in made.nodes][:2] == ["demo-control-plane-0", left.name]
    destinations = [step.resource.rpartition("public/")[2] for step in made.of(DeleteRoute)]
    assert destinations == [f"10.200.{9 + 2}.0/24"] and left.pod_cidr == f"10.200.{9 + 1}.0/24"


def test_runs_come_to_what_is_described() -> None:
    """Each run ends one member until there are none to end."""
    current, order = members(3), []
    for _run in range(4):
        made = cluster.make(wanted(1), current, FACTS)
        order += ended(made)
        gone = {step.id for step in made.of(Terminate)}
        current.instances = [node for node in current.instances if node.id not in gone]
    assert order == [DELETE + "2", DELETE + "1"] and made.warnings == []


@pytest.mark.parametrize("private", [False, True])
def test_a_member_that_is_left_keeps_its_subnet(private: bool) -> None:
    """From three zones to one: every member must move, and each zone keeps its network until its member has."""
    kinds = ("private", "public") if private else ("public",)
    current = members(3)
    places = [(kind, zone) for kind in kinds for zone in ZONES]
    current.subnets = [
        Subnet(f"subnet-{kind}-{zone}", "vpc-1", f"10.240.{number}.0/24", zone, not private, {**OURS, tags.ROLE: kind})
        for number, (kind, zone) in enumerate(places)
    ]
    if private:
        current.nat_gateways = [
            NatGateway(f"nat-{zone}", "available", "eip-1", {**OURS, tags.ROLE: zone}) for zone in ZONES
        ]
        current.route_tables = [
            RouteTable(
                f"rtb-{zone}",
                "vpc-1",
                {**OURS, tags.ROLE: f"private-{zone}"},
                False,
                {f"subnet-private-{zone}": "rtbassoc-1"},
                {"0.0.0.0/0": Route("0.0.0.0/0", f"nat-{zone}")},
            )
            for zone in ZONES
        ]
    current.instances = [
        dataclasses.replace(node, zone=zone, subnet_id=f"subnet-{kinds[0]}-{zone}")
        for node, zone in zip(
            [node for node in current.instances if "control-plane" in node.name], (ZONES[2], ZONES[0], ZONES[1])
        )
    ]
    facts = dataclasses.replace(FACTS, zones=ZONES[:1])
    made = cluster.make(wanted(3, private_nodes=private, nat_gateways="per_zone"), current, facts)
    # Member 1 is in the zone that stays; 0 moves in this run and 2 in the next.
    assert ended(made) == [REPLACE + "0"]
    removed = {vars(step)["id"] for step in made.changes if step.action == plan.DELETE and "id" in vars(step)}
    assert not {id for id in removed if "us-east-1b" in id}
    assert {f"subnet-{kind}-us-east-1c" for kind in kinds} <= removed
    assert ("nat-us-east-1c" in removed) == private
    assert not [step.key for step in made.changes if step.action == plan.CREATE and "/us-east-1b" in step.resource]
    for step in made.changes:
        assert "10.200.11.0/24" not in step.resource or step.action != plan.DELETE
