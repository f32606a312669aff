# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""1,000 instances listed by k8sgu.cluster.ec2, by amazon.aws.aws_ec2 and from a static file, against one EC2 API.

    .venv/bin/python collections/ansible_collections/k8sgu/cluster/tests/benchmarks/bench_inventory.py [--instances N]

aws_ec2 comes with the PyPI package `ansible`, in a virtual environment of its own under the user's cache directory,
made on the first run. Every program is run in turn, several times. Two times are told: by the clock without the
server's own seconds, and of the processor (which never holds the server's). The medians count, those of the clock where
the runs of each program are near each other: on a machine that does other things too they say nothing.
Ends with status 1 where a promise of the project is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "integration"))

from moto_server import IMAGE, Server, moto_server, reset

ROOT = Path(__file__).resolve().parents[6]
ANSIBLE = "ansible==12.3.0"  # the series with ansible-core 2.19, as this project's own
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "k8sgu" / "bench"
TIMEOUT_S = 300
REQUIRED_SPEEDUP = 5.0
# How near the floor counts as "as near as can be": within a quarter of the time of a static file of the same hosts.
REQUIRED_FLOOR = 1.25
REQUIRED_SIZE = 0.1
# Instances of the accounts of which the size alone counts: the server's time grows with the square of what it holds,
# the bytes of a host hardly at all.
OF_SHAPE = 100
# How far the runs of a program may be from their median, as a part of it, for the clock to count.
STEADY = 0.15


@dataclass
class Run:
    clock_s: float  # without the server's own time
    processor_s: float
    stdout: str
    stderr: str


def other_ansible() -> Path:
    """The `bin` of a virtual environment with the package `ansible`."""
    place = CACHE / ANSIBLE.replace("==", "-")
    program = place / "bin" / "ansible-inventory"
    if not program.exists():
        print(f"installing {ANSIBLE} into {place} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        subprocess.run(
            [place / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", ANSIBLE, "boto3"], check=True
        )
    return place / "bin"


def run(server: Server, bin_directory: Path, inventory: Path, *arguments: str) -> Run:
    environment = {**server.environment(), "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections")}
    environment["ANSIBLE_INVENTORY_ENABLED"] = "k8sgu.cluster.ec2,auto,yaml"
    if bin_directory != Path(sys.executable).parent:
        del environment["ANSIBLE_COLLECTIONS_PATH"], environment["ANSIBLE_INVENTORY_ENABLED"]
    served, used = server.seconds, resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(
        [bin_directory / "ansible-inventory", "-i", inventory, "--list", *arguments],
        env=environment,
        cwd=inventory.parent,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    )
    clock = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Run(
        clock_s=clock - (server.seconds - served),
        processor_s=after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime,
        stdout=done.stdout,
        stderr=done.stderr,
    )


def plain(value: Any) -> Any:
    """Without the marks of strings that are not templates."""
    if isinstance(value, dict):
        if set(value) == {"__ansible_unsafe"}:
            return value["__ansible_unsafe"]
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def host_variables(output: str) -> dict[str, Any]:
    found: dict[str, Any] = plain(json.loads(output)["_meta"]["hostvars"])
    return found


def size(variables: dict[str, Any]) -> int:
    """Bytes of the host variables as compact JSON."""
    return len(json.dumps(variables, separators=(",", ":")).encode())


