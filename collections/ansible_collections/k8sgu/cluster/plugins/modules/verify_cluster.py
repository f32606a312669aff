#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation; the action plugin of this name does the work, always on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: verify_cluster
short_description: Checks a cluster through its API server
version_added: 0.1.0
description:
  - Checks the nodes, the demo and its Service, DNS, the paths between pods on different nodes, NetworkPolicy, and
    kubectl exec, logs and port-forward with a pod on each node,
    and makes a request that M(k8sgu.cluster.verify_node) then looks for in the audit log. Each check waits for what it expects.
  - It never fails because of a check; M(k8sgu.cluster.verify_report) does.
author:
  - The k8sgu authors (@k8sgu)
requirements:
  - PyYAML
attributes:
  check_mode:
    description: In check mode no check is made or returned, since some of them store a visit in the demo.
    support: full
  diff_mode:
    description: Returns details on what has changed.
    support: none
  idempotent:
    description: It stores a visit in the demo, and nothing else.
    support: full
extends_documentation_fragment:
  - k8sgu.cluster.controller
options:
  kubeconfig:
    description: Kubeconfig of an administrator.
    type: path
    required: true
  kubectl:
    description: The program, a path or a name on C(PATH). It is asked for what C(exec), C(logs) and C(port-forward) get from a pod.
    type: path
    default: kubectl
  nodes:
    description: Names of all nodes.
    type: list
    elements: str
    required: true
  domain:
    description: The cluster's domain.
    type: str
    default: cluster.local
  outside_name:
    description:
      - The full name of a control-plane node that only a name server outside the cluster knows, such as C(ip-10-240-0-10.ec2.internal).
        Pods must be able to look it up. Empty where the machines have no such name; then it is not asked for.
    type: str
    default: ""
  api_port:
    description: The port of its API server.
    type: int
    default: 6443
  metrics_server:
    description: Whether the cluster has metrics-server, which is then asked for the metrics of every node and its pods.
    type: bool
    default: false
  timeout:
    description: Seconds that each check waits for what it expects.
    type: int
    default: 120
  stopped_node:
    description: Name of a node that was stopped. The only check is then that the demo's pods leave it.
    type: str
  autoscaling:
    description: Whether to check only that the demo's website gets more pods under load and fewer without. That takes minutes.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Check the cluster
  k8sgu.cluster.verify_cluster:
    kubeconfig: .state/demo/admin.kubeconfig
    nodes: [demo-control-plane-0, demo-worker-0, demo-worker-1]
"""

RETURN = r"""
checks:
  description: Each check with what was expected and what was found.
  returned: success
  type: list
  elements: dict
user_agent:
  description: User agent of a request that the audit log must contain; a different one in every run.
  returned: success
  type: str
"""
