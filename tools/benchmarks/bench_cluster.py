"""Measures how long a cluster takes, on a lab of its own with a filled mirror: the numbers that `make bench` promises.

First bring-up from pki to verify (at most 60 s), a second run (at most 15 s, nothing changed), one more worker (at most
15 s), ten workers (at most twice the time of two). Prints the time of each phase with its slowest tasks, and for
comparison the time that a bare shell script takes for the first bring-up.

    python tools/benchmarks/bench_cluster.py [--workers 10] [--keep]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BIN = ROOT / ".venv" / "bin"
LAB = CLUSTER = "bench"
STATE = ROOT / ".state" / CLUSTER
# Phases before pki, which prepare machines and files and are not counted.
BEFORE = {"Description", "Infrastructure", "Nodes reachable", "Preflight", "Artifacts", "Client tools"}
TIMEOUT_S = 1800
# Time of a bare shell script with hand-made certificates on the same three nodes, with programs installed.
FLOOR_S = 30
SHOWN_TASKS = 3


@dataclass(frozen=True)
class Run:
    """One run of site.yml: seconds by phase and by its tasks, and how many tasks changed something."""

    phases: dict[str, float]
    tasks: dict[str, list[tuple[str, float]]]
    total: float
    changed: int

    @property
    def from_pki(self) -> float:
        return sum(seconds for name, seconds in self.phases.items() if name not in BEFORE)


def environment() -> dict[str, str]:
    shell = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "EC2LAB_"))}
    return {**shell, "PATH": f"{BIN}:{shell['PATH']}", "K8SGU_LAB": LAB, "ANSIBLE_FORCE_COLOR": "0"}


def site(workers: int) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        timings = Path(folder) / "timings.json"
        command = [
            str(BIN / "ansible-playbook"), "playbooks/site.yml", "-e", f"k8sgu_cluster_name={CLUSTER}",
            "-e", f"k8sgu_worker_count={workers}",
        ]  # fmt: skip
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**environment(), "K8SGU_TIMINGS_FILE": str(timings)},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            sys.exit(f"site.yml failed with {workers} workers:\n{done.stdout[-4000:]}{done.stderr[-2000:]}")
        measured = json.loads(timings.read_text())
    changed = sum(int(count) for count in re.findall(r"changed=(\d+)", done.stdout))
    tasks: dict[str, list[tuple[str, float]]] = {}
    for phase, name, seconds in sorted(measured["tasks_by_phase"], key=lambda row: -row[2]):
        tasks.setdefault(phase, []).append((name.split(" : ")[-1], seconds))
    return Run(dict(measured["phases"]), tasks, measured["total"], changed)


def show(title: str, run: Run) -> None:
    load = os.getloadavg()[0]
    print(
        f"-- {title}: {run.total:.1f} s in all, {run.from_pki:.1f} s from pki to verify, changed={run.changed} "
        f"(load {load:.1f})"
    )
    for phase, seconds in run.phases.items():
        slowest = "; ".join(f"{name} {took:.1f}" for name, took in run.tasks.get(phase, [])[:SHOWN_TASKS])
        print(f"   {seconds:6.1f}  {phase:16} {slowest}")


def lab(action: str) -> None:
    subprocess.run([str(BIN / "ec2lab"), action, LAB], env=environment(), check=True, timeout=TIMEOUT_S)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--workers", type=int, default=10, help="the larger number of workers; 0 leaves it out")
    options.add_argument("--keep", action="store_true", help="leave the lab up")
    arguments = options.parse_args()
    promises: list[tuple[str, float, float]] = []
    lab("down")
    shutil.rmtree(STATE, ignore_errors=True)
    lab("up")
    try:
        first = site(2)
        show("first run, one control-plane node and two workers", first)
        promises.append(("from pki to verify, s", first.from_pki, 60))
        print(f"   {first.from_pki / FLOOR_S:.1f} times the {FLOOR_S} s of a bare shell script")
        second = site(2)
        show("second run", second)
        promises += [("second run from pki to verify, s", second.from_pki, 15), ("changed", second.changed, 0)]
        third = site(3)
        show("one more worker", third)
        promises.append(("one more worker, s from pki to verify", third.from_pki, 15))
        if arguments.workers:
            lab("down")
            shutil.rmtree(STATE)
            lab("up")
            many = site(arguments.workers)
            show(f"first run, {arguments.workers} workers", many)
            promises.append((f"{arguments.workers} workers, times two workers", many.from_pki / first.from_pki, 2))
    finally:
        if not arguments.keep:
            lab("down")
            shutil.rmtree(STATE, ignore_errors=True)
    for name, value, limit in promises:
        print(f"{'ok    ' if value <= limit else 'MISSED'} {name}: {value:.1f} (at most {limit:g})")
    return int(any(value > limit for _name, value, limit in promises))


if __name__ == "__main__":
    sys.exit(main())
