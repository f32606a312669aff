"""Prints as JSON what an AWS account has, without what ended and what every account has: for a comparison.

Credentials, region and the way there are the environment's.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import boto3

SERVICES = ("ec2", "elbv2", "iam", "s3")
# What EC2 remembers for a while, or keeps for a moment.
ENDED = ("terminated", "deleted", "deleting")


def ids(answers: list[dict[str, Any]], key: str, name: str) -> list[str]:
    found = [entry for answer in answers for entry in answer[key]]
    return sorted(str(entry[name]) for entry in found if state(entry) not in ENDED)


def state(entry: dict[str, Any]) -> str:
    said = entry.get("State", "")
    return str(said.get("Name", "") if isinstance(said, dict) else said)


def contents() -> dict[str, list[str]]:
    ec2, elb, iam, s3 = (boto3.client(name, region_name=os.environ["AWS_REGION"]) for name in SERVICES)

    def pages(client: Any, operation: str) -> list[dict[str, Any]]:
        if client.can_paginate(operation):
            return list(client.get_paginator(operation).paginate())
        return [getattr(client, operation)()]

    kinds: dict[str, Callable[[], list[str]]] = {
        "instances": lambda: sorted(
            instance["InstanceId"]
            for answer in pages(ec2, "describe_instances")
            for reservation in answer["Reservations"]
            for instance in reservation["Instances"]
            if state(instance) not in ENDED
        ),
        "load balancers": lambda: ids(pages(elb, "describe_load_balancers"), "LoadBalancers", "LoadBalancerArn"),
        "target groups": lambda: ids(pages(elb, "describe_target_groups"), "TargetGroups", "TargetGroupArn"),
        "roles": lambda: ids(pages(iam, "list_roles"), "Roles", "Arn"),
        "instance profiles": lambda: ids(pages(iam, "list_instance_profiles"), "InstanceProfiles", "Arn"),
        "policies": lambda: ids([iam.list_policies(Scope="Local")], "Policies", "Arn"),
        "buckets": lambda: ids([s3.list_buckets()], "Buckets", "Name"),
    }
    for operation, key, name in (
        ("describe_vpcs", "Vpcs", "VpcId"),
        ("describe_subnets", "Subnets", "SubnetId"),
        ("describe_route_tables", "RouteTables", "RouteTableId"),
        ("describe_internet_gateways", "InternetGateways", "InternetGatewayId"),
        ("describe_nat_gateways", "NatGateways", "NatGatewayId"),
        ("describe_vpc_endpoints", "VpcEndpoints", "VpcEndpointId"),
        ("describe_security_groups", "SecurityGroups", "GroupId"),
        ("describe_network_interfaces", "NetworkInterfaces", "NetworkInterfaceId"),
        ("describe_addresses", "Addresses", "PublicIp"),
        ("describe_volumes", "Volumes", "VolumeId"),
        ("describe_key_pairs", "KeyPairs", "KeyPairId"),
        ("describe_launch_templates", "LaunchTemplates", "LaunchTemplateId"),
    ):
        kinds[key] = lambda operation=operation, key=key, name=name: ids(pages(ec2, operation), key, name)
    return {kind: read() for kind, read in sorted(kinds.items())}


if __name__ == "__main__":
    json.dump(contents(), sys.stdout, indent=1)
    print()
