# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads the account: one paginated call for each kind of resource, side by side, and only where it matters."""

from __future__ import annotations

import dataclasses
import json
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Callable, Iterable, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import names, session, state, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description, Image

# EC2 throttles bursts of more; the answers of so many come in one round trip.
PARALLEL = 12


class Reader:
    """Reads what belongs to one cluster. Every method is one call, or none, or the pages of one."""

    def __init__(self, aws: session.Aws, cluster: str) -> None:
        self._aws = aws
        self._cluster = cluster
        self._owned = [tags.owned_filter(cluster)]

    def client(self, service: str) -> Any:
        return self._aws.client(service)

    def pages(self, service: str, operation: str, key: str, **arguments: Any) -> list[Any]:
        """All items of a call's answer, whatever the number of pages. Raises AwsError."""
        client = self._aws.client(service)
        try:
            if client.can_paginate(operation):
                return [
                    item for page in client.get_paginator(operation).paginate(**arguments) for item in page.get(key, ())
                ]
            return list(getattr(client, operation)(**arguments)[key])
        except Exception as error:
            if session.error_code(error) or type(error).__module__.startswith("botocore"):
                raise session.AwsError(session.explain(error, f"read the account ({operation})")) from error
            raise

    def maybe(self, service: str, operation: str, key: str, missing: Iterable[str], **arguments: Any) -> list[Any]:
        """As `pages`, with an empty list where the API says that a thing of this name is not there."""
        try:
            return self.pages(service, operation, key, **arguments)
        except session.AwsError as error:
            if error.__cause__ is not None and session.error_code(error.__cause__) in missing:
                return []
            raise

    def owned(self, operation: str, key: str) -> list[Any]:
        return self.pages("ec2", operation, key, Filters=self._owned)

    def in_vpc(self, operation: str, key: str, vpc_id: str, filter_name: str = "vpc-id") -> list[Any]:
        return self.pages("ec2", operation, key, Filters=[{"Name": filter_name, "Values": [vpc_id]}])

    def mine(self, resource_tags: state.Tags) -> bool:
        return resource_tags.get(tags.cluster_tag(self._cluster)) == tags.OWNED


def read(aws: session.Aws, description: Description, removing: bool) -> state.Current:
    """The current state.

    For removal everything is asked for, otherwise what the description or the first answers call for.
    """
    reader = Reader(aws, description.name)
    current = state.Current()
    # boto3 makes clients one at a time; made here, the threads do not queue for them.
    for service in ("ec2", "iam"):
        aws.client(service)
    images = {pool.image for pool in description.pools}
    first: list[Callable[[], None]] = [
        lambda: _vpcs(reader, description, current),
        lambda: _subnets(reader, description, current),
        lambda: _route_tables(reader, description.vpc_id, current),
        lambda: _security_groups(reader, current),
        lambda: _key_pairs(reader, current),
        lambda: _instances(reader, current),
        lambda: _volumes(reader, current),
    ]
    first.append(lambda: _iam_if_allowed(aws, reader, description, current, removing))
    if removing or description.vpc_id:
        first.append(lambda: _gateways(reader, description, current))
    if any(not image.id for image in images):
        first.append(lambda: read_images(reader, images, current))
    if removing or description.private_nodes:
        first.append(lambda: _nat(reader, current))
    if removing or description.balanced:
        first.append(lambda: _balancer(aws, reader, description, current))
    _together(first)
    _together(_consequences(aws, reader, description, current, removing, images))
    used = current.built_in()
    current.vpcs.sort(key=lambda vpc: (vpc.id not in used, vpc.id))
    return current


