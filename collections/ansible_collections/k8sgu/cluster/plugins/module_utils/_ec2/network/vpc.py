# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The VPC: one of the cluster's own, or one that was brought (`vpc_id`)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Iterable, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import plan, quotas, ranges, session, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import (
    Description,
    DescriptionError,
    check_subnet_room,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.grants import CHANGE, MAKE, READ, Case, Grant
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.reader import Reader

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.context import Context
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.needs import Found, Place

QUOTA = ("vpc", "L-F678F1CE")
TYPES = {"vpc": "vpc"}


@dataclass(frozen=True)
class Vpc:
    id: str
    cidr: str
    tags: Mapping[str, str]
    dns_hostnames: bool = True
    further_cidrs: tuple[str, ...] = ()  # ranges that were added to it


def read(reader: Reader, description: Description, current: Current) -> None:
    current.vpcs = [_vpc(item) for item in reader.owned("describe_vpcs", "Vpcs")]
    if description.vpc_id:
        given = reader.maybe("ec2", "describe_vpcs", "Vpcs", ["InvalidVpcID.NotFound"], VpcIds=[description.vpc_id])
        current.given_vpc = _vpc(given[0]) if given else None
    else:
        current.vpcs = [dataclasses.replace(vpc, dns_hostnames=_dns_hostnames(reader, vpc.id)) for vpc in current.vpcs]


def _dns_hostnames(reader: Reader, vpc_id: str) -> bool:
    try:
        answer = reader.client("ec2").describe_vpc_attribute(VpcId=vpc_id, Attribute="enableDnsHostnames")
    except Exception as error:
        raise session.AwsError(session.explain(error, "read the account (describe_vpc_attribute)")) from error
    return bool(answer["EnableDnsHostnames"]["Value"])


def _vpc(item: Mapping[str, Any]) -> Vpc:
    further = [
        entry["CidrBlock"]
        for entry in item.get("CidrBlockAssociationSet", ())
        if entry["CidrBlock"] != item["CidrBlock"]
        and entry.get("CidrBlockState", {}).get("State", "associated") in ("associated", "associating")
    ]
    return Vpc(item["VpcId"], item["CidrBlock"], tags.as_mapping(item.get("Tags")), further_cidrs=tuple(further))


def check(description: Description, current: Current) -> None:
    """The cluster is in one VPC, and that is the one meant. Raises DescriptionError."""
    if description.vpc_id and not current.given_vpc:
        raise DescriptionError(
            f"vpc_id: there is no VPC {description.vpc_id} in {description.region}; check id, region and account"
        )
    twins = current.empty_twins()
    if len(current.vpcs) - len(twins) > 1:
        found = ", ".join(vpc.id for vpc in current.vpcs)
        raise DescriptionError(
            f"name: the VPCs {found} all carry the tag of cluster {description.name}; remove those that are not the "
            "cluster's, or take the tag off them"
        )
    here = current.vpc.id if current.vpc else ""
    places = {vpc.id: f"VPC {vpc.id}" for vpc in current.vpcs if description.vpc_id or vpc not in twins}
    places.update({group.vpc_id: f"security group {group.id}" for group in current.groups})
    places.update({item.vpc_id: f"instance {item.id}" for item in current.instances if item.alive and item.vpc_id})
    for place, what in sorted(places.items()):
        if place != here:
            raise DescriptionError(
                f"name: there is a cluster {description.name} in another VPC ({place}: {what}); choose another name, "
                f"or give vpc_id: {place}, or remove that cluster first"
            )
    if current.vpc:
        _check_ranges(description, current.vpc)
    if current.given_vpc and not description.subnet_ids:
        check_subnet_room(description, ranges.network(current.given_vpc.cidr))


def _check_ranges(description: Description, vpc: Vpc) -> None:
    there = (vpc.cidr, *vpc.further_cidrs)
    if description.vpc_id and description.vpc_cidr not in (Description.vpc_cidr, *there):
        raise DescriptionError(
            f"vpc_cidr: {vpc.id} has {' and '.join(there)}, and not {description.vpc_cidr}; leave it out, the ranges "
            "of a VPC that was brought are read"
        )
    for net in map(ranges.network, there):
        for option in ("pod_cidr", "service_cidr"):
            other = ranges.network(getattr(description, option))
            if net.overlaps(other):
                raise DescriptionError(f"{option}: {other} overlaps the range {net} of {vpc.id}; choose another")


