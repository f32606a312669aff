# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks a cluster against the benchmark and writes the report."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._cis.items import FAIL
from ansible_collections.k8sgu.cluster.plugins.module_utils._cis.options import ARGUMENT_SPECS
from ansible_collections.k8sgu.cluster.plugins.module_utils._cis.report import BENCHMARK, all_findings, counts, table
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import FileError, atomic_write
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.client import Client
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.kubeconfig import load
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module


class NobodyToJudge(Exception):
    """The inventory has no control plane."""


def run(call: Call) -> dict[str, Any]:
    """The module's result. Raises NobodyToJudge, KubernetesError and FileError."""
    options = call.options
    if not options["control_plane"]:
        raise NobodyToJudge(
            "control_plane: names no node, so most items cannot be checked; is the inventory this cluster's?"
        )
    client = Client(load(options["kubeconfig"], None), options["patience"])
    accepted = {str(number): str(reason) for number, reason in options["accepted"].items()}
    findings = all_findings(client, options["nodes"], options, accepted)
    rows = [asdict(one) for one in findings]
    document = {"benchmark": BENCHMARK, "counts": counts(findings), "findings": rows}
    if not call.check_mode:
        atomic_write(options["path"], (json.dumps(document, indent=2) + "\n").encode(), mode=0o600)
    return {
        "changed": False,
        "table": table(findings),
        "findings": rows,
        "failures": [row for row in rows if row["status"] == FAIL],
        "counts": document["counts"],
    }


MODULE = Module(ARGUMENT_SPECS["security_report"], run, (NobodyToJudge, KubernetesError, FileError))
