# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What pods reach beside their cluster: an instance that is not the cluster's, and the world behind a smaller MTU.

Runs like test_security.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess

import boto3
import pytest
from test_access import connect
from test_security import BIN, hosts, kubectl, on, value

__all__ = ["hosts", "on"]  # fixtures
pytestmark = pytest.mark.timeout(600)

SUBNET = "10.240.250.0/24"
PORT = 22  # every instance of the lab has this server


@pytest.fixture(scope="module")
def ec2():
    told = subprocess.run(
        [str(BIN / "ec2lab"), "env", os.environ["K8SGU_LAB"]], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    settings = dict(re.findall(r"^export (\w+)='?([^'\n]*)'?$", told, re.MULTILINE))
    client = boto3.client(
        "ec2",
        endpoint_url=settings["AWS_ENDPOINT_URL"],
        region_name=settings["AWS_REGION"],
        aws_access_key_id=settings["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=settings["AWS_SECRET_ACCESS_KEY"],
    )
    client.image = settings["EC2LAB_IMAGE_ID"]
    return client


@pytest.fixture(scope="module")
def neighbour(hosts, ec2):
    """The private address of an instance of somebody else in the nodes' VPC: a database, for example.

    Its subnet has a route table of its own, which knows nothing of pods, and its security group admits
    those of the nodes.
    """
    groups, variables = hosts
    nodes = [value(variables[group[0]]["ec2_instance_id"]) for group in groups.values()]
    found = [node for item in ec2.describe_instances(InstanceIds=nodes)["Reservations"] for node in item["Instances"]]
    vpc, zone = found[0]["VpcId"], found[0]["Placement"]["AvailabilityZone"]
    with contextlib.ExitStack() as undo:
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock=SUBNET, AvailabilityZone=zone)["Subnet"]["SubnetId"]
        undo.callback(lambda: ec2.delete_subnet(SubnetId=subnet))
        table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
        undo.callback(lambda: ec2.delete_route_table(RouteTableId=table))
        association = ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)["AssociationId"]
        undo.callback(lambda: ec2.disassociate_route_table(AssociationId=association))
        group = ec2.create_security_group(GroupName="database", Description="of somebody else", VpcId=vpc)["GroupId"]
        undo.callback(lambda: ec2.delete_security_group(GroupId=group))
        peers = [{"GroupId": item["GroupId"]} for node in found for item in node["SecurityGroups"]]
        rule = {"IpProtocol": "tcp", "FromPort": PORT, "ToPort": PORT, "UserIdGroupPairs": peers}
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])
        launched = ec2.run_instances(
            ImageId=ec2.image,
            InstanceType="m5.large",
            MinCount=1,
            MaxCount=1,
            SubnetId=subnet,
            SecurityGroupIds=[group],
        )["Instances"][0]
        ids = [launched["InstanceId"]]
        undo.callback(lambda: ec2.get_waiter("instance_terminated").wait(InstanceIds=ids, WaiterConfig={"Delay": 1}))
        undo.callback(lambda: ec2.terminate_instances(InstanceIds=ids))
        ec2.get_waiter("instance_running").wait(InstanceIds=ids, WaiterConfig={"Delay": 1, "MaxAttempts": 120})
        yield launched["PrivateIpAddress"]


def test_a_pod_reaches_what_else_is_in_the_vpc(on, neighbour):
    """As its node does, whatever the neighbour's route table and security group know of pods."""
    reached = on("worker", f"timeout 5 bash -c '</dev/tcp/{neighbour}/{PORT}' && echo reached")
    assert reached.strip() == "reached"
    pods = json.loads(kubectl("-n", "k8sgu-verify", "get", "pods", "-l", "app=probe", "-o", "json"))["items"]
    assert pods
    seen = {pod["metadata"]["name"]: connect(pod["metadata"]["name"], f"{neighbour}:{PORT}") for pod in pods}
    assert set(seen.values()) == {""}, seen
