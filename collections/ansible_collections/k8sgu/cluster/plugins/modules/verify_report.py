#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation; the action plugin of this name does the work, always on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: verify_report
short_description: Writes the checks of a cluster to a JUnit file and fails if one of them failed
version_added: 0.1.0
description:
  - Its input are the checks of M(k8sgu.cluster.verify_node) and M(k8sgu.cluster.verify_cluster).
author:
  - The k8sgu authors (@k8sgu)
attributes:
  check_mode:
    description: Can run in check mode; it then writes no file.
    support: full
  diff_mode:
    description: Returns details on what has changed.
    support: none
  idempotent:
    description: It is a report and never counts as a change.
    support: full
extends_documentation_fragment:
  - k8sgu.cluster.controller
options:
  checks:
    description: The checks.
    type: list
    elements: dict
    required: true
  junit:
    description: The JUnit file to write, mode V(0644).
    type: path
    required: true
  suite:
    description: Name of the suite in the file.
    type: str
    default: verify
"""

EXAMPLES = r"""
- name: Report what was proven
  k8sgu.cluster.verify_report:
    checks: "{{ verify_cluster_result.checks }}"
    junit: .state/demo/verify.xml
"""

RETURN = r"""
passed:
  description: Number of checks that passed.
  returned: always
  type: int
missed:
  description: Number of checks that failed.
  returned: always
  type: int
"""