def _consequences(
    aws: session.Aws,
    reader: Reader,
    description: Description,
    current: state.Current,
    removing: bool,
    images: set[Image],
) -> list[Callable[[], None]]:
    """The calls that the first answers call for."""
    calls: list[Callable[[], None]] = []
    if removing:
        # Pod routes in the route tables of a VPC that was brought: the security groups, which go last, tell which VPC.
        for vpc_id in sorted(
            {group.vpc_id for group in current.groups} - {vpc.id for vpc in current.vpcs} - {description.vpc_id}
        ):
            calls.append(partial(_route_tables, reader, vpc_id, current, foreign_only=True))
        return calls
    # A route to a gateway is proof of the gateway and of its attachment; NAT gateways, addresses and the load
    # balancer never outlive the table or group that is made before and removed after them.
    attached = any(route.target.startswith("igw-") for table in current.route_tables for route in table.routes.values())
    if not description.vpc_id and not attached:
        calls.append(lambda: _gateways(reader, description, current))
    if not description.private_nodes and any(
        table.tags.get(tags.ROLE, "").startswith("private") for table in current.route_tables
    ):
        calls.append(lambda: _nat(reader, current))
    if not description.balanced and any(group.tags.get(tags.ROLE) == "api" for group in current.groups):
        calls.append(lambda: _balancer(aws, reader, description, current))
    launched = {instance.image_id for instance in current.instances if instance.alive}
    ids = {image.id for image in images if image.id}
    if ids - launched or (ids and len(current.nodes()) < description.node_count):
        calls.append(lambda: read_images(reader, {image for image in images if image.id}, current))
    return calls


def _together(calls: list[Callable[[], None]]) -> None:
    with ThreadPoolExecutor(max_workers=PARALLEL) as pool:
        for future in [pool.submit(call) for call in calls]:
            future.result()


def _vpcs(reader: Reader, description: Description, current: state.Current) -> None:
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


def _vpc(item: Mapping[str, Any]) -> state.Vpc:
    further = [
        entry["CidrBlock"]
        for entry in item.get("CidrBlockAssociationSet", ())
        if entry["CidrBlock"] != item["CidrBlock"]
        and entry.get("CidrBlockState", {}).get("State", "associated") in ("associated", "associating")
    ]
    return state.Vpc(item["VpcId"], item["CidrBlock"], tags.as_mapping(item.get("Tags")), further_cidrs=tuple(further))


def _subnets(reader: Reader, description: Description, current: state.Current) -> None:
    found = (
        reader.in_vpc("describe_subnets", "Subnets", description.vpc_id)
        if description.vpc_id
        else reader.owned("describe_subnets", "Subnets")
    )
    for item in found:
        subnet = state.Subnet(
            item["SubnetId"],
            item["VpcId"],
            item["CidrBlock"],
            item["AvailabilityZone"],
            bool(item.get("MapPublicIpOnLaunch")),
            tags.as_mapping(item.get("Tags")),
        )
        (current.subnets if reader.mine(subnet.tags) else current.foreign_subnets).append(subnet)


def _route_tables(reader: Reader, vpc_id: str, current: state.Current, foreign_only: bool = False) -> None:
    found = (
        reader.in_vpc("describe_route_tables", "RouteTables", vpc_id)
        if vpc_id
        else reader.owned("describe_route_tables", "RouteTables")
    )
    for item in found:
        table = state.RouteTable(
            item["RouteTableId"],
            item["VpcId"],
            tags.as_mapping(item.get("Tags")),
            any(association.get("Main") for association in item.get("Associations", ())),
            {
                association["SubnetId"]: association["RouteTableAssociationId"]
                for association in item.get("Associations", ())
                if association.get("SubnetId")
                and association.get("AssociationState", {}).get("State", "associated") in ("associated", "associating")
            },
            {
                route["DestinationCidrBlock"]: state.Route(
                    route["DestinationCidrBlock"], _target(route), route.get("State", "active") == "active"
                )
                for route in item.get("Routes", ())
                if route.get("DestinationCidrBlock")
            },
        )
        if not reader.mine(table.tags):
            current.foreign_route_tables.append(table)
        elif not foreign_only:
            current.route_tables.append(table)


def _target(route: Mapping[str, Any]) -> str:
    return str(
        route.get("InstanceId")
        or route.get("NatGatewayId")
        or route.get("GatewayId")
        or route.get("NetworkInterfaceId")
        or ""
    )


def _gateways(reader: Reader, description: Description, current: state.Current) -> None:
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
        gateway = state.Gateway(
            item["InternetGatewayId"], attached[0] if attached else "", tags.as_mapping(item.get("Tags"))
        )
        (current.gateways if reader.mine(gateway.tags) else current.foreign_gateways).append(gateway)


