#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: security_report
short_description: Checks a cluster against the CIS Kubernetes Benchmark
version_added: 0.1.0
description:
  - Checks what M(k8sgu.cluster.security_facts) read from the nodes and the API's objects, item by item, and writes the findings as JSON.
    The numbers are those of version 1.12, see U(https://www.cisecurity.org/benchmark/kubernetes).
  - Which pods are admitted is tried by dry runs in every namespace except C(kube-system). Nothing is created.
  - It does not fail because of findings; it returns the number of failed items.
author:
  - The k8sgu authors (@k8sgu)
requirements:
  - PyYAML
attributes:
  check_mode:
    description: In check mode the file is not written.
    support: full
  diff_mode:
    description: Returns details on what has changed.
    support: none
  idempotent:
    description: Changes nothing in the cluster; the file is written again.
    support: full
options:
  kubeconfig:
    description: Kubeconfig of an administrator.
    type: path
    required: true
  nodes:
    description: For each node name, RV(k8sgu.cluster.security_facts#module:shown).
    type: dict
    required: true
  control_plane:
    description: Names of the nodes on which the control plane should run. Item X.1 fails for one that was not read.
    type: list
    elements: str
    required: true
  worker:
    description: Names of the other expected nodes, likewise.
    type: list
    elements: str
    default: []
  accepted:
    description: Reasons for accepting failed items, by item number; an accepted item is V(MANUAL), with that reason.
    type: dict
    default: {}
  path:
    description: The JSON file, mode V(0600).
    type: path
    required: true
  patience:
    description: Seconds that the API server may be unreachable.
    type: int
    default: 30
"""

EXAMPLES = r"""
- name: Check the cluster
  k8sgu.cluster.security_report:
    kubeconfig: .state/demo/admin.kubeconfig
    nodes: {demo-control-plane-0: "{{ facts.shown }}"}
    control_plane: [demo-control-plane-0]
    worker: [demo-worker-0]
    path: .state/demo/security-report.json
"""

RETURN = r"""
table:
  description: The findings as lines of text; nodes with the same finding share a line.
  returned: success
  type: list
  elements: str
findings:
  description: Each with C(number), C(title), C(status) (V(PASS), V(FAIL) or V(MANUAL)), C(reason) and C(node), empty for the whole cluster.
  returned: success
  type: list
  elements: dict
failures:
  description: The findings that are V(FAIL).
  returned: success
  type: list
  elements: dict
counts:
  description: Number of items that passed, failed, or need a person; an item counts by its worst finding.
  returned: success
  type: dict
  sample: {PASS: 100, FAIL: 0, MANUAL: 14}
"""

import json
from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.k8sgu.cluster.plugins.module_utils._cis.items import FAIL
from ansible_collections.k8sgu.cluster.plugins.module_utils._cis.report import BENCHMARK, all_findings, counts, table
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import FileError, atomic_write
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.client import Client
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.kubeconfig import load


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path", "required": True},
            "nodes": {"type": "dict", "required": True},
            "control_plane": {"type": "list", "elements": "str", "required": True},
            "worker": {"type": "list", "elements": "str", "default": []},
            "accepted": {"type": "dict", "default": {}},
            "path": {"type": "path", "required": True},
            "patience": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    options = module.params
    if not options["control_plane"]:
        module.fail_json(
            msg="control_plane: names no node, so most items cannot be judged; is the inventory this cluster's?"
        )
    try:
        client = Client(load(options["kubeconfig"], None), options["patience"])
        accepted = {str(number): str(reason) for number, reason in options["accepted"].items()}
        findings = all_findings(client, options["nodes"], options, accepted)
        rows = [asdict(one) for one in findings]
        document = {"benchmark": BENCHMARK, "counts": counts(findings), "findings": rows}
        if not module.check_mode:
            atomic_write(options["path"], (json.dumps(document, indent=2) + "\n").encode(), mode=0o600)
    except (KubernetesError, FileError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=False,
        table=table(findings),
        findings=rows,
        failures=[row for row in rows if row["status"] == FAIL],
        counts=document["counts"],
    )


if __name__ == "__main__":
    main()
