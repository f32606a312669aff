# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What nobody plans: the cluster's things that no step touches, and what others have put among them.

`state: present` leaves all of it alone, and so does a removal where it has no tag of ours. A comparison names it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Iterator

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import groups, plan, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.grants import READ, Grant
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.groups import Rule
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.network import route_tables
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes import instances
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.instances import Instance
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.reader import Reader, together

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current

# How the ids of what is told by calls of its own begin. EC2 shows tags of what is gone for a while.
READ_ITSELF = ("vpc", "subnet", "rtb", "igw", "nat", "eipalloc", "sg", "key", "i", "vol", "eni")
# What EC2 gives a new group, with IPv6 where the VPC has it:
# https://docs.aws.amazon.com/vpc/latest/userguide/default-security-group.html
OUTGOING = Rule("-1", -1, -1, route_tables.ANYWHERE)
OUTGOING_IPV6 = Rule("-1", -1, -1, "::/0")


@dataclass(frozen=True)
class Difference:
    """One thing that differs: what kind, where, and what is there instead of what should be."""

    kind: str
    where: str
    expected: str
    seen: str

    def shown(self) -> dict[str, str]:
        return {"kind": self.kind, "where": self.where, "expected": self.expected, "seen": self.seen}


@dataclass
class Around:
    """What was read beside `Current`."""

    strangers: list[Instance] = field(default_factory=list)  # in our groups or our VPC, without our tag
    interfaces: list[str] = field(default_factory=list)  # with our tag, at no instance
    others: list[tuple[str, str]] = field(default_factory=list)  # with our tag: the type, and the id


def read(reader: Reader, cluster: str, current: Current) -> Around:
    around = Around()
    together(
        [
            partial(_strangers, reader, current, around),
            partial(_interfaces, reader, around),
            partial(_others, reader, cluster, around),
        ]
    )
    return around


def _strangers(reader: Reader, current: Current, around: Around) -> None:
    found: dict[str, Instance] = {}
    for name, values in (
        ("instance.group-id", sorted(group.id for group in current.groups)),
        ("vpc-id", sorted(vpc.id for vpc in current.vpcs)),
    ):
        if values:
            filters = [{"Name": name, "Values": values}]
            for entry in reader.pages("ec2", "describe_instances", "Reservations", Filters=filters):
                found.update({item["InstanceId"]: instances.instance(item) for item in entry["Instances"]})
    around.strangers += [item for item in found.values() if item.alive and not reader.mine(item.tags)]


def _interfaces(reader: Reader, around: Around) -> None:
    for item in reader.owned("describe_network_interfaces", "NetworkInterfaces"):
        if item.get("Status") == "available":
            around.interfaces.append(item["NetworkInterfaceId"])


def _others(reader: Reader, cluster: str, around: Around) -> None:
    filters = [{"Name": "key", "Values": [tags.cluster_tag(cluster)]}, {"Name": "value", "Values": [tags.OWNED]}]
    for item in reader.pages("ec2", "describe_tags", "Tags", Filters=filters):
        if item["ResourceId"].rpartition("-")[0] not in READ_ITSELF:
            around.others.append((item["ResourceType"], item["ResourceId"]))


def differences(current: Current, made: plan.Plan, around: Around) -> Iterator[Difference]:
    """A pure function; `made` is the plan, whose steps are not told again."""
    yield from _routes(current, made)
    for group in current.groups:
        yield from _outgoing(group)
    for item in around.strangers:
        name = f"{item.id} ({item.name})" if item.name else item.id
        yield Difference(
            "instance-outside", name, "no instance without the cluster's tag", f"{item.state}, in its network"
        )
    for id in around.interfaces:
        yield Difference(
            "resource-unknown", f"network-interface/{id}", "none", "it has the cluster's tag and no instance"
        )
    for kind, id in around.others:
        yield Difference("resource-unknown", f"{kind}/{id}", "none", "it has the cluster's tag")


def _routes(current: Current, made: plan.Plan) -> Iterator[Difference]:
    """Routes in our own tables that are neither the VPC's, nor ours, nor a step of the plan."""
    planned = {(made.ids.get(step.table, step.table), step.destination) for step in made.of(route_tables.DeleteRoute)}
    pods = {node.pod_cidr for node in made.nodes}
    for table in current.route_tables:
        for route in (*table.routes.values(), *table.others):
            # A default route to something else than our gateways is a choice that a description can leave open.
            ours = route.destination == route_tables.ANYWHERE or route.destination in pods
            if ours or route.propagated or route.target == "local" or (table.id, route.destination) in planned:
                continue
            name = f"{table.id}/{route.destination}"
            yield Difference("route-added", name, "no such route", f"it leads to {route.target or 'nothing'}")


def _outgoing(group: groups.SecurityGroup) -> Iterator[Difference]:
    for rule in sorted(group.outgoing.keys() - {OUTGOING, OUTGOING_IPV6}):
        yield Difference("rule-added", group.name, "every packet may leave", f"outgoing {groups.shown(rule)}")
    if OUTGOING not in group.outgoing:
        yield Difference("rule-missing", group.name, f"outgoing {groups.shown(OUTGOING)}", "none")


PERMISSIONS = (Grant(READ, ("ec2:DescribeTags", "ec2:DescribeNetworkInterfaces")),)
