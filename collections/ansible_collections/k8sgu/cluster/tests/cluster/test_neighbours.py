# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What pods reach beside their cluster: an instance that is not the cluster's, and the world behind a smaller MTU.

Runs like test_security.py.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import struct
import subprocess
import time

import boto3
import pytest
from test_access import connect
from test_security import BIN, VARIABLES, hosts, kubectl, on, probe_pods, put_back, value

__all__ = ["hosts", "on"]  # fixtures
pytestmark = pytest.mark.timeout(600)

SUBNET = "10.240.250.0/24"
PORT = 22  # every instance of the lab has this server


def aws(service):
    """A client of the lab's account."""
    told = subprocess.run(
        [str(BIN / "ec2lab"), "env", os.environ["K8SGU_LAB"]], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    settings = dict(re.findall(r"^export (\w+)='?([^'\n]*)'?$", told, re.MULTILINE))
    client = boto3.client(
        service,
        endpoint_url=settings["AWS_ENDPOINT_URL"],
        region_name=settings["AWS_REGION"],
        aws_access_key_id=settings["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=settings["AWS_SECRET_ACCESS_KEY"],
    )
    client.image = settings["EC2LAB_IMAGE_ID"]
    return client


@pytest.fixture(scope="module")
def ec2():
    return aws("ec2")


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
    names = [pod["metadata"]["name"] for pod in probe_pods()]
    assert names
    seen = {name: connect(name, f"{neighbour}:{PORT}") for name in names}
    assert set(seen.values()) == {""}, seen


INSIDE, OUTSIDE = 9001, 1500
# A Service that has just been made is known on its nodes within a second, or within minutes if they get no time to run.
ANSWERS_S = 240
BODY = "k8sgu" * 12_000
# In a pod's network, since the pods' images have no such program: asks another pod, and says how large the packets of
# the connection may be and whether the answer was whole.
ASK = f"""
import http.client, socket
client = http.client.HTTPConnection("{{address}}", {{port}}, timeout=20)
client.request("GET", "/echo?msg={BODY}")
answer = client.sock
mtu = answer.getsockopt(socket.IPPROTO_IP, 14)  # IP_MTU
print(mtu, client.getresponse().read().decode() == "{BODY}")
"""


@pytest.fixture(scope="module")
def probes():
    """The pods that answer, by node: name, address and id of the container."""
    return {pod["spec"]["nodeName"]: pod for pod in probe_pods()}


def test_large_packets_inside_of_the_vpc(on, hosts, probes):
    """A pod's packets are as large as the network allows, and arrive on another node."""
    groups, _variables = hosts
    here, there = groups["worker"][0], groups["control_plane"][0]
    overhead = {"routed": 0, "vxlan": 50}[VARIABLES.get("k8sgu_pod_network", "routed")]
    script = ASK.format(address=probes[there]["status"]["podIP"], port=8080)
    said = on(here, f"{within(probes[here])} python3 - <<'END'\n{script}\nEND\n").split()
    assert said == [str(INSIDE - overhead), "True"]


def within(pod):
    """The beginning of a command in a pod's network, on its node."""
    identity = pod["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
    look = "/opt/k8sgu/crictl/current/crictl inspect -o go-template --template '{{.info.pid}}'"
    return f"nsenter --net --target $({look} {identity})"


def create_service():
    """Again if an API server finds a connection to etcd cut, as it may after tests that restarted members."""
    for more in (True, True, False):
        try:
            kubectl("-n", "k8sgu-verify", "create", "service", "nodeport", "large", "--tcp=8080")
            return
        except AssertionError as error:
            if not more or "code = Unavailable" not in str(error):
                raise
            time.sleep(1)


def test_a_large_answer_to_a_client_behind_a_smaller_mtu(on, hosts, probes):
    """A client that announces large segments and is not told what lies between: routers have to tell the pod."""
    groups, variables = hosts
    address = value(variables[groups["worker"][0]]["ec2_public_ip"])
    [route] = json.loads(ip("-json", "route", "show", address))
    path = (address, "via", route["gateway"], "dev", route["dev"])
    for node, pod in probes.items():
        on(node, f"{within(pod)} ip route flush cache")  # what a run before taught it
    create_service()
    with put_back(
        lambda: ip("route", "replace", *path),
        lambda: kubectl("-n", "k8sgu-verify", "delete", "service", "large"),
    ):
        kubectl("-n", "k8sgu-verify", "set", "selector", "service", "large", "app=probe")
        # EC2's internet gateway has 1500: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/network_mtu.html
        ip("route", "replace", *path, "advmss", str(INSIDE - 40))
        port = kubectl("-n", "k8sgu-verify", "get", "service", "large", "-o", "jsonpath={.spec.ports[0].nodePort}")
        missing = {pod["metadata"]["name"] for pod in probes.values()}
        deadline = time.monotonic() + ANSWERS_S
        # Each pod, near and far, has to learn of the path. Which one answers is kube-proxy's throw of dice, so any
        # number of answers may leave one out.
        while missing:
            assert time.monotonic() < deadline, f"no answer of {', '.join(sorted(missing))} within {ANSWERS_S} s"
            try:
                name, segment, whole = ask(address, int(port))
            except ConnectionRefusedError:
                time.sleep(0.5)
                continue
            assert whole and segment > OUTSIDE, (name, segment)
            missing.discard(name)


def ip(*arguments):
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=20, check=True).stdout


def ask(address, port):
    """Which pod answered, the size of the segments that this side announced, and whether the answer was whole."""
    client = http.client.HTTPConnection(address, port, timeout=20)
    client.request("GET", "/hostname")
    name = client.getresponse().read().decode()
    announced = struct.unpack_from("I", client.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 84)[0]
    client.request("GET", f"/echo?msg={BODY}")
    whole = client.getresponse().read().decode() == BODY
    client.close()
    return name, announced, whole
