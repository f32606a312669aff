# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that the demo's website gets more pods under load and fewer without: metrics-server, the autoscaler, kubelets.

A probe's pod asks the website as often as it gets answers. It does so only while it is told to, so that nothing of the
load is left when this is killed.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any, Iterator

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.client import Client
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.readiness import condition
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.checks import Check, until
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.cluster import (
    DEMO,
    PROBES,
    WORKLOADS,
    explained,
    pods,
)

AUTOSCALER = f"/apis/autoscaling/v2/namespaces/{DEMO}/horizontalpodautoscalers/website"
LOOK = "kubectl -n demo describe horizontalpodautoscaler website; kubectl -n demo top pods"
# Requests that are made at the same time, and how many one call makes one after the other: a call ends within seconds.
_AT_ONCE, _REQUESTS = 4, 100


def checks(client: Client, domain: str, timeout: float) -> list[Check]:
    """Each follows from the one before, so the first that fails is the last. `timeout`: seconds for each."""
    settled = until(lambda: _settled(client), timeout, 1.0)
    if not settled.passed:
        return [settled]
    with _load(client, domain) as said:
        grown = until(lambda: _grown(client), timeout, 1.0, why=lambda: _why(client, said))
    if not grown.passed:
        return [settled, grown]
    return [settled, grown, until(lambda: _shrunk(client), timeout, 1.0)]


def judge(autoscaler: dict[str, Any], ready: int, grown: bool | None) -> tuple[bool, str]:
    """Whether the website has as many ready pods as it should, and what was seen. Pure.

    `grown`: more than the fewest (True), the fewest (False), or the fewest with a load that is known (None).
    """
    status, least = autoscaler.get("status") or {}, int(autoscaler["spec"].get("minReplicas") or 1)
    desired = int(status.get("desiredReplicas") or 0)
    active = condition(autoscaler, "ScalingActive")
    seen = f"{ready} ready of {desired} wanted, {least} at least; {_load_text(status)}"
    if active.get("status") != "True":
        # The first time it looks it has no opinion yet.
        return False, f"{seen}: {active.get('message') or 'the autoscaler has not looked yet'}"
    if grown:
        return ready > least and desired > least, seen
    return ready == desired == least, seen


def _load_text(status: dict[str, Any]) -> str:
    found = [
        str(metric["resource"]["current"].get("averageValue"))
        for metric in status.get("currentMetrics") or []
        if metric.get("type") == "Resource"
    ]
    return f"each uses {', '.join(found)} of a core" if found else "what they use is not known"


def _look(client: Client, name: str, grown: bool | None, expected: str) -> Check:
    try:
        found = client.find(AUTOSCALER)
        if found is None:
            return Check(name, False, expected, "the demo has no HorizontalPodAutoscaler", DEMO, LOOK)
        ready = len([pod for pod in pods(client, DEMO, "website") if pod.ready])
        passed, seen = judge(found, ready, grown)
    except KubernetesError as error:
        passed, seen = False, str(error)
    return Check(name, passed, expected, seen, DEMO, LOOK)


def _settled(client: Client) -> Check:
    return _look(
        client, "the demo's autoscaler knows what the website uses", None, "its load, and as many pods as without one"
    )


def _grown(client: Client) -> Check:
    return _look(client, "the website gets more pods under load", True, "more ready pods than without")


def _shrunk(client: Client) -> Check:
    return _look(client, "the website has fewer pods again without load", False, "as many as before")


def _why(client: Client, said: list[str]) -> str:
    return "; ".join(text for text in (explained(client, WORKLOADS["demo_ready"]), *said[-1:]) if text)


@contextlib.contextmanager
def _load(client: Client, domain: str) -> Iterator[list[str]]:
    """Visits to the website from a pod, as many as it can make; gives what went wrong."""
    probe, over = pods(client, PROBES, "probe")[0], threading.Event()
    said: list[str] = []
    path = f"/api/v1/namespaces/{PROBES}/pods/{probe.name}:8080/proxy/dial"
    host = f"website.{DEMO}.svc.{domain}."
    query = {"protocol": "http", "host": host, "port": "80", "request": "api/visits", "tries": str(_REQUESTS)}

    def visit() -> None:
        while not over.is_set():
            try:
                client.get(path, query)
            except KubernetesError as error:
                said.append(str(error))
                over.wait(1)

    visitors = [threading.Thread(target=visit, daemon=True) for _number in range(_AT_ONCE)]
    for visitor in visitors:
        visitor.start()
    try:
        yield said
    finally:
        over.set()
        for visitor in visitors:
            visitor.join()