def _nat(reader: Reader, current: state.Current) -> None:
    for item in reader.owned("describe_nat_gateways", "NatGateways"):
        addresses = [entry.get("AllocationId", "") for entry in item.get("NatGatewayAddresses", ())]
        current.nat_gateways.append(
            state.NatGateway(
                item["NatGatewayId"],
                item.get("SubnetId", ""),
                item["State"],
                addresses[0] if addresses else "",
                tags.as_mapping(item.get("Tags")),
            )
        )
    for item in reader.owned("describe_addresses", "Addresses"):
        current.addresses.append(
            state.Address(item["AllocationId"], item.get("AssociationId") or "", tags.as_mapping(item.get("Tags")))
        )


def rules_of(permissions: Iterable[Mapping[str, Any]]) -> dict[state.Rule, str]:
    """The API's permissions, one rule for each peer in the form in which they can be compared, with its description."""
    rules = {}
    for item in permissions:
        first, last = int(item.get("FromPort", -1)), int(item.get("ToPort", -1))
        for peers, key in (
            (item.get("UserIdGroupPairs", ()), "GroupId"),
            (item.get("IpRanges", ()), "CidrIp"),
            (item.get("Ipv6Ranges", ()), "CidrIpv6"),
            (item.get("PrefixListIds", ()), "PrefixListId"),
        ):
            for peer in peers:
                rules[state.Rule(item["IpProtocol"], first, last, peer[key])] = peer.get("Description", "")
    return rules


def _security_groups(reader: Reader, current: state.Current) -> None:
    for item in reader.owned("describe_security_groups", "SecurityGroups"):
        current.groups.append(
            state.SecurityGroup(
                item["GroupId"],
                item["GroupName"],
                item["VpcId"],
                tags.as_mapping(item.get("Tags")),
                rules_of(item.get("IpPermissions", ())),
            )
        )


def _key_pairs(reader: Reader, current: state.Current) -> None:
    for item in reader.owned("describe_key_pairs", "KeyPairs"):
        current.key_pairs.append(state.KeyPair(item["KeyPairId"], item["KeyName"], tags.as_mapping(item.get("Tags"))))


def _instances(reader: Reader, current: state.Current) -> None:
    for reservation in reader.owned("describe_instances", "Reservations"):
        current.instances += [instance(item) for item in reservation["Instances"]]
    current.instances.sort(key=lambda found: (found.launched, found.id))


def instance(item: Mapping[str, Any]) -> state.Instance:
    """An instance as DescribeInstances and RunInstances answer it."""
    interfaces = sorted(
        item.get("NetworkInterfaces", ()), key=lambda entry: entry.get("Attachment", {}).get("DeviceIndex", 0)
    )
    interface: Mapping[str, Any] = interfaces[0] if interfaces else {}
    metadata = item.get("MetadataOptions") or {}
    item_tags = tags.as_mapping(item.get("Tags"))
    return state.Instance(
        id=item["InstanceId"],
        name=item_tags.get(tags.NAME, ""),
        state=item["State"]["Name"],
        instance_type=item["InstanceType"],
        image_id=item["ImageId"],
        architecture=item.get("Architecture", ""),
        key_name=item.get("KeyName", ""),
        subnet_id=item.get("SubnetId", ""),
        vpc_id=item.get("VpcId", ""),
        zone=item.get("Placement", {}).get("AvailabilityZone", ""),
        private_ip=item.get("PrivateIpAddress", ""),
        public_ip=item.get("PublicIpAddress", ""),
        private_dns=item.get("PrivateDnsName", ""),
        groups=frozenset(group["GroupId"] for group in interface.get("Groups") or item.get("SecurityGroups", ())),
        profile_arn=(item.get("IamInstanceProfile") or {}).get("Arn", ""),
        source_dest_check=bool(item.get("SourceDestCheck", True)),
        imds_tokens_required=metadata.get("HttpTokens") == "required",
        imds_hop_limit=int(metadata.get("HttpPutResponseHopLimit", 0)),
        root_device=item.get("RootDeviceName", ""),
        volumes={
            entry["DeviceName"]: entry["Ebs"]["VolumeId"]
            for entry in item.get("BlockDeviceMappings", ())
            if entry.get("Ebs")
        },
        interface_id=interface.get("NetworkInterfaceId", ""),
        launched=str(item.get("LaunchTime", "")),
        tags=item_tags,
    )


