# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner: current state in, steps out, by table; and that its plans are in an order in which they can be done."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import cluster, names, plan, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.access.key_pair import KeyPair, fingerprint
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.access.profiles import Profile, Role
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import (
    Description,
    DescriptionError,
    Image,
    Pool,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.groups import Rule, SecurityGroup, rules_wanted
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.network import vpc as vpcs
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.network.route_tables import Route, RouteTable
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.network.subnets import Subnet
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.network.vpc import Vpc
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes import volumes
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.images import MachineImage
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.instances import Instance
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.launch import Launch
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.volumes import Volume

IMAGE = Image(id="ami-00000000000000001")
REGION = "us-east-1"
KEY = "ssh-ed25519 AAAA"
FACTS = plan.Facts(("us-east-1a",), {IMAGE: MachineImage(IMAGE.id, "x86_64", "/dev/xvda", "2026")})
OURS = {tags.cluster_tag("demo"): tags.OWNED}


def pool(name: str, count: int, **more: Any) -> Pool:
    role = tags.CONTROL_PLANE if name == "control_plane" else tags.WORKER
    return Pool(
        **{
            "name": name,
            "role": role,
            "count": count,
            "instance_type": "m5.large",
            "image": IMAGE,
            "root_volume_size": 20,
            "etcd_volume_size": 0,
            **more,
        }
    )


def description(workers: int = 2, **more: Any) -> Description:
    pools = (pool("control_plane", 1), pool("workers", workers))
    return Description(**{"name": "demo", "region": REGION, "public_key": KEY, "pools": pools, **more})


def instance(name: str, number: int, role: str, pool_name: str, **more: Any) -> Instance:
    id = f"i-{number:017x}"
    own = {tags.ROLE: role, tags.POOL: pool_name, tags.POD_CIDR: f"10.{200 + number // 256}.{number % 256}.0/24"}
    return dataclasses.replace(
        Instance(
            id=id,
            name=name,
            state="running",
            instance_type="m5.large",
            image_id=IMAGE.id,
            key_name="k8sgu-demo",
            subnet_id="subnet-1",
            vpc_id="vpc-1",
            zone="us-east-1a",
            private_ip=f"10.240.0.{number}",
            public_ip=f"198.51.100.{number}",
            private_dns="",
            groups=frozenset({f"sg-{role}"}),
            profile_arn=f"arn:aws:iam::1:instance-profile/k8sgu/{names.role('demo', REGION, role)}",
            source_dest_check=False,
            imds_tokens_required=True,
            imds_hop_limit=1,
            root_device="/dev/xvda",
            volumes={"/dev/xvda": f"vol-{number}"},
            launched=str(number),
            tags={**OURS, tags.NAME: name, **own},
        ),
        **more,
    )


def finished(workers: int = 2) -> Current:
    """The account when `description(workers)` has been carried out."""
    wanted = description(workers)
    nodes = [instance("demo-control-plane-0", 0, tags.CONTROL_PLANE, "control_plane")]
    nodes += [instance(f"demo-worker-{number}", number + 1, tags.WORKER, "workers") for number in range(workers)]
    groups = []
    for role in (tags.CONTROL_PLANE, tags.WORKER):
        rules = {}
        for rule in rules_wanted(wanted, role, [], False):
            peer = rule.peer.replace("security-group/", "sg-")
            rules[Rule(rule.protocol, rule.first, rule.last, peer)] = ""
        name = names.security_group("demo", role)
        groups.append(SecurityGroup(f"sg-{role}", name, "vpc-1", {**OURS, tags.NAME: name, tags.ROLE: role}, rules))
    routes = {"0.0.0.0/0": Route("0.0.0.0/0", "igw-1")}
    for node in nodes:
        routes[node.tags[tags.POD_CIDR]] = Route(node.tags[tags.POD_CIDR], node.id)
    roles = [names.role("demo", REGION, role) for role in (tags.CONTROL_PLANE, tags.WORKER)]
    return Current(
        vpcs=[Vpc("vpc-1", "10.240.0.0/16", {**OURS, tags.NAME: "demo"})],
        subnets=[
            Subnet(
                "subnet-1",
                "vpc-1",
                "10.240.0.0/24",
                "us-east-1a",
                True,
                {**OURS, tags.NAME: "demo-public-us-east-1a", tags.ROLE: "public"},
            )
        ],
        route_tables=[
            RouteTable(
                "rtb-1",
                "vpc-1",
                {**OURS, tags.NAME: "demo-public", tags.ROLE: "public"},
                False,
                {"subnet-1": "rtbassoc-1"},
                routes,
            )
        ],
        groups=groups,
        key_pairs=[
            KeyPair("key-1", "k8sgu-demo", {**OURS, tags.NAME: "k8sgu-demo", tags.FINGERPRINT: fingerprint(KEY)})
        ],
        roles={name: Role(name, "arn") for name in roles},
        profiles={name: Profile(name, "arn", (name,)) for name in roles},
        instances=nodes,
        volumes={
            f"vol-{number}": Volume(f"vol-{number}", 20, True, "gp3", "in-use", OURS) for number in range(workers + 1)
        },
    )


def keys(made: plan.Plan) -> list[str]:
    return [step.key for step in made.changes]


def changed(**of_worker: Any) -> Current:
    current = finished()
    current.instances[1] = dataclasses.replace(current.instances[1], **of_worker)
    return current


def test_nothing_to_do() -> None:
    assert cluster.make(description(), finished(), FACTS).steps == []


def test_everything_from_nothing_is_in_order_and_can_be_done() -> None:
    for wanted in (
        description(),
        description(private_nodes=True, nat_gateways="per_zone"),
        description(pools=(pool("control_plane", 3), pool("workers", 1)), load_balancer_scheme="internet-facing"),
    ):
        made = cluster.make(wanted, Current(), FACTS)
        seen: set[str] = set()
        for step in made.steps:
            assert set(step.after) <= seen, step
            seen.add(step.key)


def test_a_plan_is_a_function_of_its_input() -> None:
    one, two = (cluster.make(description(5), finished(), FACTS) for _time in range(2))
    assert one.steps == two.steps and keys(one) == keys(two)


TABLE: list[tuple[str, Description, Current, list[str]]] = [
    (
        "a worker more",
        description(3),
        finished(),
        ["create instance/demo-worker-2", "create route/public/10.200.3.0/24"],
    ),
    (
        "a worker less",
        description(1),
        finished(),
        ["delete route/public/10.200.2.0/24", "delete instance/demo-worker-1"],
    ),
    ("a stopped worker", description(), changed(state="stopped"), ["update instance/demo-worker-0"]),
    ("the check back on", description(), changed(source_dest_check=True), ["update source-dest-check/demo-worker-0"]),
    ("tokens optional", description(), changed(imds_tokens_required=False), ["update metadata-options/demo-worker-0"]),
    ("two hops", description(), changed(imds_hop_limit=2), ["update metadata-options/demo-worker-0"]),
    ("another group", description(), changed(groups=frozenset({"sg-x"})), ["update groups/demo-worker-0"]),
    ("no profile", description(), changed(profile_arn=""), ["update profile/demo-worker-0"]),
    (
        "another type",
        description(),
        changed(instance_type="t3.nano"),
        ["replace instance/demo-worker-0", "update route/public/10.200.1.0/24"],
    ),
    (
        "another image",
        description(),
        changed(image_id="ami-2"),
        ["replace instance/demo-worker-0", "update route/public/10.200.1.0/24"],
    ),
    (
        "another key",
        description(),
        changed(key_name="mine"),
        ["replace instance/demo-worker-0", "update route/public/10.200.1.0/24"],
    ),
    (
        "gone",
        description(),
        changed(state="terminated"),
        ["create instance/demo-worker-0", "update route/public/10.200.1.0/24"],
    ),
    (
        "going",
        description(),
        changed(state="shutting-down"),
        ["create instance/demo-worker-0", "update route/public/10.200.1.0/24"],
    ),
    (
        "vxlan",
        description(pod_network="vxlan"),
        finished(),
        [
            "update rules/control_plane",
            "delete rules/control_plane",
            "update rules/worker",
            "delete rules/worker",
            "delete route/public/10.200.0.0/24",
            "delete route/public/10.200.1.0/24",
            "delete route/public/10.200.2.0/24",
        ],
    ),
    (
        "no profiles",
        description(instance_profiles=False),
        finished(),
        [
            "update profile/demo-control-plane-0",
            "update profile/demo-worker-0",
            "update profile/demo-worker-1",
            *(
                f"{action} {kind}"
                for role in ("control-plane", "worker")
                for action, kind in (
                    ("detach", f"instance-profile/k8sgu-demo-us-east-1-{role}/k8sgu-demo-us-east-1-{role}"),
                    ("delete", f"instance-profile/k8sgu-demo-us-east-1-{role}"),
                )
            ),
            "delete iam-role/k8sgu-demo-us-east-1-control-plane",
            "delete iam-role/k8sgu-demo-us-east-1-worker",
        ],
    ),
    (
        "a user's tag",
        description(tags={"team": "blue"}),
        finished(),
        [
            "update tags/vpc",
            "update tags/subnet/public/us-east-1a",
            "update tags/route-table/public",
            "update tags/security-group/control_plane",
            "update tags/security-group/worker",
            "update tags/key-pair",
            "update tags/instance/demo-control-plane-0",
            "update tags/instance/demo-worker-0",
            "update tags/instance/demo-worker-1",
        ],
    ),
]


@pytest.mark.parametrize(("case", "wanted", "current", "steps"), TABLE, ids=[row[0] for row in TABLE])
def test_what_a_difference_leads_to(case: str, wanted: Description, current: Current, steps: list[str]) -> None:
    assert keys(cluster.make(wanted, current, FACTS)) == steps


def with_etcd_volume(size: int) -> Current:
    current = finished()
    member = current.instances[0]
    current.instances[0] = dataclasses.replace(member, volumes={**member.volumes, "/dev/sdf": "vol-etcd"})
    current.volumes["vol-etcd"] = Volume("vol-etcd", size, True, "gp3", "in-use", OURS)
    return current


def etcd_on(size: int) -> Description:
    return description(pools=(pool("control_plane", 1, etcd_volume_size=size), pool("workers", 2)))


def test_etcds_volume_grows_in_place() -> None:
    made = cluster.make(etcd_on(5), with_etcd_volume(2), FACTS)
    [step] = made.changes
    assert step.key == "update volume/demo-control-plane-0/etcd"
    assert step.reason == "2 GiB gp3 -> 5 GiB gp3; the role etcd grows the file system"
    assert volumes.living_problems(etcd_on(5), with_etcd_volume(2)) == []


@pytest.mark.parametrize(
    ("wanted", "current", "why"),
    [
        (etcd_on(1), with_etcd_volume(2), "has etcd on vol-etcd of 2 GiB, and a volume cannot shrink; put back 2"),
        (etcd_on(0), with_etcd_volume(2), "has etcd on vol-etcd, and its data cannot move; put back 2"),
        (etcd_on(2), finished(), "has etcd on its root disk, and its data cannot move; put back 0"),
    ],
)
def test_what_a_living_members_volume_cannot_become(wanted: Description, current: Current, why: str) -> None:
    assert volumes.living_problems(wanted, current) == [f"demo-control-plane-0 {why}"]


def test_removal_of_everything_uses_things_before_what_they_use() -> None:
    made = cluster.make(Description("demo", REGION), finished(), plan.Facts(()), removing=True)
    order = keys(made)
    for first, then in (
        ("delete instance/demo-worker-0", "delete subnet/subnet-1"),
        ("delete instance/demo-worker-0", "delete security-group/k8sgu-demo-worker"),
        ("delete rules/k8sgu-demo-control-plane", "delete security-group/k8sgu-demo-worker"),
        ("delete route-table/rtb-1", "delete subnet/subnet-1"),
        ("delete subnet/subnet-1", "delete vpc/vpc-1"),
    ):
        assert order.index(first) < order.index(then)
    assert cluster.make(Description("demo", REGION), Current(), plan.Facts(()), removing=True).steps == []


def test_a_launch_token_stays_until_the_node_has_ended() -> None:
    first = names.launch_token("demo", "vpc-1", "demo-worker-0", [])
    assert first == names.launch_token("demo", "vpc-1", "demo-worker-0", [])
    again = names.launch_token("demo", "vpc-1", "demo-worker-0", ["i-1"])
    others = {
        names.launch_token("demo", "vpc-1", "demo-worker-1", []),
        names.launch_token("demo", "vpc-2", "demo-worker-0", []),
        names.launch_token("other", "vpc-1", "demo-worker-0", []),
    }
    assert len({first, again, *others}) == 5 and all(len(token) <= 64 for token in others)


def test_a_node_that_has_ended_begins_a_generation() -> None:
    launch = cluster.make(description(), changed(state="terminated"), FACTS).of(Launch)[0]
    assert launch.ended == [f"i-{1:017x}"]


def test_a_second_vpc_that_a_repeated_call_left_is_removed() -> None:
    current = finished()
    used = current.vpcs[0]
    current.vpcs.append(dataclasses.replace(used, id="vpc-2"))
    made = cluster.make(description(), current, FACTS)
    assert [step.key for step in made.changes] == ["delete vpc/vpc-2"]
    assert [step.id for step in made.of(vpcs.DeleteVpc)] == ["vpc-2"]
    vpcs.check(description(), current)


@pytest.mark.parametrize("difference", [{"cidr": "10.9.0.0/16"}, {"tags": OURS}])
def test_a_second_vpc_that_differs_is_refused(difference: dict[str, Any]) -> None:
    current = finished()
    current.vpcs.append(dataclasses.replace(current.vpcs[0], id="vpc-2", **difference))
    with pytest.raises(DescriptionError, match="the VPCs vpc-1, vpc-2 all carry the tag of cluster demo"):
        vpcs.check(description(), current)


def test_a_second_vpc_with_something_in_it_is_refused() -> None:
    current = finished()
    current.vpcs.append(dataclasses.replace(current.vpcs[0], id="vpc-2"))
    current.subnets.append(dataclasses.replace(current.subnets[0], id="subnet-2", vpc_id="vpc-2"))
    with pytest.raises(DescriptionError, match="the VPCs vpc-1, vpc-2 all carry the tag of cluster demo"):
        vpcs.check(description(), current)


@pytest.mark.parametrize(
    ("further", "option"), [("10.200.128.0/20", "pod_cidr"), ("10.32.0.0/24", "service_cidr"), ("10.9.0.0/16", "")]
)
def test_ranges_that_were_added_to_a_vpc_count(further: str, option: str) -> None:
    vpc = Vpc("vpc-9", "10.50.0.0/16", {}, further_cidrs=("10.51.0.0/16", further))
    current = Current(given_vpc=vpc)
    if not option:
        vpcs.check(description(vpc_id="vpc-9"), current)
        return
    with pytest.raises(DescriptionError, match=f"{option}: .* overlaps the range {further} of vpc-9"):
        vpcs.check(description(vpc_id="vpc-9"), current)


def test_twins_are_refused() -> None:
    current = finished()
    current.instances.append(dataclasses.replace(current.instances[1], id="i-twin"))
    with pytest.raises(DescriptionError, match="i-00000000000000001 and i-twin are both named demo-worker-0"):
        cluster.make(description(), current, FACTS)


def test_a_thousand_nodes_are_planned_in_two_seconds() -> None:
    wanted = description(
        1000, pod_cidr="10.200.0.0/14", service_cidr="10.32.0.0/16", subnet_prefix=20, pod_network="routed"
    )
    current = finished(1000)
    # The groups of `finished` were made for the usual range of pods.
    pods = {"10.200.0.0/16": "10.200.0.0/14"}
    current.groups = [
        dataclasses.replace(
            group, rules={rule._replace(peer=pods.get(rule.peer, rule.peer)): "" for rule in group.rules}
        )
        for group in current.groups
    ]
    started = time.process_time()
    made = cluster.make(wanted, current, FACTS)
    assert made.steps == [] and time.process_time() - started < 2
