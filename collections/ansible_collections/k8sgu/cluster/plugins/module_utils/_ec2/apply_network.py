# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Handlers of the network's steps: VPC, gateways, subnets, route tables, routes, security groups."""

from __future__ import annotations

from typing import Any, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import names, session, state, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.execution import CONSISTENCY_S, Context, Handler
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.plan_groups import WantedRule

# What EC2 answers while something that was made a moment ago is not known everywhere yet.
NOT_YET = (
    "InvalidVpcID.NotFound",
    "InvalidVpcId.NotFound",
    "InvalidSubnetID.NotFound",
    "InvalidSubnetId.NotFound",
    "InvalidGroup.NotFound",
    "InvalidGroupId.NotFound",
    "InvalidRouteTableID.NotFound",
    "InvalidRouteTableId.NotFound",
    "InvalidInternetGatewayID.NotFound",
    "InvalidInternetGatewayId.NotFound",
    "InvalidAllocationID.NotFound",
    "InvalidInstanceID.NotFound",
    "NatGatewayNotFound",
    "InvalidNatGatewayID.NotFound",
)
# What it answers while something that is being removed still holds on to it.
IN_USE = ("DependencyViolation", "InvalidGroup.InUse", "IncorrectState", "AuthFailure.InUse")
DUPLICATE = "InvalidPermission.Duplicate"


def tagged(kind: str, resource_tags: dict[str, str]) -> list[dict[str, Any]]:
    """The TagSpecifications that put the tags on at creation."""
    return [{"ResourceType": kind, "Tags": tags.as_list(resource_tags)}]


def create_tags(context: Context, id: str, tags: dict[str, str]) -> None:
    context.ec2.create_tags(Resources=[id], Tags=[{"Key": key, "Value": value} for key, value in sorted(tags.items())])


def create_vpc(context: Context, cidr: str, tags: dict[str, str]) -> None:
    answer = context.ec2.create_vpc(CidrBlock=cidr, TagSpecifications=tagged("vpc", tags))
    context.know("vpc", answer["Vpc"]["VpcId"])


def enable_dns(context: Context) -> None:
    context.retry(
        "the VPC to be known",
        lambda: context.ec2.modify_vpc_attribute(VpcId=context.id("vpc"), EnableDnsHostnames={"Value": True}),
        NOT_YET,
        CONSISTENCY_S,
    )


def delete_vpc(context: Context, id: str) -> None:
    def call() -> None:
        context.gone(lambda: context.ec2.delete_vpc(VpcId=id), NOT_YET)

    context.retry(f"{id} to be free for deletion", call, IN_USE)


def create_gateway(context: Context, tags: dict[str, str]) -> None:
    answer = context.ec2.create_internet_gateway(TagSpecifications=tagged("internet-gateway", tags))
    context.know("gateway", answer["InternetGateway"]["InternetGatewayId"])


def attach_gateway(context: Context) -> None:
    def call() -> None:
        context.gone(
            lambda: context.ec2.attach_internet_gateway(
                InternetGatewayId=context.id("gateway"), VpcId=context.id("vpc")
            ),
            ["Resource.AlreadyAssociated"],
        )

    context.retry("the internet gateway to be known", call, NOT_YET, CONSISTENCY_S)


def detach_gateway(context: Context, id: str, vpc_id: str) -> None:
    def call() -> None:
        context.gone(
            lambda: context.ec2.detach_internet_gateway(InternetGatewayId=id, VpcId=vpc_id),
            [*NOT_YET, "Gateway.NotAttached"],
        )

    # Public addresses of things on their way out hold it.
    context.retry(f"{id} to be free of public addresses", call, IN_USE)


def delete_gateway(context: Context, id: str) -> None:
    def call() -> None:
        context.gone(lambda: context.ec2.delete_internet_gateway(InternetGatewayId=id), NOT_YET)

    context.retry(f"{id} to be free for deletion", call, IN_USE)


def create_subnet(context: Context, reference: str, cidr: str, zone: str, tags: dict[str, str]) -> None:
    answer = context.retry(
        "the VPC to be known",
        lambda: context.ec2.create_subnet(
            VpcId=context.id("vpc"), CidrBlock=cidr, AvailabilityZone=zone, TagSpecifications=tagged("subnet", tags)
        ),
        NOT_YET,
        CONSISTENCY_S,
    )
    context.know(reference, answer["Subnet"]["SubnetId"])