def _volumes(reader: Reader, current: state.Current) -> None:
    for item in reader.owned("describe_volumes", "Volumes"):
        current.volumes[item["VolumeId"]] = state.Volume(
            item["VolumeId"],
            int(item["Size"]),
            bool(item.get("Encrypted")),
            item.get("VolumeType", ""),
            item["State"],
            tags.as_mapping(item.get("Tags")),
        )


def _iam_if_allowed(
    aws: session.Aws, reader: Reader, description: Description, current: state.Current, removing: bool
) -> None:
    """Roles and profiles. Who wants none may lack the permission to look for them, and then there are none to lose."""
    try:
        _iam(aws, reader, description, current, removing)
    except session.AwsError as error:
        denied = error.__cause__ is not None and session.error_code(error.__cause__) in session.DENIED_CODES
        if description.instance_profiles or not denied:
            raise
        current.profiles.clear()
        current.roles.clear()


def _iam(aws: session.Aws, reader: Reader, description: Description, current: state.Current, removing: bool) -> None:
    path = names.iam_path(description.name, aws.region)
    profiles = reader.pages("iam", "list_instance_profiles", "InstanceProfiles", PathPrefix=path)
    # The path is what says that a role is ours, so it is looked at again here and not left to the filter alone.
    for item in (item for item in profiles if item["Path"] == path):
        roles = tuple(role["RoleName"] for role in item.get("Roles", ()))
        current.profiles[item["InstanceProfileName"]] = state.Profile(item["InstanceProfileName"], item["Arn"], roles)
        for role in (role for role in item.get("Roles", ()) if role["Path"] == path):
            current.roles[role["RoleName"]] = state.Role(role["RoleName"], role["Arn"])
    wanted = {names.role(description.name, aws.region, role) for role in (tags.CONTROL_PLANE, tags.WORKER)}
    # A profile shows its role; only where one has none there may be a role by itself.
    if removing or not wanted <= set(current.roles):
        roles_found = reader.pages("iam", "list_roles", "Roles", PathPrefix=path)
        for item in (item for item in roles_found if item["Path"] == path):
            current.roles.setdefault(item["RoleName"], state.Role(item["RoleName"], item["Arn"]))
    _together([partial(_policy, aws, current, name) for name in sorted(current.roles)])


def _policy(aws: session.Aws, current: state.Current, name: str) -> None:
    try:
        document = aws.client("iam").get_role_policy(RoleName=name, PolicyName=names.POLICY)["PolicyDocument"]
    except Exception as error:
        if session.error_code(error) == "NoSuchEntity":
            return
        raise session.AwsError(session.explain(error, "read the account (get_role_policy)")) from error
    if isinstance(document, str):
        document = json.loads(urllib.parse.unquote(document))
    current.roles[name] = state.Role(name, current.roles[name].arn, document)


def read_images(reader: Reader, images: set[Image], current: state.Current) -> None:
    """The images that are meant, those by id in one call and one call for each pattern; newest first."""
    ids = sorted({image.id for image in images if image.id})
    if ids:
        # By filter: an unknown id is then an empty answer and not an error for all.
        found = reader.pages("ec2", "describe_images", "Images", Filters=[{"Name": "image-id", "Values": ids}])
        for image in images:
            current.images[image] = [_image(item) for item in found if item["ImageId"] == image.id]
    for image in images:
        if not image.id:
            found = reader.pages(
                "ec2",
                "describe_images",
                "Images",
                Owners=[image.owner],
                Filters=[{"Name": "name", "Values": [image.name]}, {"Name": "state", "Values": ["available"]}],
            )
            current.images[image] = sorted(
                (_image(item) for item in found), key=lambda entry: entry.created, reverse=True
            )


