# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""NAT gateways, through which private nodes reach the internet, each with its Elastic IP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Iterable, Iterator, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import billing, names, plan, quotas, session, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.context import IN_USE
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description, DescriptionError
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.grants import CHANGE, MAKE, READ, Case, Grant
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.network import subnets
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.reader import Reader

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.context import Context
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.needs import Found, Place

ADDRESS_QUOTA = ("ec2", "L-0263D0A3")
NAT_NOT_FOUND = ("NatGatewayNotFound", "InvalidNatGatewayID.NotFound")
TYPES = {"nat-gateway": "natgateway", "nat": "natgateway", "elastic-ip": "elastic-ip", "eipalloc": "elastic-ip"}


@dataclass(frozen=True)
class NatGateway:
    id: str
    state: str
    allocation_id: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Address:
    """An Elastic IP; `association_id` is empty while nothing uses it."""

    id: str
    association_id: str
    tags: Mapping[str, str]
    public_ip: str = ""


def read(reader: Reader, current: Current) -> None:
    for item in reader.owned("describe_nat_gateways", "NatGateways"):
        addresses = [entry.get("AllocationId", "") for entry in item.get("NatGatewayAddresses", ())]
        current.nat_gateways.append(
            NatGateway(
                item["NatGatewayId"],
                item["State"],
                addresses[0] if addresses else "",
                tags.as_mapping(item.get("Tags")),
            )
        )
    for item in reader.owned("describe_addresses", "Addresses"):
        current.addresses.append(
            Address(
                item["AllocationId"],
                item.get("AssociationId") or "",
                tags.as_mapping(item.get("Tags")),
                item.get("PublicIp", ""),
            )
        )


def check_quota(reader: Reader, changes: plan.Plan) -> None:
    number = len(changes.of(AllocateAddress))
    allowed = quotas.quota(reader, ADDRESS_QUOTA) if number else None
    there = len(reader.pages("ec2", "describe_addresses", "Addresses")) if allowed is not None else 0
    if allowed is not None and there + number > allowed:
        raise DescriptionError(
            f"nat_gateways: {number} Elastic IPs are needed, {there} of {allowed} are in use; give nat_gateways: one, "
            f"release some, or have the quota {ADDRESS_QUOTA[1]} raised"
        )


def billed(description: Description, zones: int) -> Iterator[tuple[str, int]]:
    """`zones` is the number of availability zones."""
    if description.private_nodes and description.nat_gateways != "none":
        number = zones if description.nat_gateways == "per_zone" else 1
        yield "NAT gateway", number
        yield billing.ADDRESS, number


def zones(draft: plan.Draft) -> list[str]:
    """The zones that have a NAT gateway."""
    description = draft.description
    if draft.removing or not description.private_nodes or description.subnet_ids or description.nat_gateways == "none":
        return []
    if description.nat_gateways == "one":
        return [draft.facts.zones[0]]
    held = [zone for kind, zone in subnets.places_held(draft) if kind == subnets.PRIVATE]
    return list(dict.fromkeys([*draft.facts.zones, *held]))


def wanted(draft: plan.Draft) -> None:
    for zone in zones(draft):
        reference, address = f"nat-gateway/{zone}", f"elastic-ip/{zone}"
        subnet = f"subnet/{subnets.PUBLIC}/{zone}"
        marks = draft.tags(f"{draft.cluster}-nat-{zone}", role=zone)
        of_zone = [nat for nat in draft.current.nat_gateways if nat.tags.get(tags.ROLE) == zone]
        there = [nat for nat in of_zone if nat.state in ("pending", "available")]
        if there:
            draft.know(reference, there[0].id)
            if there[0].allocation_id:
                draft.know(address, there[0].allocation_id)
            draft.keep_tags(reference, there[0].id, there[0].tags, marks)
            if there[0].state == "pending":
                draft.add(WaitForNat(f"wait/{reference}", "it is still pending", reference), quiet=True)
            continue
        kept = [
            item for item in draft.current.addresses if item.tags.get(tags.ROLE) == zone and not item.association_id
        ]
        if kept:
            draft.know(address, kept[0].id)
        else:
            draft.add(AllocateAddress(address, "the NAT gateway needs it", marks))
        which = "" if draft.description.nat_gateways == "one" else f" in {zone}"
        draft.add(
            CreateNat(
                reference,
                f"private nodes{which} reach the internet through it",
                address=address,
                subnet=subnet,
                ended=sorted(nat.id for nat in of_zone),
                tags=marks,
            ),
            [f"create {address}", f"create {subnet}", "attach internet-gateway", "create vpc"],
        )


