# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What plans need to be allowed: the policy that is documented allows all of it, and nothing less does."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest
from test_ec2_plan import FACTS, OURS, description, finished, pool

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import cluster, names, needs, plan, policy, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.backups.settings import Bucket
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.balancer.load_balancer import Listener, LoadBalancer
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.balancer.target_group import TargetGroup
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.needs import Account
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.network.internet_gateway import Gateway
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.network.route_tables import RouteTable
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.network.subnets import Subnet
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.network.vpc import Vpc
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.volumes import Volume
from ec2lab.api.policies import ALLOWED, decide

ACCOUNT = Account("aws", "123456789012")
ARN = "arn:aws:ec2:us-east-1:123456789012:"
THREE = (pool("control_plane", 3), pool("workers", 1))
ROLE_POLICY = {"Version": "2012-10-17", "Statement": []}
ZONES = ("us-east-1a", "us-east-1b")


def of(wanted: Description, current: Current, removing: bool = False) -> list[needs.Need]:
    facts = plan.Facts(()) if removing else dataclasses.replace(FACTS, zones=ZONES[: max(1, len(wanted.zones))])
    return needs.of(cluster.make(wanted, current, facts, removing), wanted, current, ACCOUNT)


def allowed(document: dict[str, Any], need: needs.Need) -> bool:
    context = {key: [value] for key, value in need.context}
    return decide([document], need.action, need.resource, context) == ALLOWED


def there() -> Current:
    """As `finished`, with ARNs as IAM has them and the gateway, which is read for a removal alone."""
    current = finished()
    path = names.iam_path("demo", "us-east-1")
    current.roles = {
        name: dataclasses.replace(role, arn=f"arn:aws:iam::123456789012:role{path}{name}", policy=ROLE_POLICY)
        for name, role in current.roles.items()
    }
    current.profiles = {
        name: dataclasses.replace(profile, arn=f"arn:aws:iam::123456789012:instance-profile{path}{name}")
        for name, profile in current.profiles.items()
    }
    current.gateways = [Gateway("igw-1", "vpc-1", OURS)]
    return current


def balanced() -> Current:
    current = there()
    elb = "arn:aws:elasticloadbalancing:us-east-1:123456789012:"
    current.load_balancers = [
        LoadBalancer(
            f"{elb}loadbalancer/net/demo-api/1",
            "demo-api",
            "",
            "internal",
            "active",
            frozenset(),
            frozenset(),
            OURS,
        )
    ]
    current.target_groups = [TargetGroup(f"{elb}targetgroup/demo-api/1", "demo-api", True, frozenset({"i-9"}), OURS)]
    current.listeners = [Listener(f"{elb}listener/net/demo-api/1/1", 443, "")]
    return current


def changed(**more: Any) -> Current:
    """An account in which much has been changed by hand."""
    current = there()
    current.instances = [
        dataclasses.replace(
            node,
            source_dest_check=True,
            imds_hop_limit=2,
            groups=frozenset({"sg-x"}),
            profile_arn="arn:aws:iam::1:instance-profile/mine",
            state="stopped",
            **more,
        )
        for node in current.instances
    ]
    current.volumes = {id: dataclasses.replace(volume, size=10) for id, volume in current.volumes.items()}
    current.volumes["vol-9"] = Volume("vol-9", 10, True, "gp3", "available", OURS)
    current.vpcs = [dataclasses.replace(vpc, dns_hostnames=False) for vpc in current.vpcs]
    return current


def brought() -> Current:
    """A VPC and a subnet of somebody else's."""
    theirs = {"owner": "network"}
    return Current(
        given_vpc=Vpc("vpc-9", "10.50.0.0/16", theirs),
        foreign_subnets=[Subnet("subnet-9", "vpc-9", "10.50.0.0/24", "us-east-1a", True, theirs)],
        foreign_route_tables=[RouteTable("rtb-9", "vpc-9", theirs, True, {}, {})],
    )


def with_bucket(owner: str = "") -> Current:
    """A bucket whose settings were all taken away; with a user's tag, by `owner`, it was brought."""
    marks = {"owner": owner} if owner else {tags.cluster_tag("demo"): tags.OWNED}
    settings: dict[str, Any] = {"versioning": "Enabled"} if owner else {}
    return Current(account="123456789012", bucket=Bucket("backups", "us-east-1", marks, settings))


CASES: dict[str, tuple[Description, Current, bool]] = {
    "from nothing": (description(policies={tags.WORKER: ROLE_POLICY}), Current(), False),
    "balanced": (description(pools=THREE, zones=ZONES), Current(), False),
    "private": (description(private_nodes=True, nat_gateways="per_zone", zones=ZONES), Current(), False),
    "no profiles": (description(instance_profiles=False), Current(), False),
    "brought": (description(vpc_id="vpc-9", subnet_ids=("subnet-9",)), brought(), False),
    "a VPC that was brought": (description(vpc_id="vpc-9"), brought(), False),
    "by hand": (description(), changed(), False),
    "profiles off": (description(instance_profiles=False), there(), False),
    "a user's tag": (description(tags={"team": "blue"}), there(), False),
    "another type": (
        description(
            pools=(pool("control_plane", 1), pool("workers", 2, instance_type="m5.xlarge")), allow_replace=True
        ),
        there(),
        False,
    ),
    "a worker less": (description(1), there(), False),
    "one node instead of three": (description(), balanced(), False),
    "the balancer by hand": (description(pools=THREE, zones=ZONES), balanced(), False),
    "a bucket": (description(backup_bucket="backups"), Current(account="123456789012"), False),
    "a bucket by hand": (description(backup_bucket="backups"), with_bucket(), False),
    "a bucket of somebody else's": (description(backup_bucket="backups", backup_days=0), with_bucket("theirs"), False),
    "removal of a balanced one": (Description("demo", "us-east-1"), balanced(), True),
    "removal": (Description("demo", "us-east-1"), there(), True),
}