@dataclass(frozen=True)
class Shape:
    """An account: how many clusters and pools its instances are of, and what tags they have beside k8sgu's own."""

    title: str
    clusters: int = 1
    pools: int = 1
    shared: int = 0  # tags of one value on every instance of a cluster, as k8sgu_tags makes them
    of_pool: int = 0  # and on every instance of a pool
    odd: int = 0  # instances with one more tag

    @staticmethod
    def cluster(number: int) -> str:
        return f"demo{number or ''}"

    def inventory(self) -> str:
        """The file of k8sgu's plugin that lists the account."""
        names = [self.cluster(number) for number in range(self.clusters)]
        return f"plugin: k8sgu.cluster.ec2\nclusters: [{', '.join(names)}]\n"

    def tags(self, number: int) -> dict[str, str]:
        name = self.cluster(number % self.clusters)
        of = ("workers", "large", "gpu")[number // self.clusters % self.pools]
        return {
            "Name": f"{name}-{of}-{number}",
            f"k8sgu.io/cluster/{name}": "owned",
            "k8sgu.io/role": "worker",
            "k8sgu.io/pool": of,
            "k8sgu.io/pod-cidr": f"10.{number // 256}.{number % 256}.0/24",
            **{f"company:key-{key}": f"value {key} of {name}" for key in range(self.shared)},
            **{f"company:pool-{key}": f"value {key} of {of}" for key in range(self.of_pool)},
            **({"debug": "since monday"} if number < self.odd else {}),
        }


PLAIN = Shape("one cluster, no further tags")
SHAPES = (
    Shape("one cluster, 5 tags of its own", shared=5),
    Shape("one cluster, 20 tags of its own", shared=20),
    Shape("one cluster, 45 tags of its own", shared=45),
    Shape("ten clusters, 10 tags of their own", clusters=10, pools=2, shared=10),
    Shape("one cluster, three pools, 5 tags and 5 of each pool", pools=3, shared=5, of_pool=5),
    Shape("one cluster, 10 tags of its own, one more on 10 nodes", shared=10, odd=10),
)


def make_instances(server: Server, count: int, shape: Shape) -> None:
    ec2 = server.client("ec2")
    for number in range(count):
        tags = shape.tags(number)
        ec2.run_instances(
            ImageId=IMAGE,
            InstanceType="m5.large",
            MinCount=1,
            MaxCount=1,
            TagSpecifications=[
                {"ResourceType": "instance", "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
            ],
        )


def listed(runs: dict[str, list[Run]], title: str) -> dict[str, Any]:
    """The host variables of a program's first run."""
    return host_variables(runs[title][0].stdout)


def static_inventories(directory: Path, listed: str) -> dict[str, Path]:
    """The same hosts, groups and variables as files, in YAML and in JSON (which Ansible reads faster)."""
    import yaml

    hosts = host_variables(listed)
    groups = {name: group["hosts"] for name, group in json.loads(listed).items() if group.get("hosts")}
    data = {"all": {"hosts": hosts, "children": {name: {"hosts": dict.fromkeys(of)} for name, of in groups.items()}}}
    files = {"static file, YAML": directory / "static.yml", "static file, JSON": directory / "static.json"}
    files["static file, YAML"].write_text(yaml.safe_dump(data))
    files["static file, JSON"].write_text(json.dumps(data))
    return files


def speed(medians: dict[str, tuple[float, float]], column: int, how: str) -> tuple[bool, str]:
    """Whether the promise of speed is held in a column of the medians, and the line that says so."""
    mine, them, floor = (
        medians[title][column] for title in ("k8sgu.cluster.ec2", "amazon.aws.aws_ec2", "static file, JSON")
    )
    return (
        them / mine >= REQUIRED_SPEEDUP or mine / floor <= REQUIRED_FLOOR,
        f"{them / mine:.1f} times faster than aws_ec2 and {mine / floor:.2f} times the floor, {how} "
        f"({REQUIRED_SPEEDUP:.0f} times, or at most {REQUIRED_FLOOR} of the floor)",
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--instances", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    own, other = Path(sys.executable).parent, other_ansible()
    with tempfile.TemporaryDirectory() as name, moto_server() as server:
        directory = Path(name)
        make_instances(server, given.instances, PLAIN)
        ours = directory / "ours.k8sgu.yml"
        ours.write_text(PLAIN.inventory())
        theirs = directory / "theirs.aws_ec2.yml"
        theirs.write_text(
            "plugin: amazon.aws.aws_ec2\nregions: [us-east-1]\nhostnames: ['tag:Name']\n"
            "filters: {'tag:k8sgu.io/role': worker, instance-state-name: [pending, running]}\n"
            "keyed_groups:\n  - {key: \"tags['k8sgu.io/role']\", prefix: '', separator: ''}\n"
            "  - {key: \"tags['k8sgu.io/pool']\", prefix: pool}\n"
        )
        contestants = {"k8sgu.cluster.ec2": (own, ours), "amazon.aws.aws_ec2": (other, theirs)}
        first = run(server, own, ours)
        contestants |= {title: (own, path) for title, path in static_inventories(directory, first.stdout).items()}
        runs: dict[str, list[Run]] = {title: [] for title in contestants}
        for _round in range(given.rounds):
            for title, (bin_directory, path) in contestants.items():
                runs[title].append(run(server, bin_directory, path))
        exported = run(server, own, ours, "--export")
        parts = {PLAIN.title: size(host_variables(exported.stdout)) / size(listed(runs, "amazon.aws.aws_ec2"))}
        for shape in SHAPES:
            reset(server)
            make_instances(server, OF_SHAPE, shape)
            ours.write_text(shape.inventory())
            kept, theirs_all = run(server, own, ours, "--export"), run(server, other, theirs)
            parts[shape.title] = size(host_variables(kept.stdout)) / size(host_variables(theirs_all.stdout))

    print(f"{given.instances} instances, median of {given.rounds} runs in turn")
    print(f"{'':22}{'clock s*':>10}{'processor s':>13}{'host variables, B':>20}")
    medians = {}
    for title, done in runs.items():
        clock = statistics.median(one.clock_s for one in done)
        processor = statistics.median(one.processor_s for one in done)
        medians[title] = (clock, processor)
        print(f"{title:22}{clock:>10.2f}{processor:>13.2f}{size(listed(runs, title)):>20}")
    print("* without the time that the server itself took")
    spread = max(
        abs(one.clock_s - medians[title][0]) / medians[title][0] for title, done in runs.items() for one in done
    )
    checks = [speed(medians, 1, "by processor time")]
    if spread <= STEADY:
        checks.append(speed(medians, 0, "by the clock"))
    else:
        print(f"by the clock nothing is judged: a run was {spread:.0%} from the median of its program")
    checks += [
        (
            part <= REQUIRED_SIZE,
            f"{part * 1000:.0f} of 1000 parts of aws_ec2's bytes kept on hosts, what nodes share being on groups "
            f"(at most {REQUIRED_SIZE * 1000:.0f}): {title}",
        )
        for title, part in parts.items()
    ]
    checks += [
        (not any(one.stderr for one in runs["k8sgu.cluster.ec2"]), "no warning, of deprecation or otherwise"),
    ]
    for held, text in checks:
        print(f"{'ok' if held else 'NOT HELD':9}{text}")
    return 0 if all(held for held, _text in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