def surplus(draft: plan.Draft, users: list[str]) -> list[str]:
    """Returns the keys of the removals."""
    kept_ids = {draft.known(f"nat-gateway/{zone}") for zone in zones(draft)}
    kept_addresses = {draft.known(f"elastic-ip/{zone}") for zone in zones(draft)}
    gateways = [
        draft.add(DeleteNat(f"nat-gateway/{nat.id}", plan.SURPLUS, nat.id), users, quiet=nat.state == "deleting")
        for nat in draft.current.nat_gateways
        if nat.id not in kept_ids and nat.state not in ("deleted", "failed")
    ]
    addresses = [
        draft.add(ReleaseAddress(f"elastic-ip/{address.id}", plan.SURPLUS, address.id), [*users, *gateways])
        for address in draft.current.addresses
        if address.id not in kept_addresses
    ]
    return gateways + addresses


@dataclass
class AllocateAddress(plan.Asked):
    """`resource` is the reference of the address, too."""

    tags: dict[str, str]
    action = plan.CREATE

    def apply(self, context: Context) -> None:
        made = self.send(context)
        context.know(self.resource, made["AllocationId"])
        context.addresses[self.resource] = made["PublicIp"]

    def needs(self, place: Place) -> Iterable[Found]:
        return place.creates("AllocateAddress", "elastic-ip")

    def request(self, ids: plan.Ids) -> plan.Request:
        tagging = tags.at_creation("elastic-ip", self.tags)
        return "allocate_address", {"Domain": "vpc", "TagSpecifications": tagging}


@dataclass
class ReleaseAddress(plan.Asked):
    id: str
    action = plan.DELETE

    def apply(self, context: Context) -> None:
        context.remove(
            f"{self.id} to be free for release",
            lambda: self.send(context),
            busy=[*IN_USE, "InvalidIPAddress.InUse"],
        )

    def needs(self, place: Place) -> Iterable[Found]:
        return place.changes("ReleaseAddress", self.id)

    def request(self, ids: plan.Ids) -> plan.Request:
        return "release_address", {"AllocationId": self.id}


@dataclass
class CreateNat(plan.Asked):
    """`resource` is the reference of the gateway, too; `ended` are the gateways that the zone had before."""

    address: str
    subnet: str
    ended: list[str]
    tags: dict[str, str]
    action = plan.CREATE

    def apply(self, context: Context) -> None:
        token = names.client_token(
            "nat", context.cluster, context.id(self.subnet), context.id(self.address), *self.ended
        )
        what = f"{self.subnet} and {self.address}"
        answer = context.when_known(what, lambda: self.send(context, ClientToken=token))
        context.know(self.resource, answer["NatGateway"]["NatGatewayId"])
        _wait(context, self.resource)

    def needs(self, place: Place) -> Iterable[Found]:
        return place.creates("CreateNatGateway", "natgateway", self.subnet, self.address)

    def request(self, ids: plan.Ids) -> plan.Request:
        return "create_nat_gateway", {
            "SubnetId": ids.id(self.subnet),
            "AllocationId": ids.id(self.address),
            "TagSpecifications": tags.at_creation("natgateway", self.tags),
        }


@dataclass
class WaitForNat(plan.Step):
    reference: str
    action = plan.UPDATE

    def apply(self, context: Context) -> None:
        _wait(context, self.reference)

    def needs(self, place: Place) -> Iterable[Found]:
        return ()


@dataclass
class DeleteNat(plan.Step):
    id: str
    action = plan.DELETE

    def apply(self, context: Context) -> None:
        context.gone(lambda: context.ec2.delete_nat_gateway(NatGatewayId=self.id), NAT_NOT_FOUND)
        filters = [{"Name": "nat-gateway-id", "Values": [self.id]}]

        def probe() -> bool | None:
            found = context.ec2.describe_nat_gateways(Filters=filters)["NatGateways"]
            return True if not found or found[0]["State"] in ("deleted", "failed") else None

        context.until(f"NAT gateway {self.id} to be deleted", probe)

    def needs(self, place: Place) -> Iterable[Found]:
        return place.changes("DeleteNatGateway", self.id)


def _wait(context: Context, reference: str) -> None:
    id = context.id(reference)

    # By filter: one that is not known yet is then missing from the answer and not an error.
    filters = [{"Name": "nat-gateway-id", "Values": [id]}]

    def probe() -> bool | None:
        found = context.ec2.describe_nat_gateways(Filters=filters)["NatGateways"]
        if found and found[0]["State"] == "failed":
            raise session.AwsError(f"NAT gateway {id} failed: {found[0].get('FailureMessage', 'no reason given')}")
        return True if found and found[0]["State"] == "available" else None

    context.until(f"NAT gateway {id} to be available", probe)


def used(case: Case) -> bool:
    wanted = case.description.private_nodes and case.description.nat_gateways != "none"
    return case.whole or wanted or bool(case.current.nat_gateways or case.current.addresses)


PERMISSIONS = (
    Grant(READ, ("ec2:DescribeNatGateways", "ec2:DescribeAddresses")),
    Grant(MAKE, ("ec2:AllocateAddress", "ec2:CreateNatGateway"), used, tags=True),
    Grant(CHANGE, ("ec2:DeleteNatGateway", "ec2:ReleaseAddress"), used),
)
