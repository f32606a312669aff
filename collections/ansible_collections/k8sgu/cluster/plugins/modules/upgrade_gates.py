#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation; the action plugin of this name does the work, always on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: upgrade_gates
short_description: Judges whether a cluster can get another release
version_added: 0.1.0
description:
  - Judges by gates what M(k8sgu.cluster.upgrade_facts) read on the nodes, what the API server has, and the description. All problems are
    told together, each with what it is about and the way out.
  - Changes that an upgrade makes are tried with the API server's dry run, which finds admission webhooks that would block them.
  - A cluster in the middle of an upgrade that was cut off passes, so that it can go on, to either of its two ends.
author:
  - The k8sgu authors (@k8sgu)
requirements:
  - cryptography
  - PyYAML
seealso:
  - module: k8sgu.cluster.upgrade_facts
  - name: Version skew policy
    description: Which versions may run beside each other.
    link: https://kubernetes.io/releases/version-skew-policy/
attributes:
  check_mode:
    description: Returns the same in check mode as otherwise.
    support: full
  diff_mode:
    description: Returns details on what has changed.
    support: none
  idempotent:
    description: Changes nothing.
    support: full
extends_documentation_fragment:
  - k8sgu.cluster.controller
options:
  kubeconfig:
    description: Kubeconfig of an administrator.
    type: path
    required: true
  runs:
    description: The version that runs, such as V(1.36.4). In the middle of an upgrade, the one from which it came.
    type: str
    required: true
  target:
    description: The version that the cluster is to get.
    type: str
    required: true
  direction:
    description: V(back) for the way to an older release.
    type: str
    choices: [forward, back]
    default: forward
  staged:
    description: Whether the release's programs and images were brought to the nodes already. Then missing ones are a problem.
    type: bool
    default: false
  releases_dir:
    description: The directory of the release files.
    type: path
    required: true
  nodes:
    description:
      - For each node of the inventory its C(role), V(control_plane) or V(worker), and its C(facts), as M(k8sgu.cluster.upgrade_facts)
        returned them. A node without facts did not answer.
    type: dict
    required: true
  drained:
    description: The nodes that will be drained; all by default.
    type: list
    elements: str
  flags:
    description: For each host the variables with flags of the user's own, such as C(k8sgu_apiserver_extra_flags).
    type: dict
    default: {}
  description:
    description: Problems of the description that were found already, such as a value that cannot change.
    type: list
    elements: str
    default: []
  infrastructure:
    description: The result of M(k8sgu.cluster.ec2_cluster) with O(k8sgu.cluster.ec2_cluster#module:state=compared), or its failure.
    type: dict
    default: {}
  state_dir:
    description: The cluster's state directory, whose certificates have to last too.
    type: path
  verify:
    description: The checks of M(k8sgu.cluster.verify_cluster) and M(k8sgu.cluster.verify_node); those that passed are left out.
    type: list
    elements: raw
    default: []
  patience:
    description: Seconds that the API server may be unreachable.
    type: int
    default: 20
  refuse:
    description: Whether to fail with every problem in one message.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Judge whether the cluster can get 1.37.2
  k8sgu.cluster.upgrade_gates:
    kubeconfig: .state/demo/admin.kubeconfig
    runs: 1.36.4
    target: 1.37.2
    releases_dir: "{{ k8sgu_releases_dir }}"
    nodes:
      demo-control-plane-0: {role: control_plane, facts: "{{ hostvars['demo-control-plane-0'].read.facts }}"}
"""

RETURN = r"""
gates:
  description: Each gate with C(gate), its name, C(passed), C(why), what was seen, and C(problems).
  returned: success
  type: list
  elements: dict
problems:
  description: The problems of all gates.
  returned: success
  type: list
  elements: str
count:
  description: The number of RV(problems).
  returned: success
  type: int
  sample: 0
fetched:
  description: Whether every program and image of the release is on its nodes.
  returned: success
  type: bool
refusal:
  description: All problems as one message; empty if there are none.
  returned: success
  type: str
table:
  description: One line for each gate.
  returned: success
  type: list
  elements: str
"""
