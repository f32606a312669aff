#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation; the action plugin of this name does the work, always on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: workload_restart
short_description: Restarts, by rolling updates, the workloads whose pods talk to the API server
version_added: 0.1.0
description:
  - Clients read the API's authority only when they start, and some their token too. This restarts every Deployment, StatefulSet and DaemonSet
    of whose pods one has a token of a service account or the API's authority, in a volume or in its environment.
  - It sets the annotation C(k8sgu.io/restarted-for) of the pod template to O(mark) and waits for the rollout, as C(kubectl rollout restart) and
    C(kubectl rollout status) do. What the workload's strategy keeps available stays so.
  - A pod with that annotation is not due, so that a second run does nothing, and one after a run that was killed goes on with the rest.
    Neither are static pods, and pods that have ended or terminate.
  - A workload whose rollout is not complete for 30 seconds is refused before anything is changed, unless an earlier run with the same O(mark)
    has begun it. In check mode it is refused at once.
  - If a rollout fails or does not go on, those that are under way are waited for, and no other is begun.
  - A pod that reads the API's address and credentials from the node's files is not known here.
author:
  - The k8sgu authors (@k8sgu)
requirements:
  - PyYAML
seealso:
  - module: k8sgu.cluster.pod_credentials
  - name: Performing a rolling update
    description: What a rolling update does, and what keeps it available.
    link: https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#rolling-update-deployment
attributes:
  check_mode:
    description: Can run in check mode and return what it would restart.
    support: full
  diff_mode:
    description: Shows the plan, what is restarted and which pods are left, each with its reason.
    support: full
  idempotent:
    description: What was restarted for a mark is not restarted for it again.
    support: full
extends_documentation_fragment:
  - k8sgu.cluster.controller
options:
  kubeconfig:
    description: Kubeconfig of an administrator.
    type: path
    required: true
  mark:
    description: What tells this restart from others, such as a digest of the authorities. It becomes the annotation's value.
    type: str
    required: true
  ignore:
    description: Workloads to leave, each as V(namespace/name) or V(kind/namespace/name). RV(left) has their pods.
    type: list
    elements: str
    default: []
  batch:
    description: How many workloads are restarted at the same time.
    type: int
    default: 5
  timeout:
    description: Seconds that a rollout may go without progress, which is one more pod that is updated, available or gone.
    type: int
    default: 300
  request_timeout:
    description: Seconds that the API server may be unreachable or answer that it is overloaded before the task fails.
    type: int
    default: 30
"""

EXAMPLES = r"""
- name: Have every client of the API server read the new authority
  k8sgu.cluster.workload_restart:
    kubeconfig: .state/demo/admin.kubeconfig
    mark: "{{ authorities | hash('sha256') }}"
  register: restart

- name: Name what has to be restarted by hand
  ansible.builtin.debug:
    msg: "{{ restart.left }}"
"""

RETURN = r"""
plan:
  description: What is restarted, or in check mode would be, and what is left, each with its reason.
  returned: success, and if a workload is refused or its rollout fails
  type: list
  elements: str
restarted:
  description:
    - The workloads whose rollout is complete, those that an earlier run has begun included, as kind, namespace and name.
    - In check mode those that would be restarted.
  returned: as RV(plan)
  type: list
  elements: str
  sample: [Deployment/kube-system/coredns]
left:
  description: Pods that have what is replaced and cannot be restarted by a rolling update, sorted.
  returned: as RV(plan)
  type: list
  elements: dict
  contains:
    pod: {description: Namespace and name of the pod., type: str, sample: shop/console}
    why:
      description: Why not, and what to do.
      type: str
      sample: "no controller has it: delete it, and make it again"
"""