def map_public_ip(context: Context, reference: str, enabled: bool) -> None:
    context.retry(
        f"{reference} to be known",
        lambda: context.ec2.modify_subnet_attribute(
            SubnetId=context.id(reference), MapPublicIpOnLaunch={"Value": enabled}
        ),
        NOT_YET,
        CONSISTENCY_S,
    )


def delete_subnet(context: Context, id: str) -> None:
    def call() -> None:
        context.gone(lambda: context.ec2.delete_subnet(SubnetId=id), NOT_YET)

    context.retry(f"{id} to be free for deletion", call, IN_USE)


def allocate_address(context: Context, reference: str, tags: dict[str, str]) -> None:
    answer = context.ec2.allocate_address(Domain="vpc", TagSpecifications=tagged("elastic-ip", tags))
    context.know(reference, answer["AllocationId"])


def release_address(context: Context, id: str) -> None:
    def call() -> None:
        context.gone(lambda: context.ec2.release_address(AllocationId=id), NOT_YET)

    context.retry(f"{id} to be free for release", call, [*IN_USE, "InvalidIPAddress.InUse"])


def create_nat(
    context: Context, reference: str, address: str, subnet: str, ended: list[str], tags: dict[str, str]
) -> None:
    token = names.client_token("nat", context.cluster, context.id(subnet), context.id(address), *ended)
    answer = context.retry(
        f"{subnet} to be known",
        lambda: context.ec2.create_nat_gateway(
            SubnetId=context.id(subnet),
            AllocationId=context.id(address),
            ClientToken=token,
            TagSpecifications=tagged("natgateway", tags),
        ),
        NOT_YET,
        CONSISTENCY_S,
    )
    context.know(reference, answer["NatGateway"]["NatGatewayId"])
    wait_nat(context, reference)


def wait_nat(context: Context, reference: str) -> None:
    id = context.id(reference)

    def probe() -> bool | None:
        found = context.ec2.describe_nat_gateways(NatGatewayIds=[id])["NatGateways"]
        if found and found[0]["State"] == "failed":
            raise session.AwsError(f"NAT gateway {id} failed: {found[0].get('FailureMessage', 'no reason given')}")
        return True if found and found[0]["State"] == "available" else None

    context.until(f"NAT gateway {id} to be available", probe)


def delete_nat(context: Context, id: str) -> None:
    context.gone(lambda: context.ec2.delete_nat_gateway(NatGatewayId=id), NOT_YET)

    def probe() -> bool | None:
        found = context.ec2.describe_nat_gateways(Filters=[{"Name": "nat-gateway-id", "Values": [id]}])["NatGateways"]
        return True if not found or found[0]["State"] in ("deleted", "failed") else None

    context.until(f"NAT gateway {id} to be deleted", probe)


def create_table(context: Context, reference: str, tags: dict[str, str]) -> None:
    answer = context.retry(
        "the VPC to be known",
        lambda: context.ec2.create_route_table(VpcId=context.id("vpc"), TagSpecifications=tagged("route-table", tags)),
        NOT_YET,
        CONSISTENCY_S,
    )
    context.know(reference, answer["RouteTable"]["RouteTableId"])


def delete_table(context: Context, id: str, associations: list[str]) -> None:
    for association in associations:
        context.gone(
            lambda association=association: context.ec2.disassociate_route_table(AssociationId=association),  # type: ignore[misc]
            ["InvalidAssociationID.NotFound"],
        )

    def call() -> None:
        context.gone(lambda: context.ec2.delete_route_table(RouteTableId=id), NOT_YET)

    context.retry(f"{id} to be free for deletion", call, IN_USE)


def associate(context: Context, table: str, subnet: str, association: str) -> None:
    def call() -> None:
        if association:
            context.ec2.replace_route_table_association(AssociationId=association, RouteTableId=context.id(table))
        else:
            context.ec2.associate_route_table(RouteTableId=context.id(table), SubnetId=context.id(subnet))

    context.retry(f"{table} and {subnet} to be known", call, NOT_YET, CONSISTENCY_S)


def put_route(context: Context, table: str, destination: str, target: str, replace: bool) -> None:
    id = context.id(target)
    kind = "InstanceId" if id.startswith("i-") else "NatGatewayId" if id.startswith("nat-") else "GatewayId"
    request = {"RouteTableId": context.id(table), "DestinationCidrBlock": destination, kind: id}

    def call() -> None:
        if replace:
            context.ec2.replace_route(**request)
            return
        try:
            context.ec2.create_route(**request)
        except Exception as error:
            # A call repeated after a lost answer, or somebody else's: wherever it leads, it shall lead to the target.
            if session.error_code(error) != "RouteAlreadyExists":
                raise
            context.ec2.replace_route(**request)

    context.retry(f"{table} and {target} to be known", call, NOT_YET, CONSISTENCY_S)


