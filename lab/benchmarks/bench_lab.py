"""Measures the lab against its promises: prints each number with its limit; exits with status 1 if one is missed.

    python lab/benchmarks/bench_lab.py [--runs N]

The image must be in the cache (`ec2lab up` once makes it). The promises are for an otherwise idle machine of two
cores; the load at the start is printed for that reason.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from ec2lab.image import DISK_GIB
from ec2lab.machine import Machines, MachineSpec

EC2LAB = Path(sys.executable).parent / "ec2lab"
NAME = f"bench-{os.getpid()}"
TIMEOUT_S = 180.0


@dataclass(frozen=True)
class Promise:
    what: str
    limit: float
    unit: str


ONE = Promise("RunInstances to SSH answering, one instance", 3, "s")
TEN = Promise("RunInstances to SSH answering, ten instances", 15, "s")
IDLE = Promise("resident memory of the largest of ten idle nodes", 60, "MB")
DISK = Promise("CPU time of making a node's disk", 1, "s")
UP = Promise("up, the image in the cache", 5, "s")
DOWN = Promise("down of three nodes", 5, "s")
DESCRIBE = Promise("DescribeInstances", 100, "ms")


def ec2lab(*arguments: str) -> str:
    return subprocess.run([str(EC2LAB), *arguments], check=True, capture_output=True, text=True).stdout


def timed(work: Callable[[], Any]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


class Cloud:
    """One subnet with the door open for SSH."""

    def __init__(self, directory: Path) -> None:
        values = dict(line.removeprefix("export ").split("=", 1) for line in ec2lab("env", NAME).splitlines())
        self.image = values["EC2LAB_IMAGE_ID"]
        self.key = directory / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True)
        self.ec2 = boto3.client(
            "ec2",
            endpoint_url=values["AWS_ENDPOINT_URL"],
            region_name=values["AWS_REGION"],
            aws_access_key_id=values["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=values["AWS_SECRET_ACCESS_KEY"],
        )
        self.ec2.import_key_pair(KeyName="bench", PublicKeyMaterial=self.key.with_suffix(".pub").read_bytes())
        vpc = self.ec2.create_vpc(CidrBlock="10.240.0.0/16")["Vpc"]["VpcId"]
        self.subnet = self.ec2.create_subnet(VpcId=vpc, CidrBlock="10.240.0.0/24")["Subnet"]["SubnetId"]
        self.ec2.modify_subnet_attribute(SubnetId=self.subnet, MapPublicIpOnLaunch={"Value": True})
        gateway = self.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        self.ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
        tables = self.ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"]
        self.ec2.create_route(
            RouteTableId=tables[0]["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway
        )
        self.group = self.ec2.create_security_group(GroupName="bench", Description="bench", VpcId=vpc)["GroupId"]
        self.ec2.authorize_security_group_ingress(
            GroupId=self.group, IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp="0.0.0.0/0"
        )

    def run(self, count: int) -> list[dict[str, Any]]:
        """Launches and returns when a command has run on each by SSH."""
        made: list[dict[str, Any]] = self.ec2.run_instances(
            ImageId=self.image,
            InstanceType="m5.large",
            MinCount=count,
            MaxCount=count,
            SubnetId=self.subnet,
            KeyName="bench",
            SecurityGroupIds=[self.group],
        )["Instances"]
        waiting = {each["InstanceId"] for each in made}
        deadline = time.monotonic() + TIMEOUT_S
        with ThreadPoolExecutor(count) as pool:
            answers = []
            while waiting:
                if time.monotonic() > deadline:
                    raise SystemExit(f"{sorted(waiting)} did not get running within {TIMEOUT_S:.0f} s")
                seen = self.ec2.describe_instances(InstanceIds=sorted(waiting))["Reservations"][0]["Instances"]
                for instance in seen:
                    if instance["State"]["Name"] == "running":
                        waiting.discard(instance["InstanceId"])
                        answers.append(pool.submit(self.ssh, instance["PublicIpAddress"]))
                time.sleep(0.05)
            for answer in answers:
                answer.result()
        return made

    def ssh(self, address: str) -> None:
        options = ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"]
        flags = [word for option in (*options, "ConnectTimeout=30") for word in ("-o", option)]
        argv = ["ssh", "-i", str(self.key), *flags, f"ubuntu@{address}", "true"]
        if subprocess.run(argv, check=False).returncode != 0:
            raise SystemExit(f"SSH to {address} did not answer although its instance is running")

    def terminate(self, made: list[dict[str, Any]]) -> None:
        ids = [each["InstanceId"] for each in made]
        self.ec2.terminate_instances(InstanceIds=ids)
        self.ec2.get_waiter("instance_terminated").wait(InstanceIds=ids, WaiterConfig={"Delay": 1, "MaxAttempts": 60})


def members(instance_id: str) -> Iterator[Path]:
    """The processes of a node, by its control group."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if instance_id in (entry / "cgroup").read_text():
                    yield entry
            except OSError:
                continue


def resident_mb(instance_id: str) -> float:
    """The sum over the node's processes, counting shared memory for each. 1 MB is 10^6 bytes."""
    total = 0
    for process in members(instance_id):
        try:
            lines = (process / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Rss:"))
    if not total:
        raise SystemExit(f"no process of {instance_id} was found: the measurement of its memory would mean nothing")
    return total * 1024 / 1e6


def disk_cpu_s(directory: Path) -> float:
    """The CPU time of making a node's disk, including what is specific to the node."""
    spec = MachineSpec(
        "i-0123456789abcdef0", "vpc-1", "10.240.0.10", "10.240.0.0/24", "02:00:00:00:00:01", "bench", disk_gib=DISK_GIB
    )
    machines = Machines(NAME, directory)

    def used() -> float:
        usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(each.ru_utime + each.ru_stime for each in usage)

    before = used()
    machines.create(spec)
    took = used() - before
    machines.delete(spec.instance_id)
    return took


def measure(runs: int) -> dict[Promise, float]:
    found: dict[Promise, float] = {}
    with tempfile.TemporaryDirectory() as directory:
        try:
            found[UP] = timed(lambda: ec2lab("up", NAME))
            found[DISK] = statistics.median(disk_cpu_s(Path(directory)) for _ in range(runs))
            cloud = Cloud(Path(directory))
            times = []
            for _ in range(runs):
                started = time.monotonic()
                made = cloud.run(1)
                times.append(time.monotonic() - started)
                cloud.terminate(made)
            found[ONE] = statistics.median(times)
            started = time.monotonic()
            made = cloud.run(10)
            found[TEN] = time.monotonic() - started
            time.sleep(10)  # a node is idle after the last timers of its boot
            found[IDLE] = max(resident_mb(each["InstanceId"]) for each in made)
            found[DESCRIBE] = 1000 * statistics.median(timed(cloud.ec2.describe_instances) for _ in range(20))
            cloud.terminate(made[3:])
            found[DOWN] = timed(lambda: ec2lab("down", NAME))
        finally:
            ec2lab("down", NAME)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="launches of one instance; the median counts")
    arguments = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the start")
    missed = 0
    for promise, value in measure(arguments.runs).items():
        kept = value <= promise.limit
        missed += not kept
        print(
            f"{'ok    ' if kept else 'MISSED'}  {promise.what:<46} {value:8.1f} {promise.unit:<3} "
            f"(at most {promise.limit:g} {promise.unit})"
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
