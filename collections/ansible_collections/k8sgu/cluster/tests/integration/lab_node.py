# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One booted node in a lab of its own, reached by SSH, for tests on nodes."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

# Another ansible-core's environment has no lab of its own.
_BESIDE = Path(sys.executable).with_name("ec2lab")
EC2LAB = _BESIDE if _BESIDE.exists() else Path(shutil.which("ec2lab") or _BESIDE)
BOOT_TIMEOUT_S = 180
BOOTED = "systemctl is-system-running --wait >/dev/null; true"


def missing() -> str:
    """Why this machine cannot run a lab; empty if it can."""
    if os.geteuid() != 0:
        return "a lab needs root"
    if not shutil.which("systemd-nspawn"):
        return "a lab needs systemd-nspawn (see tools/apt-packages.txt)"
    return ""


@dataclass(frozen=True)
class Node:
    """`mirror` is the directory that the lab serves, `mirror_url` its address for the node."""

    lab: str
    instance: str
    address: str
    key: Path
    mirror: Path
    mirror_url: str

    @property
    def ansible_variables(self) -> dict[str, Any]:
        """Of the node as a host of an inventory."""
        return {
            "ansible_host": self.address,
            "ansible_user": "ubuntu",
            "ansible_become": True,
            "ansible_ssh_common_args": " ".join(self.ssh_options),
            "ansible_python_interpreter": "/usr/bin/python3",
        }

    @property
    def playbook_variables(self) -> dict[str, Any]:
        """Of the node as a host of one of our playbooks, which ask for root themselves."""
        return {
            "ansible_host": self.address,
            "ansible_user": "ubuntu",
            "ansible_ssh_private_key_file": str(self.key),
            "ansible_ssh_common_args": " ".join(self.ssh_options[2:]),
            "ec2_private_ip": "10.99.0.10",
        }

    @property
    def ssh_options(self) -> list[str]:
        checks = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        return ["-i", str(self.key), *checks]

    def fault(self, kind: str) -> None:
        """One of `ec2lab fault`, on this node."""
        argv = [EC2LAB, "fault", kind, self.instance]
        subprocess.run(argv, env={**os.environ, "K8SGU_LAB": self.lab}, check=True, timeout=120)

    def run(self, command: str, check: bool = True) -> str:
        """Output of a shell command, run as root."""
        argv = ["ssh", *self.ssh_options, f"ubuntu@{self.address}", "sudo", "sh"]
        done = subprocess.run(argv, input=command, capture_output=True, text=True, timeout=120, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"{command}: {done.stdout}{done.stderr}")
        return done.stdout


def environment(lab: str) -> dict[str, str]:
    """The lab's `export` lines as a dictionary."""
    printed = subprocess.run([EC2LAB, "env", lab], capture_output=True, text=True, check=True).stdout
    pairs = [line.removeprefix("export ").split("=", 1) for line in printed.splitlines() if line.startswith("export ")]
    return {name: value.strip("'\"") for name, value in pairs}


@contextlib.contextmanager
def running(lab: str, directory: Path, mirror: Path | None = None, **options: Any) -> Iterator[Node]:
    """A lab with one node, removed after the block. Its mirror is empty unless one is given; `options`: of launch().

    One with `UserData` is not waited for until it has booted, only for SSH.
    """
    if mirror is None:
        mirror = directory / "mirror"
        mirror.mkdir()
    try:
        subprocess.run([EC2LAB, "up", lab, "--mirror-dir", mirror], check=True, timeout=600)
        variables = environment(lab)
        instance, address, key = launch(variables, directory, **options)
        node = Node(lab, instance, address, key, mirror, variables["EC2LAB_MIRROR_URL"])
        wait_for_ssh(node, "true" if "UserData" in options else BOOTED)
        yield node
    finally:
        subprocess.run([EC2LAB, "down", lab], check=True, timeout=300)


def client(variables: dict[str, str]) -> Any:
    """The lab's EC2."""
    return boto3.client(
        "ec2",
        endpoint_url=variables["AWS_ENDPOINT_URL"],
        region_name=variables["AWS_REGION"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
    )


def launch(variables: dict[str, str], directory: Path, **options: Any) -> tuple[str, str, Path]:
    """Id, public address and private key of an instance in a network of its own; `options`: more of RunInstances."""
    ec2 = client(variables)
    vpc = ec2.create_vpc(CidrBlock="10.99.0.0/16")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.99.0.0/24")["Subnet"]["SubnetId"]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    tables = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"]
    ec2.create_route(RouteTableId=tables[0]["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
    group = ec2.create_security_group(GroupName="test", Description="SSH", VpcId=vpc)["GroupId"]
    port = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[port])
    key = directory / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    ec2.import_key_pair(KeyName="test", PublicKeyMaterial=key.with_suffix(".pub").read_bytes())
    interface = {"DeviceIndex": 0, "SubnetId": subnet, "Groups": [group], "AssociatePublicIpAddress": True}
    instance = ec2.run_instances(
        ImageId=variables["EC2LAB_IMAGE_ID"],
        InstanceType="m5.large",
        MinCount=1,
        MaxCount=1,
        KeyName="test",
        NetworkInterfaces=[interface],
        **options,
    )["Instances"][0]["InstanceId"]
    ec2.get_waiter("instance_running").wait(InstanceIds=[instance], WaiterConfig={"Delay": 1, "MaxAttempts": 120})
    found = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    return instance, found["PublicIpAddress"], key


def wait_for_ssh(node: Node, until: str = BOOTED) -> None:
    deadline = time.monotonic() + BOOT_TIMEOUT_S
    seen: object = "nothing"
    while time.monotonic() < deadline:
        try:
            socket.create_connection((node.address, 22), 2).close()
            node.run(until)
            return
        except (OSError, AssertionError, subprocess.TimeoutExpired) as error:
            seen = error
        time.sleep(0.5)
    raise AssertionError(f"{node.address} was not reachable by SSH after {BOOT_TIMEOUT_S} s: {seen}")
