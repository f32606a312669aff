"""A whole lab, driven as its users drive it: the CLI, boto3, the real `aws` and `ssh`."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

BIN = Path(sys.executable).parent
EVERYWHERE = "0.0.0.0/0"
# The host may be busy with other things: what should happen gets this long, what should not is watched for this long.
PATIENCE_S, WATCH_S = 120.0, 3
TOKEN = (
    "T=$(curl -s -m 20 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token)"
)


def ec2lab(*arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(BIN / "ec2lab"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
        # Whatever this host would choose: tests that want virtual machines ask for them.
        env={"EC2LAB_MACHINE": "container", **os.environ, **environment},
    )
    assert not check or done.returncode == 0, f"ec2lab {' '.join(arguments)}: {done.stderr}"
    return done


def eventually(question: Callable[[], Any], what: str, patience: float = PATIENCE_S) -> Any:
    """The first true answer; an error counts as no."""
    deadline = time.monotonic() + patience
    problem: BaseException | None = None
    while time.monotonic() < deadline:
        try:
            if answer := question():
                return answer
            problem = None
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            problem = error
        time.sleep(0.1)
    raise AssertionError(f"not within {patience:.0f} s: {what}") from problem


class RunningLab:
    """A lab that is up, with the clients of its environment."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name, self.directory = name, directory
        self.key = directory / "key"
        directory.mkdir(parents=True, exist_ok=True)
        if not self.key.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True)

    def up(self, *options: str) -> str:
        return ec2lab("up", self.name, *options).stderr

    def down(self) -> None:
        ec2lab("down", self.name)

    @property
    def environment(self) -> dict[str, str]:
        """What a shell has after `eval "$(ec2lab env NAME)"`."""
        lines = ec2lab("env", self.name).stdout.splitlines()
        assert all(line.startswith("export ") for line in lines)
        return dict(line.removeprefix("export ").split("=", 1) for line in lines)

    def client(self, service: str) -> Any:
        values = self.environment
        return boto3.client(
            service,
            endpoint_url=values["AWS_ENDPOINT_URL"],
            region_name=values["AWS_REGION"],
            aws_access_key_id=values["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=values["AWS_SECRET_ACCESS_KEY"],
            config=Config(retries={"max_attempts": 2}),
        )

    def daemon(self) -> int:
        return int(Path(f"/run/ec2lab/{self.name}/daemon.pid").read_text())


@dataclass
class Cloud:
    """A VPC with two public subnets, one security group that lets SSH in, and what makes instances in it."""

    lab: RunningLab
    ec2: Any
    vpc: str
    subnets: list[str]
    table: str
    group: str
    # Where one connection for many commands is kept: an emulated processor takes seconds to make one.
    connections: Path | None = None

    def run(self, count: int = 1, **changes: Any) -> list[str]:
        wanted: dict[str, Any] = {
            "ImageId": self.lab.environment["EC2LAB_IMAGE_ID"],
            "InstanceType": "m5.large",
            "MinCount": count,
            "MaxCount": count,
            "SubnetId": self.subnets[0],
            "KeyName": "test",
            "SecurityGroupIds": [self.group],
            **changes,
        }
        # None leaves an option out.
        given = {name: value for name, value in wanted.items() if value is not None}
        made = self.ec2.run_instances(**given)["Instances"]
        return [instance["InstanceId"] for instance in made]

    def see(self, instance: str) -> dict[str, Any]:
        return dict(self.ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0])

    def wait(self, instances: list[str], state: str, patience: float = PATIENCE_S) -> None:
        def there() -> bool:
            seen = {each: self.see(each)["State"]["Name"] for each in instances}
            assert set(seen.values()) == {state}, str(seen)
            return True

        eventually(there, f"{instances} {state}", patience)

    def address(self, instance: str) -> str:
        return str(self.see(instance)["PrivateIpAddress"])

    def ssh(
        self, instance: str, command: str, check: bool = True, connect: int = 20, through: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Over the instance's public address, or over its private one `through` another instance."""
        options = [
            *("-i", str(self.lab.key), "-o", "BatchMode=yes", "-o", f"ConnectTimeout={connect}"),
            *("-o", "LogLevel=ERROR", "-o", "StrictHostKeyChecking=no"),
            *("-o", "UserKnownHostsFile=/dev/null", "-o", "IdentitiesOnly=yes"),
        ]
        if self.connections:
            options += ["-o", "ControlMaster=auto", "-o", f"ControlPath={self.connections / instance}"]
            options += ["-o", "ControlPersist=120", "-o", "ServerAliveInterval=10"]
        address = self.see(instance)["PrivateIpAddress" if through else "PublicIpAddress"]
        if through:
            jump = shlex.join(["ssh", *options, "-W", "%h:%p", f"ubuntu@{self.see(through)['PublicIpAddress']}"])
            options += ["-o", f"ProxyCommand={jump}"]
        done = subprocess.run(
            ["ssh", *options, f"ubuntu@{address}", command],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert not check or done.returncode == 0, f"{command}: status {done.returncode}: {done.stdout}{done.stderr}"
        return done

    def hang_up(self, instance: str) -> None:
        """Forgets the connection that was kept: the machine at its other end is another one now, or gone."""
        if self.connections:
            (self.connections / instance).unlink(missing_ok=True)

    def say(self, instance: str, command: str) -> str:
        return self.ssh(instance, command).stdout.strip()

    def metadata(self, instance: str, path: str) -> str:
        return self.say(
            instance,
            f'{TOKEN}; curl -sf -m 20 -H "X-aws-ec2-metadata-token: $T" http://169.254.169.254/latest/{path}',
        )

    @contextmanager
    def one_hop_further(self, instance: str) -> Iterator[Callable[[], str]]:
        """A namespace behind a bridge of the node, like a container; yields a call that asks for a token there."""
        self.say(
            instance,
            "sudo sh -ec 'ip netns add pod; ip link add cni0 type bridge; ip addr add 10.66.0.1/24 dev cni0; "
            "ip link set cni0 up; ip link add pod0 type veth peer name eth0 netns pod; "
            "ip link set pod0 master cni0 up; ip -n pod addr add 10.66.0.2/24 dev eth0; ip -n pod link set eth0 up; "
            "ip -n pod route add default via 10.66.0.1; "
            "sysctl -qw net.ipv4.ip_forward=1; iptables -t nat -A POSTROUTING -s 10.66.0.0/24 -j MASQUERADE'",
        )
        ask = f'sudo ip netns exec pod sh -c "{TOKEN.replace("20", "5")}; echo got:\\$T"'.replace("T=$(", "T=\\$(")
        try:
            yield lambda: self.say(instance, ask)
        finally:
            self.say(
                instance,
                "sudo sh -c 'ip netns del pod; ip link del cni0; sysctl -qw net.ipv4.ip_forward=0; "
                "iptables -t nat -D POSTROUTING -s 10.66.0.0/24 -j MASQUERADE'",
            )

    def pings(self, source: str, address: str) -> bool:
        return self.ssh(source, f"ping -c 1 -W 2 {address}", check=False).returncode == 0

    def allow(self, protocol: str, first: int = -1, last: int = -1, cidr: str = EVERYWHERE) -> dict[str, Any]:
        permission = {
            "IpProtocol": protocol, "FromPort": first, "ToPort": last, "IpRanges": [{"CidrIp": cidr}],
        }  # fmt: skip
        self.ec2.authorize_security_group_ingress(GroupId=self.group, IpPermissions=[permission])
        return permission

    def forbid(self, permission: dict[str, Any]) -> None:
        self.ec2.revoke_security_group_ingress(GroupId=self.group, IpPermissions=[permission])

    def terminate(self, instances: list[str]) -> None:
        self.ec2.terminate_instances(InstanceIds=instances)
        self.wait(instances, "terminated")


def make_cloud(lab: RunningLab, cidr: str = "10.240.0.0/16") -> Cloud:
    ec2 = lab.client("ec2")
    ec2.import_key_pair(KeyName="test", PublicKeyMaterial=lab.key.with_suffix(".pub").read_bytes())
    vpc = ec2.create_vpc(CidrBlock=cidr)["Vpc"]["VpcId"]
    first, second, *_rest = cidr.split("/")[0].split(".")
    subnets = []
    for number, zone in enumerate(("us-east-1a", "us-east-1b")):
        block = f"{first}.{second}.{number}.0/24"
        made = ec2.create_subnet(VpcId=vpc, CidrBlock=block, AvailabilityZone=zone)["Subnet"]["SubnetId"]
        ec2.modify_subnet_attribute(SubnetId=made, MapPublicIpOnLaunch={"Value": True})
        subnets.append(made)
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    table = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"][0]["RouteTableId"]
    ec2.create_route(RouteTableId=table, DestinationCidrBlock=EVERYWHERE, GatewayId=gateway)
    group = ec2.create_security_group(GroupName="test", Description="of the tests", VpcId=vpc)["GroupId"]
    cloud = Cloud(lab, ec2, vpc, subnets, table, group)
    cloud.allow("tcp", 22, 22)
    return cloud
