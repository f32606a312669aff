"""VPCs, subnets, routes, security groups, addresses and gateways as EC2 documents them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from api_support import Network, RunningApi
from botocore.exceptions import ClientError
from test_api_instances import launch

from ec2lab import model, routes
from ec2lab.api import translate

ANYWHERE = "0.0.0.0/0"


def refused(code: str) -> Any:
    return pytest.raises(ClientError, match=re.escape(f"({code})"))


def desired(api: RunningApi) -> model.Vpc:
    """The one VPC that has something in it."""
    with api.api.lock:
        (vpc,) = translate.desired("unit", "198.18.4.0/22", frozenset()).vpcs
    return vpc


def test_a_subnet_outside_its_vpc_or_over_another(ec2: Any, network: Network) -> None:
    with refused("InvalidSubnet.Range"):
        ec2.create_subnet(VpcId=network.vpc, CidrBlock="10.9.0.0/24")
    with refused("InvalidSubnet.Conflict"):
        ec2.create_subnet(VpcId=network.vpc, CidrBlock="10.240.0.128/25")
    with refused("InvalidVpcID.NotFound"):
        ec2.create_subnet(VpcId="vpc-0123456789abcdef0", CidrBlock="10.240.1.0/24")


def default_vpc(ec2: Any) -> str:
    (vpc,) = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    assert vpc["CidrBlock"] == "172.31.0.0/16"
    return str(vpc["VpcId"])


def of_vpc(vpc: str, name: str = "vpc-id") -> list[dict[str, Any]]:
    return [{"Name": name, "Values": [vpc]}]


def assert_like_ec2s(ec2: Any, vpc: str) -> list[dict[str, Any]]:
    """The default VPC is what EC2 documents; returns its subnets."""
    (gateway,) = ec2.describe_internet_gateways(Filters=of_vpc(vpc, "attachment.vpc-id"))["InternetGateways"]
    (table,) = ec2.describe_route_tables(Filters=of_vpc(vpc))["RouteTables"]
    assert [each["Main"] for each in table["Associations"]] == [True]
    leads = {route["DestinationCidrBlock"]: (route["GatewayId"], route["State"]) for route in table["Routes"]}
    assert leads == {"172.31.0.0/16": ("local", "active"), ANYWHERE: (gateway["InternetGatewayId"], "active")}
    zones = {zone["ZoneName"] for zone in ec2.describe_availability_zones()["AvailabilityZones"]}
    subnets: list[dict[str, Any]] = ec2.describe_subnets(Filters=of_vpc(vpc))["Subnets"]
    assert len(subnets) == len(zones)
    assert {subnet["AvailabilityZone"] for subnet in subnets} == zones
    for subnet in subnets:
        assert subnet["CidrBlock"].endswith("/20")
        assert subnet["DefaultForAz"]
        assert subnet["MapPublicIpOnLaunch"]
    (group,) = ec2.describe_security_groups(Filters=of_vpc(vpc))["SecurityGroups"]
    (inside,) = group["IpPermissions"]
    assert [pair["GroupId"] for pair in inside["UserIdGroupPairs"]] == [group["GroupId"]]
    assert inside["IpRanges"] == []
    (rules,) = ec2.describe_network_acls(Filters=of_vpc(vpc))["NetworkAcls"]
    assert rules["IsDefault"]
    assert {each["SubnetId"] for each in rules["Associations"]} == {subnet["SubnetId"] for subnet in subnets}
    for attribute in ("enableDnsSupport", "enableDnsHostnames"):
        answer = ec2.describe_vpc_attribute(VpcId=vpc, Attribute=attribute)
        assert answer[attribute[0].upper() + attribute[1:]] == {"Value": True}
    attributes = ec2.describe_account_attributes(AttributeNames=["default-vpc", "supported-platforms"])
    assert {
        each["AttributeName"]: [value["AttributeValue"] for value in each["AttributeValues"]]
        for each in attributes["AccountAttributes"]
    } == {"default-vpc": [vpc], "supported-platforms": ["VPC"]}
    return subnets


def test_the_default_vpc_is_as_ec2_makes_it(running_api: RunningApi, ec2: Any, network: Network) -> None:
    vpc = default_vpc(ec2)
    subnets = assert_like_ec2s(ec2, vpc)
    launched = launch(running_api, None)["Instances"][0]
    running_api.settle(launched["InstanceId"], "running")
    seen = ec2.describe_instances(InstanceIds=[launched["InstanceId"]])["Reservations"][0]["Instances"][0]
    assert seen["SubnetId"] in {subnet["SubnetId"] for subnet in subnets}
    assert [group["GroupName"] for group in seen["SecurityGroups"]] == ["default"]
    made = desired(running_api)
    assert made.id == vpc
    assert routes.public_addresses(made) == [seen["PublicIpAddress"]]
    second = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    with refused("InvalidParameterValue"):
        ec2.attach_internet_gateway(InternetGatewayId=second, VpcId=vpc)


def test_a_default_vpc_that_was_deleted_can_be_made_anew(running_api: RunningApi, ec2: Any, network: Network) -> None:
    vpc = default_vpc(ec2)
    subnets = assert_like_ec2s(ec2, vpc)
    (gateway,) = ec2.describe_internet_gateways(Filters=of_vpc(vpc, "attachment.vpc-id"))["InternetGateways"]
    # A removed default subnet gets its former range again.
    first, *others = subnets
    ec2.delete_subnet(SubnetId=first["SubnetId"])
    with refused("MissingInput"):
        launch(running_api, None, Placement={"AvailabilityZone": first["AvailabilityZone"]})
    with refused("InvalidParameterValue"):
        launch(running_api, None, Placement={"AvailabilityZone": "us-east-1z"})
    again = ec2.create_default_subnet(AvailabilityZone=first["AvailabilityZone"])["Subnet"]
    assert (again["CidrBlock"], again["DefaultForAz"]) == (first["CidrBlock"], True)
    with refused("DefaultSubnetAlreadyExistsInAvailabilityZone"):
        ec2.create_default_subnet(AvailabilityZone=first["AvailabilityZone"])

    with refused("DefaultVpcAlreadyExists"):
        ec2.create_default_vpc()
    ec2.detach_internet_gateway(InternetGatewayId=gateway["InternetGatewayId"], VpcId=vpc)
    ec2.delete_internet_gateway(InternetGatewayId=gateway["InternetGatewayId"])
    for subnet in (again, *others):
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    ec2.delete_vpc(VpcId=vpc)
    (none,) = ec2.describe_account_attributes(AttributeNames=["default-vpc"])["AccountAttributes"]
    assert none["AttributeValues"] == [{"AttributeValue": "none"}]
    with refused("MissingInput"):
        launch(running_api, None)
    with refused("VPCIdNotSpecified"):
        ec2.create_security_group(GroupName="nowhere", Description="x")
    with refused("DefaultVpcDoesNotExist"):
        ec2.create_default_subnet(AvailabilityZone="us-east-1a")
    # The first subnet of a zone in another VPC is not a default one.
    plain = ec2.create_subnet(VpcId=network.vpc, CidrBlock="10.240.9.0/24", AvailabilityZone="us-east-1b")["Subnet"]
    assert (plain["DefaultForAz"], plain["MapPublicIpOnLaunch"]) == (False, False)
    assert ec2.create_default_vpc()["Vpc"]["IsDefault"]
    assert_like_ec2s(ec2, default_vpc(ec2))


def test_tags_at_creation_and_later(ec2: Any, network: Network) -> None:
    tags = [{"Key": "Name", "Value": "demo"}, {"Key": "k8sgu.io/cluster/demo", "Value": "owned"}]
    vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16", TagSpecifications=[{"ResourceType": "vpc", "Tags": tags}])["Vpc"][
        "VpcId"
    ]
    found = ec2.describe_vpcs(Filters=[{"Name": "tag:k8sgu.io/cluster/demo", "Values": ["owned"]}])["Vpcs"]
    assert [each["VpcId"] for each in found] == [vpc]
    ec2.create_tags(Resources=[network.subnet], Tags=tags)
    ec2.delete_tags(Resources=[network.subnet], Tags=[{"Key": "Name"}])
    seen = ec2.describe_subnets(SubnetIds=[network.subnet])["Subnets"][0]["Tags"]
    assert seen == [tags[1]]


def test_a_route_to_an_instance(running_api: RunningApi, ec2: Any, network: Network) -> None:
    instance = launch(running_api, network)["Instances"][0]
    running_api.settle(instance["InstanceId"], "running")
    table = ec2.create_route_table(VpcId=network.vpc)["RouteTable"]["RouteTableId"]
    ec2.associate_route_table(RouteTableId=table, SubnetId=network.subnet)
    ec2.create_route(RouteTableId=table, DestinationCidrBlock="10.200.1.0/24", InstanceId=instance["InstanceId"])

    def route() -> dict[str, Any]:
        routes = ec2.describe_route_tables(RouteTableIds=[table])["RouteTables"][0]["Routes"]
        (found,) = [each for each in routes if each["DestinationCidrBlock"] == "10.200.1.0/24"]
        return dict(found)

    assert route()["State"] == "active"
    assert route()["InstanceId"] == instance["InstanceId"]
    assert route()["NetworkInterfaceId"] == instance["NetworkInterfaces"][0]["NetworkInterfaceId"]
    (subnet,) = desired(running_api).subnets
    assert model.Route("10.200.1.0/24", "instance", instance["InstanceId"]) in subnet.routes
    with refused("RouteAlreadyExists"):
        ec2.create_route(RouteTableId=table, DestinationCidrBlock="10.200.1.0/24", InstanceId=instance["InstanceId"])
    ec2.terminate_instances(InstanceIds=[instance["InstanceId"]])
    running_api.settle(instance["InstanceId"], "terminated")
    assert route()["State"] == "blackhole"
    ec2.delete_route(RouteTableId=table, DestinationCidrBlock="10.200.1.0/24")


def test_security_group_rules_reach_the_network(running_api: RunningApi, ec2: Any, network: Network) -> None:
    ec2.authorize_security_group_ingress(
        GroupId=network.group,
        IpPermissions=[
            {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": ANYWHERE}]},
            {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": network.group}]},
            {"IpProtocol": "icmp", "FromPort": -1, "ToPort": -1, "IpRanges": [{"CidrIp": "10.240.0.0/16"}]},
        ],
    )
    launch(running_api, network)
    (group,) = [each for each in desired(running_api).security_groups if each.id == network.group]
    assert set(group.ingress) == {
        model.Rule("tcp", 22, 22, (ANYWHERE,), ()),
        model.Rule("-1", None, None, (), (network.group,)),
        model.Rule("icmp", -1, -1, ("10.240.0.0/16",), ()),
    }
    assert group.egress == (model.Rule("-1", None, None, (ANYWHERE,), ()),)
    with refused("InvalidPermission.Duplicate"):
        ec2.authorize_security_group_ingress(
            GroupId=network.group, IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp=ANYWHERE
        )
    ec2.revoke_security_group_ingress(GroupId=network.group, IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp=ANYWHERE)
    with refused("InvalidPermission.NotFound"):
        ec2.revoke_security_group_ingress(
            GroupId=network.group, IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp=ANYWHERE
        )


def test_what_is_in_use_is_not_deleted(running_api: RunningApi, ec2: Any, network: Network) -> None:
    other = ec2.create_security_group(GroupName="other", Description="x", VpcId=network.vpc)["GroupId"]
    ec2.authorize_security_group_ingress(
        GroupId=network.group, IpPermissions=[{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": other}]}]
    )
    launch(running_api, network)
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=network.vpc)
    for call, names in (
        (ec2.delete_security_group, {"GroupId": network.group}),
        (ec2.delete_security_group, {"GroupId": other}),
        (ec2.delete_subnet, {"SubnetId": network.subnet}),
        (ec2.delete_vpc, {"VpcId": network.vpc}),
        (ec2.delete_internet_gateway, {"InternetGatewayId": gateway}),
    ):
        with refused("DependencyViolation"):
            call(**names)
    default = ec2.describe_security_groups(
        Filters=[{"Name": "vpc-id", "Values": [network.vpc]}, {"Name": "group-name", "Values": ["default"]}]
    )["SecurityGroups"][0]["GroupId"]
    with refused("CannotDelete"):
        ec2.delete_security_group(GroupId=default)


def test_elastic_addresses(running_api: RunningApi, ec2: Any, network: Network) -> None:
    instance = launch(running_api, network)["Instances"][0]["InstanceId"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=network.vpc)
    first, second = ec2.allocate_address(Domain="vpc"), ec2.allocate_address(Domain="vpc")
    assert first["PublicIp"] != second["PublicIp"]
    association = ec2.associate_address(AllocationId=first["AllocationId"], InstanceId=instance)["AssociationId"]
    assert desired(running_api).nodes[0].public_ip == first["PublicIp"]
    with refused("InvalidIPAddress.InUse"):
        ec2.release_address(AllocationId=first["AllocationId"])
    with refused("DependencyViolation"):
        ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=network.vpc)
    ec2.disassociate_address(AssociationId=association)
    assert desired(running_api).nodes[0].public_ip is None
    ec2.release_address(AllocationId=first["AllocationId"])
    ec2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=network.vpc)
    again = ec2.allocate_address(Domain="vpc")
    assert again["PublicIp"] == first["PublicIp"]


def test_a_nat_gateway_has_addresses_of_its_subnet_and_goes(
    running_api: RunningApi, ec2: Any, network: Network
) -> None:
    allocation = ec2.allocate_address(Domain="vpc")
    token = {"ClientToken": "nat-once"}
    made = ec2.create_nat_gateway(SubnetId=network.subnet, AllocationId=allocation["AllocationId"], **token)
    again = ec2.create_nat_gateway(SubnetId=network.subnet, AllocationId=allocation["AllocationId"], **token)
    nat = made["NatGateway"]["NatGatewayId"]
    assert again["NatGateway"]["NatGatewayId"] == nat
    (seen,) = desired(running_api).nat_gateways
    assert seen.public_ip == allocation["PublicIp"]
    assert seen.private_ip == "10.240.0.4"
    ec2.delete_nat_gateway(NatGatewayId=nat)
    with refused("InvalidNatGatewayID.NotFound"):
        table = ec2.create_route_table(VpcId=network.vpc)["RouteTable"]["RouteTableId"]
        ec2.create_route(RouteTableId=table, DestinationCidrBlock=ANYWHERE, NatGatewayId=nat)
    ec2.release_address(AllocationId=allocation["AllocationId"])
    ec2.delete_subnet(SubnetId=network.subnet)


def test_the_image_is_found_as_its_publisher_names_it(running_api: RunningApi, ec2: Any) -> None:
    found = ec2.describe_images(
        Owners=["136693071363"],
        Filters=[
            {"Name": "name", "Values": ["debian-12-amd64-*"]},
            {"Name": "architecture", "Values": ["x86_64"]},
            {"Name": "state", "Values": ["available"]},
        ],
    )["Images"]
    assert [image["ImageId"] for image in found] == [running_api.image_id]
    assert re.fullmatch(r"debian-12-amd64-\d{8}-\d{4}", found[0]["Name"])
    with refused("InvalidAMIID.NotFound"):
        ec2.describe_images(ImageIds=[running_api.image_id, "ami-0123456789abcdef0"])


def test_instance_types_and_where_they_are_offered(ec2: Any) -> None:
    (m5,) = ec2.describe_instance_types(InstanceTypes=["m5.large"])["InstanceTypes"]
    assert m5["VCpuInfo"]["DefaultVCpus"] == 2
    with refused("InvalidInstanceType"):
        ec2.describe_instance_types(InstanceTypes=["m5.gigantic"])
    offered = ec2.describe_instance_type_offerings(
        LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": ["m5.large"]}]
    )["InstanceTypeOfferings"]
    zones = {zone["ZoneName"] for zone in ec2.describe_availability_zones()["AvailabilityZones"]}
    assert {each["Location"] for each in offered} <= zones
    assert "us-east-1a" in zones


def test_key_pairs(ec2: Any) -> None:
    made = ec2.create_key_pair(KeyName="made", KeyType="ed25519")
    assert "PRIVATE KEY" in made["KeyMaterial"]
    with refused("InvalidKeyPair.Duplicate"):
        ec2.create_key_pair(KeyName="made")
    with refused("InvalidKeyPair.NotFound"):
        ec2.describe_key_pairs(KeyNames=["nobody"])
    ec2.delete_key_pair(KeyName="made")
    ec2.delete_key_pair(KeyName="made")  # as documented: no error


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("create_vpc", {"CidrBlock": "10.7.0.0/16"}),
        ("create_internet_gateway", {}),
        ("allocate_address", {"Domain": "vpc"}),
        ("create_key_pair", {"KeyName": "dry"}),
        ("describe_instances", {}),
        ("describe_vpcs", {}),
    ],
)
def test_a_dry_run_changes_nothing(ec2: Any, call: str, arguments: dict[str, Any]) -> None:
    def everything() -> tuple[int, ...]:
        return (
            len(ec2.describe_vpcs()["Vpcs"]),
            len(ec2.describe_internet_gateways()["InternetGateways"]),
            len(ec2.describe_addresses()["Addresses"]),
            len(ec2.describe_key_pairs()["KeyPairs"]),
        )

    before = everything()
    with refused("DryRunOperation"):
        getattr(ec2, call)(DryRun=True, **arguments)
    assert everything() == before


def test_lists_come_in_pages(ec2: Any, network: Network) -> None:
    for number in range(12):
        ec2.create_security_group(GroupName=f"group-{number}", Description="x", VpcId=network.vpc)
    pages = list(ec2.get_paginator("describe_security_groups").paginate(PaginationConfig={"PageSize": 5}))
    seen = [group["GroupId"] for page in pages for group in page["SecurityGroups"]]
    assert len(seen) == len(set(seen)) >= 13


def test_the_quota_of_routes_is_that_of_today(running_api: RunningApi) -> None:
    quotas = running_api.client("service-quotas")
    found = quotas.get_service_quota(ServiceCode="vpc", QuotaCode="L-93826ACB")["Quota"]
    assert (found["QuotaName"], found["Value"]) == ("Routes per route table", 500.0)
    listed = quotas.list_aws_default_service_quotas(ServiceCode="vpc")["Quotas"]
    assert [item["Value"] for item in listed if item["QuotaCode"] == "L-93826ACB"] == [500.0]
