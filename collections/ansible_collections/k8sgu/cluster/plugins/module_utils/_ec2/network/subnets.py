# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Subnets: public and private ones in each zone, or those that were brought (`subnet_ids`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Iterable, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import plan, ranges, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description, DescriptionError
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.grants import CHANGE, MAKE, READ, Case, Grant
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.reader import Reader

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.context import Context
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.needs import Found, Place

PUBLIC, PRIVATE = "public", "private"
TYPES = {"subnet": "subnet"}


@dataclass(frozen=True)
class Subnet:
    id: str
    vpc_id: str
    cidr: str
    zone: str
    maps_public_ip: bool
    tags: Mapping[str, str]


def read(reader: Reader, description: Description, current: Current) -> None:
    found = (
        reader.in_vpc("describe_subnets", "Subnets", description.vpc_id)
        if description.vpc_id
        else reader.owned("describe_subnets", "Subnets")
    )
    for item in found:
        subnet = Subnet(
            item["SubnetId"],
            item["VpcId"],
            item["CidrBlock"],
            item["AvailabilityZone"],
            bool(item.get("MapPublicIpOnLaunch")),
            tags.as_mapping(item.get("Tags")),
        )
        (current.subnets if reader.mine(subnet.tags) else current.foreign_subnets).append(subnet)


