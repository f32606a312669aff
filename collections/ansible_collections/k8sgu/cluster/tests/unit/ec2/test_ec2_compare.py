# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a comparison tells: every step of the plan, and what no step touches."""

from __future__ import annotations

import dataclasses

import pytest
from test_ec2_plan import FACTS, OURS, changed, description, finished, instance, pool

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import aside, cluster, compare, plan, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.aside import OUTGOING, Around
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.groups import Rule
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.network.route_tables import Route
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.volumes import Volume


def account() -> Current:
    """The account of a finished cluster as EC2 shows it, with what groups and tables have from the beginning."""
    current = finished()
    current.groups = [dataclasses.replace(group, outgoing={OUTGOING: ""}) for group in current.groups]
    routed({"10.240.0.0/16": Route("10.240.0.0/16", "local")}, current)
    return current


def routed(routes: dict[str, Route], current: Current, others: tuple[Route, ...] = ()) -> None:
    [table] = current.route_tables
    current.route_tables[0] = dataclasses.replace(table, routes={**table.routes, **routes}, others=others)


def told(current: Current, around: Around | None = None, wanted: Description | None = None) -> list[tuple[str, str]]:
    """(kind, where) of everything that differs."""
    surplus = compare.take_out_twins(current)
    made = cluster.make(wanted or description(), current, FACTS, comparing=True)
    found = [
        *compare.of_twins(surplus),
        *compare.of_plan(made, current),
        *aside.differences(current, made, around or Around()),
    ]
    assert all(item.expected and item.seen for item in found)
    return [(item.kind, item.where) for item in found]


def test_a_finished_account_has_no_drift() -> None:
    assert told(account()) == []


def test_of_two_launched_in_one_second_the_one_with_a_role_is_the_node() -> None:
    for id in ("i-0", "i-fffffffffffffffff"):
        current = account()
        ours = {tags.NAME: "demo-worker-0", tags.cluster_tag("demo"): tags.OWNED}
        current.instances.insert(0, dataclasses.replace(current.nodes()["demo-worker-0"], id=id, tags=ours))
        assert [item.id for item in compare.take_out_twins(current)] == [id]


def test_each_rule_is_told_by_itself() -> None:
    current = account()
    group = next(item for item in current.groups if item.tags[tags.ROLE] == tags.WORKER)
    opened = {Rule("tcp", 8080, 8080, "0.0.0.0/0"): "", Rule("udp", 53, 53, "sg-control_plane"): ""}
    closed = next(iter(group.rules))
    rules = {rule: why for rule, why in group.rules.items() if rule != closed}
    outgoing = {Rule("tcp", 443, 443, "0.0.0.0/0"): ""}
    current.groups[current.groups.index(group)] = dataclasses.replace(
        group, rules={**rules, **opened}, outgoing=outgoing
    )
    assert told(current) == [
        ("rule-missing", "rules/worker"),
        *[("rule-added", group.name)] * 3,
        ("rule-missing", group.name),
    ]


def test_routes_of_others_in_our_tables() -> None:
    current = account()
    routes = {
        "172.16.0.0/16": Route("172.16.0.0/16", "pcx-1"),
        "192.168.0.0/16": Route("192.168.0.0/16", "vgw-1", propagated=True),
        "10.200.77.0/24": Route("10.200.77.0/24", current.instances[1].id),
    }
    routed(routes, current, (Route("2001:db8::/32", "eigw-1"), Route("fd00::/8", "local")))
    assert told(current) == [
        ("route-added", "route/public/10.200.77.0/24"),
        ("route-added", "rtb-1/172.16.0.0/16"),
        ("route-added", "rtb-1/2001:db8::/32"),
    ]


