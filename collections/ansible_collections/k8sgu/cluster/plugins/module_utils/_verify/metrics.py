# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judges what metrics-server tells of nodes and pods. Pure.

https://kubernetes.io/docs/tasks/debug/debug-cluster/resource-metrics-pipeline/
"""

from __future__ import annotations

import datetime
from typing import Any, Iterable, Mapping, NamedTuple

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.readiness import readiness

API_SERVICE = "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.metrics.k8s.io"
DEPLOYMENT = "/apis/apps/v1/namespaces/kube-system/deployments/metrics-server"
NODES = "/apis/metrics.k8s.io/v1beta1/nodes"
# metrics-server reads every 15 s and needs two readings; the kubelet itself counts every 10 s or so.
YOUNG_S = 60


class Running(NamedTuple):
    """A ready pod: its name, its node, and when it was started (RFC 3339)."""

    name: str
    node: str
    started: str


def pods_path(namespace: str) -> str:
    return f"/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods"


def service_problem(api_service: dict[str, Any] | None, deployment: dict[str, Any] | None) -> str:
    """Why metrics cannot be asked for, or not from all that should answer; empty if they can."""
    if api_service is None or deployment is None:
        return "metrics-server is not there; site.yml --tags metrics_server brings it"
    for what, body in (("APIService v1beta1.metrics.k8s.io", api_service), ("Deployment metrics-server", deployment)):
        state = readiness(body)
        if not state.ready:
            return f"{what}: {state.message}"
    return ""


def missing(
    nodes: Iterable[str],
    node_metrics: Iterable[Mapping[str, Any]],
    pods: Iterable[Running],
    pod_metrics: Iterable[Mapping[str, Any]],
) -> list[str]:
    """The nodes without metrics of their own or of their pods, one phrase each.

    A pod may be too young: as old as it is is told by the times of the metrics themselves, which are of its own node.
    """
    measured = {item["metadata"]["name"]: item for item in node_metrics}
    told = {item["metadata"]["name"] for item in pod_metrics if item.get("containers")}
    problems = []
    for node in nodes:
        metrics = measured.get(node)
        lacks = [key for key in ("cpu", "memory") if not ((metrics or {}).get("usage") or {}).get(key)]
        if metrics is None or lacks:
            problems.append(f"{node} has no {' and '.join(lacks)}")
            continue
        now = _time(metrics["timestamp"])
        silent = [
            pod.name
            for pod in pods
            if pod.node == node and pod.name not in told and (now - _time(pod.started)).total_seconds() >= YOUNG_S
        ]
        if silent:
            problems.append(f"{node} tells nothing of its pods {', '.join(silent)}")
    return problems


def _time(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
