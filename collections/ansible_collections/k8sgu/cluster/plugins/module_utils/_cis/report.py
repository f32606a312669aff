# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All findings of a cluster, in the order of their numbers, as data and as a table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Iterable, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._cis import control_plane, etcd, policies, worker
from ansible_collections.k8sgu.cluster.plugins.module_utils._cis.items import FAIL, MANUAL, PASS, Finding, Node, ask
from ansible_collections.k8sgu.cluster.plugins.module_utils._manifest.client import Client

BENCHMARK = "CIS Kubernetes Benchmark 1.11"
_RANK = {FAIL: 0, MANUAL: 1, PASS: 2}


def order(number: str) -> list[int]:
    return [int(part) for part in number.split(".")]


def node_findings(name: str, node: Node, control: bool) -> list[Finding]:
    """`control` is whether the node should run the control plane."""
    items = [*control_plane.items(), *etcd.items()] if control else []
    return ask([*items, *worker.items()], name, node)


def accept(findings: Iterable[Finding], accepted: Mapping[str, str]) -> list[Finding]:
    """What the user knows and lives with is no FAIL; the report says so, with the user's reason."""
    return [
        replace(finding, status=MANUAL, reason=f"accepted ({accepted[finding.number]}): {finding.reason}")
        if finding.status == FAIL and finding.number in accepted
        else finding
        for finding in findings
    ]


def all_findings(
    client: Client, shown: Mapping[str, dict[str, Any]], controls: list[str], accepted: Mapping[str, str]
) -> list[Finding]:
    nodes = {name: Node(facts) for name, facts in shown.items()}
    found = [one for name, node in nodes.items() for one in node_findings(name, node, name in controls)]
    found += policies.findings(client, nodes)
    return sorted(accept(found, accepted), key=lambda one: (order(one.number), _RANK[one.status], one.node))


def table(findings: Iterable[Finding]) -> list[str]:
    """A line for each item and answer; nodes that answer the same share it."""
    grouped: dict[tuple[str, str, str, str], list[str]] = {}
    for one in findings:
        grouped.setdefault((one.number, one.status, one.title, one.reason), []).append(one.node)
    rows = [("item", "", "what it asks for", "where", "what was seen")]
    for (number, status, title, reason), nodes in grouped.items():
        where = "cluster" if nodes == [""] else nodes[0] if len(nodes) == 1 else f"{len(nodes)} nodes"
        rows.append((number, status, title, where, reason))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[4]]).rstrip() for row in rows]


def counts(findings: Iterable[Finding]) -> dict[str, int]:
    """By status, how many items; an item counts by its worst answer."""
    worst: dict[str, str] = {}
    for one in findings:
        if one.number not in worst or _RANK[one.status] < _RANK[worst[one.number]]:
            worst[one.number] = one.status
    return {status: sum(value == status for value in worst.values()) for status in (PASS, FAIL, MANUAL)}
