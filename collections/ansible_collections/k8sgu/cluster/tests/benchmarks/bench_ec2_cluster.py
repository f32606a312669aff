# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ec2_cluster with nothing to do: its calls and its time for three nodes, and its time net of the API for a thousand.

    .venv/bin/python collections/ansible_collections/k8sgu/cluster/tests/benchmarks/bench_ec2_cluster.py [--nodes N]

Promised, and the exit status says whether it holds: for three nodes at most 12 API calls and 1.5 s, and for 1,000
nodes a plan in at most 2 s net of the API. The first is measured in a new interpreter, imports and clients included;
net of the API is the wall time in which no HTTP request was under way. Each time is the best of the rounds, since
other load only adds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
COLLECTIONS = HERE.parents[4]
sys.path[:0] = [str(COLLECTIONS), str(HERE.parent / "integration")]

from ec2_account import account, options, pool  # noqa: E402

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import run, session  # noqa: E402

CALLS, SECONDS, NET_SECONDS = 12, 1.5, 2.0
# The module as a process of its own runs it, without Ansible around it.
OWN_PROCESS = """
import json, sys, time
started = time.perf_counter()
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import run
result = run.converge(json.loads(sys.argv[1]), False).result
seconds = time.perf_counter() - started
print(json.dumps({"seconds": seconds, "calls": result["api_calls"], "changed": result["changed"]}))
"""


class TimedAws(session.Aws):
    """Clients that note when an HTTP request was under way."""

    def __init__(self) -> None:
        self.spans: list[tuple[float, float]] = []
        self._timed: set[int] = set()
        self._spans_lock = threading.Lock()
        super().__init__(session.Connection())

    def client(self, service: str, region: str | None = None) -> Any:
        client = super().client(service, region)
        http = client._endpoint.http_session
        with self._spans_lock:
            if id(http) in self._timed:
                return client
            self._timed.add(id(http))
        send = http.send

        def timed(request: Any) -> Any:
            started = time.perf_counter()
            try:
                return send(request)
            finally:
                with self._spans_lock:
                    self.spans.append((started, time.perf_counter()))

        http.send = timed
        return client

    def under_way(self) -> float:
        """Seconds in which at least one request was."""
        total = until = 0.0
        for started, ended in sorted(self.spans):
            total += max(0.0, ended - max(started, until))
            until = max(until, ended)
        return total


def three_nodes(rounds: int) -> tuple[float, int]:
    given = options()
    run.converge(given, False)
    found = []
    for _round in range(rounds):
        process = subprocess.run(
            [sys.executable, "-c", OWN_PROCESS, json.dumps(given)],
            env={**os.environ, "PYTHONPATH": str(COLLECTIONS)},
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(json.loads(process.stdout))
    assert not any(one["changed"] for one in found)
    run.converge(options(state="absent"), False)
    return min(one["seconds"] for one in found), max(one["calls"] for one in found)


def many_nodes(nodes: int, rounds: int) -> tuple[float, float, int]:
    given = options(
        pools=[pool("control_plane", 1), pool("workers", nodes - 1)],
        pod_cidr="10.128.0.0/12",
        service_cidr="10.32.0.0/16",
        subnet_prefix=20,
        # A table of a thousand routes is above EC2's quota, and the quota is checked.
        pod_network="vxlan" if nodes > 40 else "routed",
        wait_timeout=3600,
    )
    started = time.perf_counter()
    run.converge(given, False)
    print(f"{nodes} nodes made in {time.perf_counter() - started:.0f} s")
    best = (float("inf"), 0.0, 0)
    for _round in range(rounds):
        aws = TimedAws()
        started = time.perf_counter()
        result = run.converge(given, False, aws).result
        wall = time.perf_counter() - started
        assert not result["changed"] and len(result["nodes"]) == nodes
        best = min(best, (wall - aws.under_way(), wall, result["api_calls"]))
    return best


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with account():
        seconds, calls = three_nodes(arguments.rounds)
        print(f"three nodes, nothing to do: {calls} calls (at most {CALLS}), {seconds:.2f} s (at most {SECONDS})")
        net, wall, many_calls = many_nodes(arguments.nodes, min(3, arguments.rounds))
        print(
            f"{arguments.nodes} nodes, nothing to do: {net:.2f} s net of the API (at most {NET_SECONDS}), "
            f"{wall:.2f} s in all, {many_calls} calls"
        )
    return 0 if calls <= CALLS and seconds <= SECONDS and net <= NET_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
