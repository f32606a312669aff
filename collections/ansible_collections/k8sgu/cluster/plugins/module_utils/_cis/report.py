# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All findings of a cluster by number, as data and as a table."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Iterable, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._cis import (
    control_plane,
    etcd,
    policies,
    project_items,
    worker,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._cis.items import FAIL, MANUAL, PASS, Finding, Node, ask
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.client import Client
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError

BENCHMARK = "CIS Kubernetes Benchmark 1.12"
WORKERS = 8
_RANK = {FAIL: 0, MANUAL: 1, PASS: 2}


def order(number: str) -> list[int]:
    """The sort key of an item; our own items, X, come last."""
    return [int(part) if part.isdigit() else 99 for part in number.split(".")]


def node_findings(name: str, node: Node, control: bool) -> list[Finding]:
    """The findings of one node; `control`: whether the node should run the control plane."""
    items = [*control_plane.items(), *etcd.items(), *project_items.control_plane_items()] if control else []
    return ask([*items, *worker.items(), *project_items.items()], name, node)


def accept(findings: Iterable[Finding], accepted: Mapping[str, str]) -> list[Finding]:
    """Turns a FAIL that the user accepts into MANUAL, with the user's reason in the report."""
    return [
        replace(finding, status=MANUAL, reason=f"accepted ({accepted[finding.number]}): {finding.reason}")
        if finding.status == FAIL and finding.number in accepted
        else finding
        for finding in findings
    ]


def kubelets(client: Client, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """{node: its kubelet's running configuration}, without kubelets that do not answer.

    The configuration file is not enough: flags and drop-ins override it.
    """

    def ask_one(name: str) -> tuple[str, dict[str, Any]]:
        try:
            return name, client.get(f"/api/v1/nodes/{name}/proxy/configz")["kubeletconfig"]
        except (KubernetesError, KeyError):
            return name, {}

    with ThreadPoolExecutor(max_workers=WORKERS) as pool:
        return dict(pool.map(ask_one, names))


def all_findings(
    client: Client,
    shown: Mapping[str, dict[str, Any]],
    inventory: Mapping[str, list[str]],
    accepted: Mapping[str, str],
) -> list[Finding]:
    """`shown`: {node: what was read}; `inventory`: all names of the groups `control_plane` and `worker`."""
    asked = kubelets(client, shown)
    nodes = {name: Node({**facts, "kubelet": asked[name]}) for name, facts in shown.items()}
    controls = inventory["control_plane"]
    found = project_items.coverage(sorted({*controls, *inventory["worker"]}), shown)
    found += [one for name, node in nodes.items() for one in node_findings(name, node, name in controls)]
    found += policies.findings(client, nodes)
    return sorted(accept(found, accepted), key=lambda one: (order(one.number), _RANK[one.status], one.node))


def table(findings: Iterable[Finding]) -> list[str]:
    """A line for each item and finding; nodes with the same finding share it."""
    grouped: dict[tuple[str, str, str, str], list[str]] = {}
    for one in findings:
        grouped.setdefault((one.number, one.status, one.title, one.reason), []).append(one.node)
    rows = [("item", "", "what it requires", "where", "what was found")]
    for (number, status, title, reason), nodes in grouped.items():
        where = "cluster" if nodes == [""] else nodes[0] if len(nodes) == 1 else f"{len(nodes)} nodes"
        rows.append((number, status, title, where, reason))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[4]]).rstrip() for row in rows]


def counts(findings: Iterable[Finding]) -> dict[str, int]:
    """{status: number of items}; an item counts by its worst finding."""
    worst: dict[str, str] = {}
    for one in findings:
        if one.number not in worst or _RANK[one.status] < _RANK[worst[one.number]]:
            worst[one.number] = one.status
    return {status: sum(value == status for value in worst.values()) for status in (PASS, FAIL, MANUAL)}