def _image(item: Mapping[str, Any]) -> state.MachineImage:
    root = item.get("RootDeviceName") or "/dev/sda1"
    sizes = [
        int(entry["Ebs"].get("VolumeSize") or 0)
        for entry in item.get("BlockDeviceMappings", ())
        if entry.get("DeviceName") == root and entry.get("Ebs")
    ]
    return state.MachineImage(
        item["ImageId"],
        item.get("Name", ""),
        item.get("OwnerId", ""),
        item.get("Architecture", ""),
        root,
        item.get("CreationDate", ""),
        sizes[0] if sizes else 0,
    )


def _balancer(aws: session.Aws, reader: Reader, description: Description, current: state.Current) -> None:
    name = names.load_balancer(description.name)
    aws.client("elbv2")
    balancers: list[Any] = []
    groups: list[Any] = []
    _together(
        [
            lambda: balancers.extend(
                reader.maybe(
                    "elbv2",
                    "describe_load_balancers",
                    "LoadBalancers",
                    ["LoadBalancerNotFound", "LoadBalancerNotFoundException"],
                    Names=[name],
                )
            ),
            lambda: groups.extend(
                reader.maybe(
                    "elbv2",
                    "describe_target_groups",
                    "TargetGroups",
                    ["TargetGroupNotFound", "TargetGroupNotFoundException"],
                    Names=[name],
                )
            ),
        ]
    )
    arns = [item["LoadBalancerArn"] for item in balancers] + [item["TargetGroupArn"] for item in groups]
    if not arns:
        return
    marks: dict[str, dict[str, str]] = {}
    attributes: dict[str, str] = {}
    health: list[Any] = []
    listeners: list[Any] = []
    calls: list[Callable[[], None]] = [
        lambda: marks.update(
            {
                item["ResourceArn"]: tags.as_mapping(item.get("Tags"))
                for item in reader.pages("elbv2", "describe_tags", "TagDescriptions", ResourceArns=arns)
            }
        )
    ]

    def of_balancer(arn: str) -> None:
        listeners.extend(reader.pages("elbv2", "describe_listeners", "Listeners", LoadBalancerArn=arn))

    def targets_of(arn: str) -> None:
        found = reader.pages("elbv2", "describe_target_health", "TargetHealthDescriptions", TargetGroupArn=arn)
        health.extend(found)

    def attributes_of(arn: str) -> None:
        found = reader.pages("elbv2", "describe_target_group_attributes", "Attributes", TargetGroupArn=arn)
        attributes.update({entry["Key"]: entry["Value"] for entry in found})

    calls += [partial(of_balancer, item["LoadBalancerArn"]) for item in balancers]
    calls += [partial(targets_of, item["TargetGroupArn"]) for item in groups]
    calls += [partial(attributes_of, item["TargetGroupArn"]) for item in groups]
    _together(calls)
    current.load_balancers = [
        state.LoadBalancer(
            item["LoadBalancerArn"],
            item["LoadBalancerName"],
            item.get("DNSName", ""),
            item.get("Scheme", ""),
            item.get("State", {}).get("Code", ""),
            item.get("VpcId", ""),
            frozenset(zone["SubnetId"] for zone in item.get("AvailabilityZones", ())),
            frozenset(item.get("SecurityGroups", ())),
            marks.get(item["LoadBalancerArn"], {}),
        )
        for item in balancers
    ]
    current.target_groups = [
        state.TargetGroup(
            item["TargetGroupArn"],
            item["TargetGroupName"],
            item.get("VpcId", ""),
            attributes.get("preserve_client_ip.enabled", "true") != "false",
            frozenset(
                entry["Target"]["Id"] for entry in health if entry.get("TargetHealth", {}).get("State") != "draining"
            ),
            marks.get(item["TargetGroupArn"], {}),
            {key: str(value) for key, value in item.items() if key in names.HEALTH_CHECK},
        )
        for item in groups
    ]
    current.listeners = [
        state.Listener(
            item["ListenerArn"],
            int(item.get("Port", 0)),
            next((action.get("TargetGroupArn", "") for action in item.get("DefaultActions", ())), ""),
        )
        for item in listeners
    ]
