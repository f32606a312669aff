#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation; the action plugin of this name does the work, always on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node_drain
short_description: Takes nodes out of service and back, without harm to their pods
version_added: 0.1.0
description:
  - Cordons nodes, evicts their pods by the eviction API, which respects PodDisruptionBudgets, and waits until they are gone. It does not
    end or restart the node.
  - Pods of DaemonSets, static pods and pods that have ended are left. All others are evicted, also those with an C(emptyDir), whose
    content is lost, and those that no controller recreates; a warning names them.
  - If a pod is not gone in time, all nodes that were cordoned are uncordoned, and the error names the pod, the budget that keeps
    it and what to do.
  - A node that is not Ready for 20 seconds is not drained, since its pods do not work and nothing there ends them; a warning says so.
    A node that never joined the cluster has nothing to drain.
  - A node that this module cordoned has the annotation C(k8sgu.io/cordoned). One that someone else cordoned stays cordoned.
author:
  - The k8sgu authors (@k8sgu)
requirements:
  - PyYAML
seealso:
  - name: API-initiated eviction
    description: What an eviction does, and when it is refused.
    link: https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/
attributes:
  check_mode:
    description: Can run in check mode and return what it would do.
    support: full
  diff_mode:
    description: Shows the plan, which pods are evicted and which are left, each with its reason.
    support: full
  idempotent:
    description: A drained node is not changed.
    support: full
extends_documentation_fragment:
  - k8sgu.cluster.controller
options:
  kubeconfig:
    description:
      - Kubeconfig of an administrator.
      - If the file is missing, there is no cluster yet, and O(state=drained) does nothing.
    type: path
    required: true
  state:
    description:
      - V(drained) cordons all the nodes first, and then evicts their pods, O(batch) nodes at a time.
      - V(serving) uncordons those that this module cordoned.
      - V(absent) removes the Nodes that this module drained, with their leases and VolumeAttachments. The machines must be gone.
      - V(matching) removes the Nodes whose machine is gone, by what O(instances) says, likewise. A machine that has the name of an
        earlier one gets a Node of its own.
    type: str
    choices: [drained, serving, absent, matching]
    default: drained
  nodes:
    description:
      - Names of the nodes. With O(state=serving) by default those of O(record).
    type: list
    elements: str
  returning:
    description:
      - Those of O(nodes) that come back as new machines with the same names. At most one of them that serves is drained in a run, and none
        while another of O(members) leaves, has not joined yet or is not Ready. RV(held) has the others.
    type: list
    elements: str
    default: []
  instances:
    description:
      - EC2's ids of the machines that there are, by node.
      - A Node that another machine registered (C(spec.providerID)) is removed. One without an id of AWS is not.
    type: dict
  complete:
    description:
      - Whether O(instances) has every machine, also those that are stopped. Then Nodes with the label C(k8sgu.io/pool) that it does not
        have are removed too, and the VolumeAttachments of Nodes that are not there.
    type: bool
    default: false
  members:
    description: Names of all nodes that the cluster should have.
    type: list
    elements: str
    default: []
  lives:
    description: Whether the cluster is known to have come up. With V(false), nothing is drained if the API server does not answer.
    type: bool
    default: true
  reason:
    description: The reason, for the annotation on the Node.
    type: str
    default: drained by k8sgu
  record:
    description:
      - A file with the names of the nodes that this module has cordoned, so that the next run finds those of a killed one. It
        exists only while there are such nodes.
    type: path
    required: true
  timeout:
    description:
      - Seconds that the pods of one node have to leave.
      - With V(0) nothing is drained, and the API server is not used.
    type: int
    default: 300
  batch:
    description: How many nodes are drained at the same time. PodDisruptionBudgets are kept all the same.
    type: int
    default: 1
  request_timeout:
    description: Seconds that the API server may be unreachable or answer that it is overloaded before the task fails.
    type: int
    default: 30
"""

EXAMPLES = r"""
- name: Drain a node
  k8sgu.cluster.node_drain:
    kubeconfig: .state/demo/admin.kubeconfig
    record: .state/demo/cordoned.json
    nodes: [demo-worker-1]

- name: Put it back into service
  k8sgu.cluster.node_drain:
    kubeconfig: .state/demo/admin.kubeconfig
    record: .state/demo/cordoned.json
    nodes: [demo-worker-1]
    state: serving

- name: Remove the Node of a worker whose instance was terminated, before the new one joins
  k8sgu.cluster.node_drain:
    kubeconfig: .state/demo/admin.kubeconfig
    record: .state/demo/cordoned.json
    instances: {demo-control-plane-0: i-0123456789abcdef0, demo-worker-0: i-0fedcba9876543210}
    state: matching
"""

RETURN = r"""
plan:
  description: What is done, or in check mode would be, to each node and pod, each with its reason.
  returned: success
  type: list
  elements: str
  sample: ["cordon node/demo-worker-1  # it takes no more pods"]
drained:
  description: The nodes that can be ended now, including those that had nothing to drain.
  returned: when O(state=drained)
  type: list
  elements: str
held:
  description: Nodes of O(returning) that were not drained, each with the reason.
  returned: when O(state=drained)
  type: dict
nodes:
  description: The Nodes that stay, by name.
  returned: when O(state=matching)
  type: list
  elements: str
  sample: [demo-control-plane-0, demo-worker-0]
evicted:
  description: The pods that were evicted, as namespace and name.
  returned: when O(state=drained), on failure too
  type: list
  elements: str
"""
