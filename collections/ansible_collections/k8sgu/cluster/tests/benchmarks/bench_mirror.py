# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long the mirror takes: built from nothing, filled from the cache, checked.

    .venv/bin/python collections/ansible_collections/k8sgu/cluster/tests/benchmarks/bench_mirror.py [--from-nothing]

Promised, and the exit status says whether it holds:

- everything that a release builds, with either container runtime and either pod network, built on two cores in at
  most 20 min (--from-nothing, or `make bench-build`: no compiled package and no module is there at first);
- a complete mirror checked in at most 1 s, and as an Ansible task no slower.

Without --from-nothing the first is not measured: a mirror is filled with source: build, from the user's cache where
that has everything.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[6]
BUILD_LIMIT_S = 20 * 60
CHECK_LIMIT_S = 1.0
ROUNDS = 5
CORES = 2
# Between them they need all that there is.
OPTIONS = (
    {"container_runtime": "containerd", "pod_network": "routed"},
    {"container_runtime": "docker", "pod_network": "vxlan"},
)
RUNNER = """
import json, sys, time
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.run import complete
given = json.loads(sys.argv[1])
started = time.perf_counter()
outcome = complete(given, False, lambda text: print(text, file=sys.stderr, flush=True))
print(json.dumps({"seconds": time.perf_counter() - started, "steps": len(outcome.steps)}))
"""


def given(mirror: Path, release: str, **changes: Any) -> dict[str, Any]:
    return {
        "kubernetes_version": release,
        "releases_dir": str(Path(__file__).resolve().parents[2] / "releases"),
        "mirror_dir": str(mirror),
        "source": "build",
        "source_dir": None,
        "architectures": ["amd64"],
        "container_runtime": "containerd",
        "pod_network": "routed",
        "demo": True,
        "cache_dir": None,
        "lock_file": None,
        "parallel": 4,
        "attempts": 5,
        "timeout": 30,
        "verify": False,
        **changes,
    }


def measure(parameters: dict[str, Any], environment: dict[str, str]) -> tuple[float, int]:
    """(seconds, items that were missing) of one run in a process of its own."""
    argv = [sys.executable, "-c", RUNNER, json.dumps(parameters)]
    answer = subprocess.run(argv, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    data = json.loads(answer.stdout)
    return float(data["seconds"]), int(data["steps"])


def task_seconds(parameters: dict[str, Any], work: Path, environment: dict[str, str]) -> float:
    """Of the task alone, as Ansible's junit callback has it."""
    play, results, configuration = work / "play.yml", work / "junit", work / "ansible.cfg"
    configuration.touch()
    shutil.rmtree(results, ignore_errors=True)
    arguments = {name: value for name, value in parameters.items() if value is not None}
    task = {"name": "The mirror", "k8sgu.cluster.mirror": arguments}
    play.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]))
    settings = {
        "ANSIBLE_CONFIG": str(configuration),
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
        "ANSIBLE_CALLBACKS_ENABLED": "ansible.builtin.junit",
        "JUNIT_OUTPUT_DIR": str(results),
    }
    playbook = str(Path(sys.executable).parent / "ansible-playbook")
    argv = [playbook, "-i", "localhost,", "-c", "local", str(play)]
    subprocess.run(argv, env={**environment, **settings}, stdout=subprocess.DEVNULL, check=True)
    [path] = results.iterdir()
    [case] = ElementTree.parse(path).getroot().iter("testcase")
    return float(case.get("time", "inf"))


def two_cores() -> int:
    """Keep this process and its children to the cores of the promise; how many there are."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    return len(os.sched_getaffinity(0))


def report(what: str, seconds: float, limit: float) -> bool:
    good = seconds <= limit
    print(f"{what:42} {seconds:9.2f} s   at most {limit:7.1f} s   {'ok' if good else 'TOO SLOW'}")
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n", maxsplit=1)[0])
    parser.add_argument("--from-nothing", action="store_true", help="build everything with empty caches (some 20 min)")
    parser.add_argument("--release", default="1.36.4", help="Kubernetes' version")
    options = parser.parse_args()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "collections")}
    good = True
    with tempfile.TemporaryDirectory(prefix="bench-mirror-") as name:
        work = Path(name)
        parameters = given(work / "mirror", options.release)
        if options.from_nothing:
            empty = {"GOCACHE": str(work / "gocache"), "GOMODCACHE": str(work / "modules"), "GOFLAGS": "-modcacherw"}
            # -modcacherw lets the modules be removed afterwards; the build sets its own GOFLAGS.
            parameters["cache_dir"] = str(work / "cache")
            cores = two_cores()
            parts = [measure({**parameters, **chosen}, {**environment, **empty}) for chosen in OPTIONS]
            seconds, steps = (sum(part) for part in zip(*parts))
            good &= report(f"{steps:.0f} items built from nothing, {cores} cores", seconds, BUILD_LIMIT_S)
            subprocess.run(["chmod", "-R", "u+w", str(work / "modules")], check=True)
        else:
            print("everything built from nothing: measured by `make bench-build`")
            measure(parameters, environment)
        second = {**parameters, "mirror_dir": str(work / "second")}
        seconds, copied = measure(second, environment)
        print(f"{f'{copied} items, second mirror, from the cache':42} {seconds:9.2f} s")
        size = sum(path.stat().st_size for path in (work / "mirror").rglob("*") if path.is_file())
        checked = min(measure(parameters, environment)[0] for _round in range(ROUNDS))
        good &= report(f"check of a full mirror ({size / 1e6:.0f} MB)", checked, CHECK_LIMIT_S)
        task = min(task_seconds(parameters, work, environment) for _round in range(ROUNDS))
        good &= report("the same as an Ansible task", task, CHECK_LIMIT_S)
        hashed = min(measure({**parameters, "verify": True}, environment)[0] for _round in range(ROUNDS))
        print(f"{'the same with verify: true, all hashed':42} {hashed:9.2f} s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
