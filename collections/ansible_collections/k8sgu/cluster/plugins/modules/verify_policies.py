#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation; the action plugin of this name does the work, always on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: verify_policies
short_description: Checks by pods whether NetworkPolicies are enforced
version_added: 0.1.0
description:
  - Tries a matrix of allowed and refused paths, by pod, namespace, range, port, ingress and egress, DNS, and the instance's metadata
    service. The role verify makes the pods and policies (C(tasks_from=network_policy.yml)).
  - It changes nothing and never fails because of a check; M(k8sgu.cluster.verify_report) does.
author:
  - The k8sgu authors (@k8sgu)
requirements:
  - PyYAML
attributes:
  check_mode:
    description: In check mode nothing is tried.
    support: none
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
  domain:
    description: The cluster's DNS domain.
    type: str
    default: cluster.local
  timeout:
    description: Seconds that all paths together have until they are as expected.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Check NetworkPolicies
  k8sgu.cluster.verify_policies:
    kubeconfig: .state/demo/admin.kubeconfig
"""

RETURN = r"""
checks:
  description: Each check with what was expected and what was found.
  returned: success
  type: list
  elements: dict
"""