def check_quota(reader: Reader, description: Description, changes: plan.Plan) -> None:
    if not changes.of(CreateVpc):
        return
    allowed = quotas.quota(reader, QUOTA)
    there = len(reader.pages("ec2", "describe_vpcs", "Vpcs")) if allowed is not None else 0
    if allowed is not None and there + 1 > allowed:
        raise DescriptionError(
            f"vpc_id: the account has {there} VPCs in {description.region} and its quota is {allowed}; remove one, "
            f"give vpc_id of an existing one, or have the quota {QUOTA[1]} raised"
        )


def wanted(draft: plan.Draft) -> None:
    vpc = draft.current.vpc
    if vpc:
        draft.know("vpc", vpc.id)
    if draft.removing or draft.description.vpc_id:
        return
    marks = draft.tags(draft.cluster)
    cidr = draft.description.vpc_cidr
    if not vpc:
        made = draft.add(CreateVpc("vpc", f"{plan.MISSING}: {cidr}", cidr, marks))
        draft.add(EnableDns("vpc", "public DNS names of instances are off by default"), [made])
        return
    if vpc.cidr != cidr:
        raise DescriptionError(
            f"vpc_cidr: the cluster's VPC {vpc.id} has {vpc.cidr}, and a VPC's range cannot be changed to {cidr}; "
            "keep it, or remove the cluster (state: absent) and create it again"
        )
    if not vpc.dns_hostnames:
        draft.add(EnableDns("vpc", "public DNS names of instances are off"))
    draft.keep_tags("vpc", vpc.id, vpc.tags, marks)


def surplus(draft: plan.Draft, users: Iterable[str]) -> None:
    if draft.removing:
        for vpc in draft.current.vpcs:
            draft.know(f"vpc/{vpc.id}", vpc.id)
            draft.add(DeleteVpc(f"vpc/{vpc.id}", plan.SURPLUS, vpc.id), users)
        return
    for vpc in draft.current.empty_twins():
        reason = f"it is empty and a second one like {draft.known('vpc')}: a call was repeated"
        draft.add(DeleteVpc(f"vpc/{vpc.id}", reason, vpc.id))


@dataclass
class CreateVpc(plan.Asked):
    cidr: str
    tags: dict[str, str]
    action = plan.CREATE

    def apply(self, context: Context) -> None:
        context.know("vpc", self.send(context)["Vpc"]["VpcId"])

    def needs(self, place: Place) -> Iterable[Found]:
        return place.creates("CreateVpc", "vpc")

    def request(self, ids: plan.Ids) -> plan.Request:
        return "create_vpc", {"CidrBlock": self.cidr, "TagSpecifications": tags.at_creation("vpc", self.tags)}


@dataclass
class EnableDns(plan.Step):
    action = plan.UPDATE

    def apply(self, context: Context) -> None:
        context.when_known(
            "the VPC",
            lambda: context.ec2.modify_vpc_attribute(VpcId=context.id("vpc"), EnableDnsHostnames={"Value": True}),
        )

    def needs(self, place: Place) -> Iterable[Found]:
        return place.changes("ModifyVpcAttribute", "vpc")


@dataclass
class DeleteVpc(plan.Step):
    id: str
    action = plan.DELETE

    def apply(self, context: Context) -> None:
        context.remove(f"{self.id} to be free for deletion", lambda: context.ec2.delete_vpc(VpcId=self.id))

    def needs(self, place: Place) -> Iterable[Found]:
        return place.changes("DeleteVpc", self.id)


def _own(case: Case) -> bool:
    return case.own_vpc


PERMISSIONS = (
    Grant(READ, ("ec2:DescribeVpcs", "ec2:DescribeVpcAttribute")),
    Grant(MAKE, ("ec2:CreateVpc",), _own, tags=True),
    Grant(CHANGE, ("ec2:ModifyVpcAttribute", "ec2:DeleteVpc"), _own),
)