@pytest.mark.parametrize("case", CASES)
def test_the_documented_policy_suffices_and_each_action_is_needed(case: str) -> None:
    wanted, current, removing = CASES[case]
    document = policy.document(wanted, current)
    found = of(wanted, current, removing)
    assert found and [need for need in found if not allowed(document, need)] == []
    for need in found:
        less = {
            **document,
            "Statement": [
                {**statement, "Action": [action for action in statement["Action"] if action != need.action]}
                for statement in document["Statement"]
            ],
        }
        assert not allowed(less, need), need


def kinds_of_steps(base: type[plan.Step] = plan.Step) -> list[type[plan.Step]]:
    """Every kind of step that a plan can have."""
    found = [kind for kind in base.__subclasses__() if kind.__module__.startswith(plan.__name__.rpartition(".")[0])]
    return [leaf for kind in found for leaf in kinds_of_steps(kind)] or [base]


def test_every_step_can_be_carried_out_and_has_its_needs() -> None:
    kinds = kinds_of_steps()
    # All but the waits need something.
    waiting = [kind for kind in kinds if kind.__name__.startswith("Wait")]
    assert len(kinds) > 50 and len(waiting) == 4
    for kind in kinds:
        assert not inspect.isabstract(kind) and kind.action, kind


def test_every_change_that_is_documented_is_a_need_of_some_plan() -> None:
    """But for reads, which the plan itself makes, keys' policies, and the role that AWS makes once."""
    # What was changed by hand, or a description that changes; the cases do not have each of them.
    repairs = {
        "ec2:AssociateIamInstanceProfile",
        "ec2:DeleteRoute",
        "ec2:ReplaceRoute",
        "ec2:ReplaceRouteTableAssociation",
    }
    asked = {need.action for case in CASES.values() for need in of(*case)}
    whole = policy.document(description(pools=THREE, private_nodes=True, backup_bucket="backups"))
    documented = {
        action
        for statement in whole["Statement"]
        for action in statement["Action"]
        if not action.partition(":")[2].startswith(("Describe", "List", "GetServiceQuota"))
    }
    # Backups themselves are put there and got back by other playbooks.
    documented -= {f"s3:{word}" for word in ("AbortMultipartUpload", "GetObject", "GetObjectVersion", "PutObject")}
    by_hand = {*repairs, "iam:DeleteRolePolicy", "iam:CreateServiceLinkedRole"}
    of_removal = {action for action in documented if action.partition(":")[2].startswith(("Delete", "Release"))}
    assert documented - asked - by_hand - of_removal == set()


def test_resources_and_context_are_those_of_the_step() -> None:
    found = of(description(tags={"team": "blue"}), Current())
    by_action = {need.action: need for need in found if need.action != "ec2:CreateTags"}
    assert by_action["ec2:CreateVpc"].resource == ARN + "vpc/*"
    assert dict(by_action["ec2:CreateVpc"].context) == {
        "aws:RequestedRegion": "us-east-1",
        "aws:RequestTag/k8sgu.io/cluster/demo": "owned",
        "aws:RequestTag/team": "blue",
    }
    assert by_action["iam:PassRole"].context == (("iam:PassedToService", "ec2.amazonaws.com"),)
    assert by_action["iam:PassRole"].resource.startswith("arn:aws:iam::123456789012:role/k8sgu/us-east-1/demo/")
    created = {dict(need.context).get("ec2:CreateAction") for need in found if need.action == "ec2:CreateTags"}
    assert {"CreateVpc", "CreateSubnet", "RunInstances", "ImportKeyPair"} <= created
    launched = {need.resource for need in found if need.action == "ec2:RunInstances"}
    assert {ARN + "instance/*", ARN + "volume/*", ARN + "network-interface/*", ARN + "key-pair/k8sgu-demo"} <= launched
    assert "arn:aws:ec2:us-east-1::image/ami-00000000000000001" in launched


def test_what_was_brought_has_its_own_tags() -> None:
    found = of(*CASES["brought"])
    route = next(need for need in found if need.action == "ec2:CreateRoute")
    assert route.resource == ARN + "route-table/rtb-9"
    assert dict(route.context)["aws:ResourceTag/owner"] == "network"
    assert not any("k8sgu.io" in key for key, _value in route.context)


def test_a_thousand_nodes_are_as_many_questions_as_two() -> None:
    many = description(1000, pod_cidr="10.200.0.0/14")
    assert len(of(many, Current())) == len(of(description(2), Current()))
    current = finished(300)
    assert len(of(description(1), current)) == len(of(description(1), finished(2)))


def test_other_partitions_have_their_own_arns() -> None:
    wanted = description()
    found = needs.of(cluster.make(wanted, Current(), FACTS), wanted, Current(), Account("aws-cn", "1"))
    assert all(need.resource.startswith("arn:aws-cn:") for need in found)