def delete_route(context: Context, table: str, destination: str) -> None:
    context.gone(
        lambda: context.ec2.delete_route(RouteTableId=context.id(table), DestinationCidrBlock=destination),
        [*NOT_YET, "InvalidRoute.NotFound"],
    )


def create_group(context: Context, reference: str, name: str, tags: dict[str, str]) -> None:
    answer = context.retry(
        "the VPC to be known",
        lambda: context.ec2.create_security_group(
            GroupName=name,
            Description=f"{reference.partition('/')[2]} of the cluster {context.cluster}",
            VpcId=context.id("vpc"),
            TagSpecifications=tagged("security-group", tags),
        ),
        NOT_YET,
        CONSISTENCY_S,
    )
    context.know(reference, answer["GroupId"])


def delete_group(context: Context, id: str) -> None:
    def call() -> None:
        context.gone(lambda: context.ec2.delete_security_group(GroupId=id), NOT_YET)

    # The interfaces of a load balancer outlive it by minutes.
    context.retry(f"{id} to be free for deletion", call, IN_USE)


# What EC2 takes in a rule's description, where a dash or a semicolon of the port table would be refused.
_PLAIN = str.maketrans({";": ",", "'": "", '"': ""})


def authorize(context: Context, reference: str, rules: list[WantedRule]) -> None:
    permissions = []
    for rule in rules:
        why = rule.why.translate(_PLAIN)[:255]
        permission: dict[str, Any] = {"IpProtocol": rule.protocol, "FromPort": rule.first, "ToPort": rule.last}
        if rule.peer.startswith("security-group/"):
            permission["UserIdGroupPairs"] = [{"GroupId": context.id(rule.peer), "Description": why}]
        elif rule.peer.startswith("public-ip/"):
            instance = context.instances.get(rule.peer.partition("/")[2])
            if instance is None or not instance.public_ip:
                continue
            permission["IpRanges"] = [{"CidrIp": f"{instance.public_ip}/32", "Description": why}]
        else:
            permission["IpRanges"] = [{"CidrIp": rule.peer, "Description": why}]
        permissions.append(permission)
    if not permissions:
        return

    def call(some: list[dict[str, Any]]) -> None:
        context.ec2.authorize_security_group_ingress(GroupId=context.id(reference), IpPermissions=some)

    def each() -> None:
        try:
            call(permissions)
        except Exception as error:
            # A call repeated after a lost answer. One rule that is there keeps EC2 from making the others of the call.
            if session.error_code(error) != DUPLICATE:
                raise
            for permission in permissions:
                context.gone(lambda permission=permission: call([permission]), [DUPLICATE])  # type: ignore[misc]

    context.retry(f"{reference} to be known", each, NOT_YET, CONSISTENCY_S)


def revoke(context: Context, reference: str, rules: Mapping[state.Rule, str]) -> None:
    permissions = []
    for rule, why in rules.items():
        permission: dict[str, Any] = {"IpProtocol": rule.protocol}
        if rule.protocol != "-1":
            permission.update(FromPort=rule.first, ToPort=rule.last)
        kind, key = _peer_kind(rule.peer)
        # EC2 goes by the peer alone; an emulator may want the description too.
        permission[kind] = [{key: rule.peer, "Description": why} if why else {key: rule.peer}]
        permissions.append(permission)
    context.gone(
        lambda: context.ec2.revoke_security_group_ingress(GroupId=context.id(reference), IpPermissions=permissions),
        [*NOT_YET, "InvalidPermission.NotFound"],
    )


def _peer_kind(peer: str) -> tuple[str, str]:
    if peer.startswith("sg-"):
        return "UserIdGroupPairs", "GroupId"
    if peer.startswith("pl-"):
        return "PrefixListIds", "PrefixListId"
    return ("Ipv6Ranges", "CidrIpv6") if ":" in peer else ("IpRanges", "CidrIp")


HANDLERS: dict[str, Handler] = {
    handler.__name__: handler
    for handler in (
        create_tags,
        create_vpc,
        enable_dns,
        delete_vpc,
        create_gateway,
        attach_gateway,
        detach_gateway,
        delete_gateway,
        create_subnet,
        map_public_ip,
        delete_subnet,
        allocate_address,
        release_address,
        create_nat,
        wait_nat,
        delete_nat,
        create_table,
        delete_table,
        associate,
        put_route,
        delete_route,
        create_group,
        delete_group,
        authorize,
        revoke,
    )
}
