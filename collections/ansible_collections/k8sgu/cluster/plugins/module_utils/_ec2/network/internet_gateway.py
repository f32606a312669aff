# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The internet gateway, of which a VPC has one at most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Iterable, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import plan, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.context import NOT_FOUND
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.grants import CHANGE, MAKE, READ, Case, Grant
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.network import nat, subnets
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.reader import Reader

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.context import Context
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.needs import Found, Place

TYPES = {"gateway": "internet-gateway", "igw": "internet-gateway"}


@dataclass(frozen=True)
class Gateway:
    """`vpc_id` is empty while it is not attached."""

    id: str
    vpc_id: str
    tags: Mapping[str, str]


def read(reader: Reader, description: Description, current: Current) -> None:
    items = list(reader.owned("describe_internet_gateways", "InternetGateways"))
    if description.vpc_id:
        items += reader.in_vpc(
            "describe_internet_gateways", "InternetGateways", description.vpc_id, "attachment.vpc-id"
        )
    for item in {item["InternetGatewayId"]: item for item in items}.values():
        attached = [
            entry["VpcId"]
            for entry in item.get("Attachments", ())
            if entry.get("State") not in ("detaching", "detached")
        ]
        gateway = Gateway(item["InternetGatewayId"], attached[0] if attached else "", tags.as_mapping(item.get("Tags")))
        (current.gateways if reader.mine(gateway.tags) else current.foreign_gateways).append(gateway)


def wanted(draft: plan.Draft) -> None:
    if not any(kind == subnets.PUBLIC for kind, _zone in subnets.places_wanted(draft)):
        return
    vpc = draft.current.vpc
    # The gateway is read only where no route proves that it is there and attached.
    proven = [
        route.target
        for table in draft.current.route_tables
        for route in table.routes.values()
        if route.active and route.target.startswith("igw-")
    ]
    if proven:
        draft.know("gateway", proven[0])
        return
    for gateway in draft.current.foreign_gateways:
        if vpc and gateway.vpc_id == vpc.id:
            # The one that is there serves.
            draft.know("gateway", gateway.id)
            return
    mine = sorted(draft.current.gateways, key=lambda gateway: (gateway.vpc_id == "", gateway.id))
    if mine:
        draft.know("gateway", mine[0].id)
        draft.keep_tags("internet-gateway", mine[0].id, mine[0].tags, draft.tags(draft.cluster))
        if vpc and mine[0].vpc_id == vpc.id:
            return
    else:
        draft.add(CreateGateway("internet-gateway", plan.MISSING, draft.tags(draft.cluster)))
    draft.add(
        AttachGateway("internet-gateway", "it is not attached to the VPC"),
        ["create vpc", "create internet-gateway"],
    )


def surplus(draft: plan.Draft, users: list[str]) -> list[str]:
    """Returns the keys of the removals."""
    kept = draft.known("gateway")
    keys = []
    for gateway in draft.current.gateways:
        if gateway.id == kept:
            continue
        resource = f"internet-gateway/{gateway.id}"
        detached = []
        if gateway.vpc_id:
            detached.append(draft.add(DetachGateway(resource, plan.SURPLUS, gateway.id, gateway.vpc_id), users))
        deleted = draft.add(DeleteGateway(resource, plan.SURPLUS, gateway.id), [*users, *detached])
        keys += [*detached, deleted]
    return keys


@dataclass
class CreateGateway(plan.Asked):
    tags: dict[str, str]
    action = plan.CREATE

    def apply(self, context: Context) -> None:
        context.know("gateway", self.send(context)["InternetGateway"]["InternetGatewayId"])

    def needs(self, place: Place) -> Iterable[Found]:
        return place.creates("CreateInternetGateway", "internet-gateway")

    def request(self, ids: plan.Ids) -> plan.Request:
        return "create_internet_gateway", {"TagSpecifications": tags.at_creation("internet-gateway", self.tags)}


@dataclass
class AttachGateway(plan.Step):
    action = plan.ATTACH

    def apply(self, context: Context) -> None:
        def call() -> None:
            context.gone(
                lambda: context.ec2.attach_internet_gateway(
                    InternetGatewayId=context.id("gateway"), VpcId=context.id("vpc")
                ),
                ["Resource.AlreadyAssociated"],
            )

        context.when_known("the internet gateway", call)

    def needs(self, place: Place) -> Iterable[Found]:
        return place.changes("AttachInternetGateway", "gateway", "vpc")


@dataclass
class DetachGateway(plan.Asked):
    id: str
    vpc_id: str
    action = plan.DETACH

    def apply(self, context: Context) -> None:
        # Public addresses of things that are being removed hold it.
        context.remove(
            f"{self.id} to be free of public addresses",
            lambda: self.send(context),
            [*NOT_FOUND, "Gateway.NotAttached"],
        )

    def needs(self, place: Place) -> Iterable[Found]:
        return place.changes("DetachInternetGateway", self.id, self.vpc_id)

    def request(self, ids: plan.Ids) -> plan.Request:
        return "detach_internet_gateway", {"InternetGatewayId": self.id, "VpcId": self.vpc_id}


@dataclass
class DeleteGateway(plan.Asked):
    id: str
    action = plan.DELETE

    def apply(self, context: Context) -> None:
        context.remove(f"{self.id} to be free for deletion", lambda: self.send(context))

    def needs(self, place: Place) -> Iterable[Found]:
        return place.changes("DeleteInternetGateway", self.id)

    def request(self, ids: plan.Ids) -> plan.Request:
        return "delete_internet_gateway", {"InternetGatewayId": self.id}


def _used(case: Case) -> bool:
    wanted = case.own_subnets and (case.whole or not case.description.private_nodes or nat.used(case))
    return wanted or bool(case.current.gateways)


def _vpc_is_tagged(case: Case) -> bool:
    """A VPC that was brought has no tag of ours; whether one was, the description of a removal does not say."""
    return case.own_vpc and not case.whole


PERMISSIONS = (
    Grant(READ, ("ec2:DescribeInternetGateways",)),
    Grant(MAKE, ("ec2:CreateInternetGateway",), _used, tags=True),
    Grant(MAKE, ("ec2:AttachInternetGateway",), _used),
    Grant(CHANGE, ("ec2:DeleteInternetGateway",), _used),
    Grant(CHANGE, ("ec2:DetachInternetGateway",), lambda case: _used(case) and _vpc_is_tagged(case)),
    Grant(MAKE, ("ec2:DetachInternetGateway",), lambda case: _used(case) and not _vpc_is_tagged(case)),
)