def test_a_default_route_of_others_is_a_choice_that_a_description_leaves_open() -> None:
    current = account()
    kept = {**current.route_tables[0].routes, "0.0.0.0/0": Route("0.0.0.0/0", "tgw-1")}
    tagged = {**current.route_tables[0].tags, tags.ROLE: "private"}
    current.route_tables[0] = dataclasses.replace(current.route_tables[0], routes=kept, tags=tagged)
    [subnet] = current.subnets
    current.subnets[0] = dataclasses.replace(
        subnet, maps_public_ip=False, tags={**subnet.tags, tags.NAME: "demo-private-us-east-1a", tags.ROLE: "private"}
    )
    wanted = description(private_nodes=True, nat_gateways="none")
    assert not [entry for entry in told(current, wanted=wanted) if entry[0].startswith("route-")]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"state": "terminated"},
            [("instance-missing", "instance/demo-worker-0"), ("route-changed", "route/public/10.200.1.0/24")],
        ),
        ({"state": "stopped"}, [("instance-changed", "instance/demo-worker-0")]),
        ({"source_dest_check": True}, [("instance-changed", "source-dest-check/demo-worker-0")]),
        ({"imds_hop_limit": 2}, [("instance-changed", "metadata-options/demo-worker-0")]),
        ({"groups": frozenset(("sg-worker", "sg-other"))}, [("instance-changed", "groups/demo-worker-0")]),
        ({"instance_type": "m5.xlarge"}, [("instance-changed", "instance/demo-worker-0")]),
    ],
)
def test_instances_that_are_not_as_described(change: dict[str, object], expected: list[tuple[str, str]]) -> None:
    current = account()
    current.instances[1] = changed(**change).instances[1]
    if change == {"state": "terminated"}:
        current.volumes.pop("vol-1")
    assert sorted(told(current)) == sorted(expected)


def test_instances_with_our_tag_that_the_description_does_not_have() -> None:
    current = account()
    current.instances += [
        instance("stray", 7, tags.WORKER, "workers", volumes={}),
        instance("demo-worker-1", 8, tags.WORKER, "workers", volumes={}, launched="9"),
        instance("", 9, tags.WORKER, "workers", volumes={}),
    ]
    assert told(current) == [
        ("instance-unknown", "instance/demo-worker-1"),
        ("instance-unknown", "instance/i-00000000000000009"),
        ("instance-unknown", "instance/stray"),
    ]


def test_members_that_a_run_would_leave_for_the_next_are_told() -> None:
    """Of two that are too many one is missing, so that a run ends neither."""
    current = account()
    for number in (1, 2):
        name = f"demo-control-plane-{number}"
        current.instances.append(instance(name, 6 + number, tags.CONTROL_PLANE, "control_plane", volumes={}))
    current.instances[0] = dataclasses.replace(current.instances[0], state="terminated")
    current.volumes.pop("vol-0")
    found = [entry for entry in told(current) if entry[0].startswith("instance-")]
    assert found == [
        ("instance-missing", "instance/demo-control-plane-0"),
        ("instance-unknown", "instance/demo-control-plane-1"),
        ("instance-unknown", "instance/demo-control-plane-2"),
    ]


def test_what_the_plan_leaves_alone() -> None:
    stranger = instance("jump", 7, "", "", tags={tags.NAME: "jump"})
    around = Around([stranger], ["eni-1"], [("snapshot", "snap-1")])
    current = account()
    current.volumes["vol-77"] = Volume("vol-77", 1, True, "gp3", "available", OURS)
    assert told(current, around) == [
        ("volume-left", "volume/vol-77"),
        ("instance-outside", f"{stranger.id} (jump)"),
        ("resource-unknown", "network-interface/eni-1"),
        ("resource-unknown", "snapshot/snap-1"),
    ]


def test_every_kind_of_step_has_a_kind_of_drift() -> None:
    """From nothing, and for a description of nothing that is there."""
    ha = description(pools=(pool("control_plane", 3), pool("workers", 2)), private_nodes=True)
    for wanted, current in ((ha, Current()), (description(0), account())):
        made = cluster.make(wanted, current, FACTS)
        kinds = {item.kind for item in compare.of_plan(made, current)}
        assert len(made.changes) > 2 and kinds
    assert {action for known in compare.KINDS.values() for action in known} <= set(compare.OTHERS)
    assert (
        set(compare.OTHERS)
        == set(compare.EXPECTED)
        == {*(plan.CREATE, plan.UPDATE, plan.DELETE, plan.REPLACE, plan.ATTACH, plan.DETACH)}
    )