def check(description: Description, current: Current) -> None:
    """Subnets that were brought: there, in the VPC, of different zones, with room. Raises DescriptionError."""
    found = {subnet.id: subnet for subnet in (*current.subnets, *current.foreign_subnets)}
    zones: dict[str, str] = {}
    for id in description.subnet_ids:
        if id not in found:
            raise DescriptionError(
                f"subnet_ids: there is no subnet {id} in {description.vpc_id}; check the id and vpc_id"
            )
        other = zones.setdefault(found[id].zone, id)
        if other != id:
            raise DescriptionError(f"subnet_ids: {other} and {id} are both in {found[id].zone}; give one for each zone")
        net = ranges.network(found[id].cidr)
        per_zone = -(-description.node_count // len(description.subnet_ids))
        if net.num_addresses - ranges.RESERVED_IN_SUBNET < per_zone + 1:
            raise DescriptionError(
                f"subnet_ids: {id} ({net}) has no room for {per_zone} nodes; give a larger one or more of them"
            )
        if net.overlaps(ranges.network(description.pod_cidr)):
            raise DescriptionError(f"pod_cidr: {description.pod_cidr} overlaps {net} of {id}; choose another")


def places_wanted(draft: plan.Draft) -> list[tuple[str, str]]:
    """The subnets to have, as kind and zone, those of the nodes first."""
    description = draft.description
    if draft.removing:
        return []
    zones = () if description.subnet_ids else draft.facts.zones
    places = [(PRIVATE if description.private_nodes else PUBLIC, zone) for zone in zones]
    outward = description.nat_gateways != "none" or description.faces_internet or description.has_bastion
    if description.private_nodes and outward:
        places += [(PUBLIC, zone) for zone in zones]
    held = places_held(draft)
    if description.private_nodes and description.nat_gateways == "per_zone":
        held += [(PUBLIC, zone) for kind, zone in held if kind == PRIVATE]
    return list(dict.fromkeys([*places, *held]))


def places_held(draft: plan.Draft) -> list[tuple[str, str]]:
    """Subnets of ours, as kind and zone, in which there is a node that this run leaves as it is."""
    held = {instance.subnet_id for instance in draft.held.values()}
    found = [(subnet.tags.get(tags.ROLE, ""), subnet.zone) for subnet in draft.current.subnets if subnet.id in held]
    return [(kind, zone) for kind, zone in found if kind in (PUBLIC, PRIVATE)]


def of_nodes(draft: plan.Draft) -> list[str]:
    """References of the subnets for nodes, in the order in which nodes are dealt out to them."""
    if draft.description.subnet_ids:
        return [f"subnet/{id}" for id in draft.description.subnet_ids]
    kind = PRIVATE if draft.description.private_nodes else PUBLIC
    return [f"subnet/{kind}/{zone}" for zone in draft.facts.zones]


def wanted(draft: plan.Draft) -> None:
    description, current = draft.description, draft.current
    there: dict[tuple[str, str], Subnet] = {}
    for subnet in sorted(current.subnets, key=lambda subnet: subnet.id):
        if current.vpc and subnet.vpc_id == current.vpc.id:
            there.setdefault((subnet.tags.get(tags.ROLE, ""), subnet.zone), subnet)
    within = ranges.network(current.vpc.cidr if current.vpc else description.vpc_cidr)
    taken = [subnet.cidr for subnet in (*current.subnets, *current.foreign_subnets)]
    free = ranges.free(within, description.subnet_prefix, taken)
    for kind, zone in places_wanted(draft):
        reference = f"subnet/{kind}/{zone}"
        maps = kind == PUBLIC and not description.private_nodes
        marks = draft.tags(f"{draft.cluster}-{kind}-{zone}", role=kind)
        mine = there.get((kind, zone))
        if mine:
            draft.know(reference, mine.id)
            draft.keep_tags(reference, mine.id, mine.tags, marks)
        else:
            cidr = next(free, "")
            if not cidr:
                raise DescriptionError(
                    f"subnet_prefix: no free /{description.subnet_prefix} is left in {within} for a subnet in {zone}; "
                    "give a longer prefix or a wider VPC"
                )
            draft.add(CreateSubnet(reference, f"{plan.MISSING}: {cidr} in {zone}", cidr, zone, marks), ["create vpc"])
        if (mine.maps_public_ip if mine else False) != maps:
            reason = f"its instances should have {'' if maps else 'no '}public addresses"
            draft.add(MapPublicIp(reference, reason, maps), [f"create {reference}"])
    for id in description.subnet_ids:
        draft.know(f"subnet/{id}", id)


def surplus(draft: plan.Draft, users: Iterable[str]) -> list[str]:
    """Returns the keys of the removals."""
    kept = draft.kept("subnet")
    return [
        draft.add(
            DeleteSubnet(f"subnet/{subnet.id}", f"{plan.SURPLUS}: {subnet.cidr} in {subnet.zone}", subnet.id), users
        )
        for subnet in draft.current.subnets
        if subnet.id not in kept
    ]


@dataclass
class CreateSubnet(plan.Asked):
    """`resource` is the reference of the subnet, too."""

    cidr: str
    zone: str
    tags: dict[str, str]
    action = plan.CREATE

    def apply(self, context: Context) -> None:
        answer = context.when_known("the VPC", lambda: self.send(context))
        context.know(self.resource, answer["Subnet"]["SubnetId"])

    def needs(self, place: Place) -> Iterable[Found]:
        return place.creates("CreateSubnet", "subnet", "vpc")

    def request(self, ids: plan.Ids) -> plan.Request:
        return "create_subnet", {
            "VpcId": ids.id("vpc"),
            "CidrBlock": self.cidr,
            "AvailabilityZone": self.zone,
            "TagSpecifications": tags.at_creation("subnet", self.tags),
        }


@dataclass
class MapPublicIp(plan.Step):
    enabled: bool
    action = plan.UPDATE

    def apply(self, context: Context) -> None:
        context.when_known(
            self.resource,
            lambda: context.ec2.modify_subnet_attribute(
                SubnetId=context.id(self.resource), MapPublicIpOnLaunch={"Value": self.enabled}
            ),
        )

    def needs(self, place: Place) -> Iterable[Found]:
        return place.changes("ModifySubnetAttribute", self.resource)


@dataclass
class DeleteSubnet(plan.Step):
    id: str
    action = plan.DELETE

    def apply(self, context: Context) -> None:
        context.remove(f"{self.id} to be free for deletion", lambda: context.ec2.delete_subnet(SubnetId=self.id))

    def needs(self, place: Place) -> Iterable[Found]:
        return place.changes("DeleteSubnet", self.id)


def _own(case: Case) -> bool:
    return case.own_subnets


def _mapped(case: Case) -> bool:
    return case.own_subnets and (case.whole or not case.description.private_nodes)


PERMISSIONS = (
    Grant(READ, ("ec2:DescribeSubnets",)),
    Grant(MAKE, ("ec2:CreateSubnet",), _own, tags=True),
    Grant(CHANGE, ("ec2:DeleteSubnet",), _own),
    Grant(CHANGE, ("ec2:ModifySubnetAttribute",), _mapped),
)
