#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation; the action plugin of this name does the work, always on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: drift_report
short_description: Tells what of a cluster differs from its description
version_added: 0.1.0
description:
  - Puts together what EC2, Kubernetes, etcd and the nodes say, and writes what differs from the description as JSON. A node is one row
    with a column for each of the first three, and a row with a hole is drift.
  - Asks the API server for the Node objects; everything else was asked before. Nothing is changed.
  - It does not fail because of drift; it returns how much there is. What could not be asked counts as drift of the kind V(unknown).
author:
  - The k8sgu authors (@k8sgu)
requirements:
  - cryptography
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
  name:
    description: The cluster's name.
    type: str
    required: true
  kubeconfig:
    description: Kubeconfig of an administrator.
    type: path
    required: true
  pki:
    description: The directory with the certificates of the cluster's authorities.
    type: path
    required: true
  ec2:
    description: The result of M(k8sgu.cluster.ec2_cluster) with O(k8sgu.cluster.ec2_cluster#module:state=compared), or its failure.
    type: dict
    required: true
  nodes:
    description:
      - For each node of the inventory its C(role), whether it C(answered), and what was read there. C(shown) is of
        M(k8sgu.cluster.drift_facts), C(certificates) of M(k8sgu.cluster.certificate_scan), C(etcd) the member in the facts of
        M(k8sgu.cluster.node_facts), and C(compared) the results of M(k8sgu.cluster.component) in check mode.
    type: dict
    required: true
  path:
    description: The JSON file, mode V(0600).
    type: path
    required: true
  patience:
    description: Seconds that the API server may be unreachable.
    type: int
    default: 10
"""

EXAMPLES = r"""
- name: Tell what differs
  k8sgu.cluster.drift_report:
    name: demo
    kubeconfig: .state/demo/admin.kubeconfig
    pki: .state/demo/pki
    ec2: "{{ infrastructure_result }}"
    nodes: "{{ drift_machines }}"
    path: .state/demo/drift.json
"""

RETURN = r"""
table:
  description: The rows of nodes, what differs, and the ways out, as lines of text.
  returned: success
  type: list
  elements: str
nodes:
  description: The rows, each with C(node), C(ec2), C(kubernetes) and C(etcd); C(-) where there is nothing, C(unknown) where nothing was told.
  returned: success
  type: list
  elements: dict
findings:
  description: What differs, each with C(kind), C(where), C(expected), C(seen) and C(way_out).
  returned: success
  type: list
  elements: dict
kinds:
  description: The kinds of RV(findings).
  returned: success
  type: list
  elements: str
  sample: [rule-added]
count:
  description: The number of RV(findings).
  returned: success
  type: int
  sample: 1
"""
