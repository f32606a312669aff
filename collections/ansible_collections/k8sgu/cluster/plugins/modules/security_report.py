#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation; the action plugin of this name does the work, always on the controller."""

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
extends_documentation_fragment:
  - k8sgu.cluster.controller
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
