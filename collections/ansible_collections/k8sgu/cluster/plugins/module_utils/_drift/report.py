# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks Kubernetes, puts together what EC2, etcd and the nodes have said, and writes the report."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._drift import certificates, machine
from ansible_collections.k8sgu.cluster.plugins.module_utils._drift.findings import WAYS, Finding
from ansible_collections.k8sgu.cluster.plugins.module_utils._drift.options import ARGUMENT_SPECS
from ansible_collections.k8sgu.cluster.plugins.module_utils._drift.rows import CONTROL_PLANE, Asked, Column, Row, rows
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import FileError, atomic_write
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.client import Client
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.kubeconfig import load
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.libraries import (
    CRYPTOGRAPHY,
    LibraryMissing,
    require,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import certificate_scan, issued

NO_NODE = "no control-plane node answered with etcd's members"


class NotAsked(Exception):
    """An option cannot be used; the text says what to do."""


@dataclass(frozen=True)
class Drift:
    rows: list[Row]
    findings: list[Finding]


def run(call: Call) -> dict[str, Any]:
    """The module's result. Raises LibraryMissing, NotAsked and FileError."""
    require(CRYPTOGRAPHY)
    options = call.options
    found, errors = certificate_scan.find([options["pki"]])
    if errors:
        raise NotAsked(f"pki: cannot be read: {'; '.join(errors)}")
    authorities = [item.pem for item in found]
    nodes = ask(options["kubeconfig"], options["patience"])
    drift = tell(options["ec2"], nodes, options["nodes"], authorities)
    document = {
        "cluster": options["name"],
        "drift": bool(drift.findings),
        "unknown": sorted({finding.where for finding in drift.findings if finding.kind == "unknown"}),
        "nodes": [row.shown() for row in drift.rows],
        "findings": [finding.shown() for finding in drift.findings],
    }
    if not call.check_mode:
        atomic_write(options["path"], (json.dumps(document, indent=2) + "\n").encode(), mode=0o600)
    return {
        "changed": False,
        "table": table(drift),
        "findings": document["findings"],
        "nodes": document["nodes"],
        "kinds": sorted({finding.kind for finding in drift.findings}),
        "count": len(drift.findings),
    }


def ask(kubeconfig: str, patience: int) -> Column:
    """The Node objects; with a problem where the API does not answer."""
    try:
        with contextlib.closing(Client(load(kubeconfig, None), patience)) as client:
            return Column(client.get("/api/v1/nodes")["items"])
    except KubernetesError as error:
        return Column(problem=str(error))


def tell(
    ec2: Mapping[str, Any], nodes: Column, machines: Mapping[str, Mapping[str, Any]], authorities: Sequence[str]
) -> Drift:
    """All drift, as a pure function of what was answered.

    `ec2`: the result of ec2_cluster with `state: compared`. `machines`: for each node of the inventory its `role`,
    whether it `answered`, and the results of the modules that were asked there. `authorities`: certificates.
    """
    instances = Column(ec2.get("instances") or (), "" if "differences" in ec2 else str(ec2.get("msg") or "no answer"))
    described = ec2.get("described") or {name: item["role"] for name, item in machines.items()}
    asked = Asked(described, instances, nodes, _members(machines))
    found = [Finding(**item) for item in ec2.get("differences") or ()]
    for column, name in ((asked.instances, "EC2"), (asked.nodes, "Kubernetes"), (asked.members, "etcd")):
        if column.problem:
            found.append(Finding("unknown", name, "an answer", column.problem))
    known = issued.authorities(authorities)
    all_rows = rows(asked)
    found += [hole for row in all_rows for hole in row.holes]
    for name, item in sorted(machines.items()):
        found += _of_machine(name, item, known)
    return Drift(all_rows, list(dict.fromkeys(found)))


def _members(machines: Mapping[str, Mapping[str, Any]]) -> Column:
    """The longest list that a member gave: one that was cut off from the others may not know the newest."""
    lists = [item["etcd"]["members"] for item in machines.values() if (item.get("etcd") or {}).get("members")]
    return Column(max(lists, key=len)) if lists else Column(problem=NO_NODE)


def _of_machine(name: str, item: Mapping[str, Any], known: list[Any]) -> Iterator[Finding]:
    if not item["answered"]:
        yield Finding("node-unreachable", name, "an answer over SSH", "none")
        return
    strangers = list(certificates.strangers(name, item["certificates"], known))
    # One file is told once: what is wrong with a certificate says more than that its file differs.
    told = {finding.where.partition("#")[0] for finding in strangers}
    yield from strangers
    compared = [result for result in item["compared"] if not result.get("skipped")]
    for finding in machine.of_components(name, compared):
        if finding.kind != "file" or finding.where not in told:
            yield finding
    yield from machine.left_over(name, item["shown"], compared)
    if item["role"] == CONTROL_PLANE:
        yield from machine.of_volume(name, item.get("etcd") or {})


def table(drift: Drift) -> list[str]:
    """Rows of nodes, then what differs, then the ways out."""
    lines = _columns([("node", "EC2", "Kubernetes", "etcd"), *(tuple(row.shown().values()) for row in drift.rows)])
    if not drift.findings:
        return lines
    found = [(one.kind, one.where, one.expected, one.seen) for one in drift.findings]
    lines += ["", *_columns([("what", "where", "expected", "seen"), *found]), ""]
    kinds = list(dict.fromkeys(one.kind for one in drift.findings))
    return [*lines, *_columns([("what", "the way out"), *((kind, WAYS[kind]) for kind in kinds)])]


def _columns(cells: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]) - 1)]
    return ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[-1]]).rstrip() for row in cells]


MODULE = Module(ARGUMENT_SPECS["drift_report"], run, (LibraryMissing, NotAsked, FileError))
