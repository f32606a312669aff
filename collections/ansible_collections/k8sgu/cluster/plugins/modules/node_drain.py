#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_drain
short_description: Takes nodes out of service without harm to what runs on them, and back
version_added: 0.1.0
description:
  - Cordons nodes, evicts their pods by the eviction API, so that PodDisruptionBudgets are kept, and waits until they are gone. What ends
    or restarts the node comes after it, and is somebody else's.
  - Pods of DaemonSets, static pods and pods that have ended are left. All others are evicted, also those with an C(emptyDir), whose
    content is lost, and those that no controller makes again; a warning names them.
  - When a pod is not gone in time, all nodes that were cordoned take pods again, and the failure names the pod, the budget that holds
    it and what can be done.
  - A node that is not Ready for 20 seconds is not drained, since its pods serve nobody and nobody there ends them; a warning says so.
    A node that never joined the cluster has nothing to drain.
  - A node that was cordoned from here has the annotation C(k8sgu.io/cordoned). One that somebody else cordoned stays cordoned.
  - It runs on the controller.
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
    description: A node that is drained is left as it is.
    support: full
options:
  kubeconfig:
    description:
      - Kubeconfig of an administrator.
      - Where the file is missing there is no cluster yet, and with O(state=drained) nothing is done.
    type: path
    required: true
  state:
    description:
      - V(drained) cordons the nodes, all of them first, and then evicts the pods of one after the other.
      - V(serving) lets those of them take pods again that were cordoned from here.
      - V(absent) removes the Nodes, which were drained from here, with their leases. The machines have to be gone.
    type: str
    choices: [drained, serving, absent]
    default: drained
  nodes:
    description:
      - Names of the nodes. With O(state=serving) by default those of O(record).
    type: list
    elements: str
  returning:
    description:
      - Those of O(nodes) that come back, as new machines of the same names. Of these one that serves is drained at most, and none while
        another of O(members) leaves, has not joined yet or is not Ready. RV(held) has the others.
    type: list
    elements: str
    default: []
  members:
    description: Names of all nodes that the cluster is to have.
    type: list
    elements: str
    default: []
  lives:
    description: Whether the cluster is known to have come up. With V(false) an API server that does not answer means that nothing is to be drained.
    type: bool
    default: true
  reason:
    description: Why, for the annotation on the Node.
    type: str
    default: drained by k8sgu
  record:
    description:
      - A file with the names of the nodes that are cordoned from here, so that what a killed run has cordoned is found by the next. It
        is there only as long as there are such nodes.
    type: path
    required: true
  timeout:
    description:
      - Seconds that the pods of one node have to be gone.
      - With V(0) nothing is drained, and the API server is not asked.
    type: int
    default: 300
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

- name: Let it take pods again
  k8sgu.cluster.node_drain:
    kubeconfig: .state/demo/admin.kubeconfig
    record: .state/demo/cordoned.json
    nodes: [demo-worker-1]
    state: serving
"""

RETURN = r"""
plan:
  description: What is done, or in check mode would be, to each node and pod, each with its reason.
  returned: success
  type: list
  elements: str
  sample: ["cordon node/demo-worker-1  # it takes no more pods"]
drained:
  description: The nodes that nothing keeps from being ended, those among them that had nothing to drain too.
  returned: when O(state=drained)
  type: list
  elements: str
held:
  description: Nodes of O(returning) that were left as they are, each with the reason.
  returned: when O(state=drained)
  type: dict
evicted:
  description: The pods that were evicted, as namespace and name.
  returned: when O(state=drained), on failure too
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.k8sgu.cluster.plugins.module_utils._drain.run import SPECIFICATION, run
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError


def main() -> None:
    module = AnsibleModule(**SPECIFICATION, supports_check_mode=True)
    try:
        outcome = run(module.params, module.check_mode)
    except KubernetesError as error:
        module.fail_json(msg=str(error), **getattr(error, "result", {}))
    for warning in outcome.warnings:
        module.warn(warning)
    module.exit_json(**outcome.result)


if __name__ == "__main__":
    main()
