"""A lab that is behind its own changes, as AWS may be: by so many calls, and the same in every run."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from api_support import RunningApi
from botocore.exceptions import ClientError

TRUST = json.dumps({"Version": "2012-10-17", "Statement": []})


@pytest.fixture
def lagging(running_api: RunningApi) -> RunningApi:
    running_api.api.lag.calls = 2
    return running_api


def codes(call: Callable[[], Any]) -> list[str]:
    """The errors of a call that is repeated until it succeeds."""
    found: list[str] = []
    while len(found) < 10:
        try:
            call()
        except ClientError as error:
            found.append(error.response["Error"]["Code"])
        else:
            break
    return found


def test_what_was_made_is_not_known_for_two_calls(lagging: RunningApi) -> None:
    ec2 = lagging.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.240.0.0/16")["Vpc"]["VpcId"]
    make = {"VpcId": vpc, "CidrBlock": "10.240.0.0/24"}
    assert codes(lambda: ec2.create_subnet(**make)) == ["InvalidVpcID.NotFound"] * 2
    assert vpc in [item["VpcId"] for item in ec2.describe_vpcs()["Vpcs"]]


def test_lists_leave_it_out_for_two_calls(lagging: RunningApi) -> None:
    ec2 = lagging.client("ec2")
    there = len(ec2.describe_vpcs()["Vpcs"])
    ec2.create_vpc(CidrBlock="10.240.0.0/16")
    assert [len(ec2.describe_vpcs()["Vpcs"]) - there for _look in range(3)] == [0, 0, 1]


def test_a_dry_run_says_what_it_says_anyway(lagging: RunningApi) -> None:
    ec2 = lagging.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.240.0.0/16")["Vpc"]["VpcId"]
    with pytest.raises(ClientError, match="DryRunOperation"):
        ec2.create_subnet(VpcId=vpc, CidrBlock="10.240.0.0/24", DryRun=True)


def test_roles_and_profiles(lagging: RunningApi) -> None:
    """To IAM and to EC2, and on their way out."""
    iam, ec2 = lagging.client("iam"), lagging.client("ec2")
    iam.create_role(RoleName="node", AssumeRolePolicyDocument=TRUST)
    iam.create_instance_profile(InstanceProfileName="node")
    both = {"InstanceProfileName": "node", "RoleName": "node"}
    assert codes(lambda: iam.add_role_to_instance_profile(**both)) == ["NoSuchEntity"] * 4
    launch = {"ImageId": lagging.image_id, "InstanceType": "m5.large", "MinCount": 1, "MaxCount": 1}
    with_profile = {**launch, "IamInstanceProfile": {"Name": "node"}}
    assert codes(lambda: ec2.run_instances(**with_profile)) == ["InvalidParameterValue"] * 2
    iam.remove_role_from_instance_profile(**both)
    assert codes(lambda: iam.delete_instance_profile(InstanceProfileName="node")) == ["DeleteConflict"] * 2
    assert codes(lambda: iam.delete_role(RoleName="node")) == ["DeleteConflict"] * 2


def test_what_is_held_and_a_nat_gateway_that_goes(lagging: RunningApi) -> None:
    ec2 = lagging.client("ec2")
    lagging.api.lag.calls = 0
    vpc = ec2.create_vpc(CidrBlock="10.240.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.240.0.0/24")["Subnet"]["SubnetId"]
    address = ec2.allocate_address(Domain="vpc")["AllocationId"]
    nat = ec2.create_nat_gateway(SubnetId=subnet, AllocationId=address)["NatGateway"]["NatGatewayId"]
    lagging.api.lag.calls = 2
    ec2.delete_nat_gateway(NatGatewayId=nat)
    looks = [ec2.describe_nat_gateways(NatGatewayIds=[nat])["NatGateways"][0]["State"] for _look in range(3)]
    assert looks == ["deleting", "deleting", "deleted"]
    assert codes(lambda: ec2.release_address(AllocationId=address)) == ["InvalidIPAddress.InUse"] * 2
    assert codes(lambda: ec2.delete_subnet(SubnetId=subnet)) == ["DependencyViolation"] * 2


def test_the_load_balancer_s_service_learns_of_ec2_s_things_by_itself(lagging: RunningApi) -> None:
    ec2, elb = lagging.client("ec2"), lagging.client("elbv2")
    vpc = ec2.create_vpc(CidrBlock="10.240.0.0/16")["Vpc"]["VpcId"]
    assert codes(lambda: ec2.create_subnet(VpcId=vpc, CidrBlock="10.240.0.0/24")) == ["InvalidVpcID.NotFound"] * 2
    group = {"Name": "api", "Protocol": "TCP", "Port": 6443, "VpcId": vpc, "TargetType": "instance"}
    assert codes(lambda: elb.create_target_group(**group)) == ["ValidationError"] * 2
