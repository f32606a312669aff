#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation; the action plugin of this name does the work, always on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight_description
short_description: Checks a cluster's description and its nodes before anything is changed
version_added: 0.1.0
description:
  - Looks for unknown variables, a version without a release file, ranges that overlap or are too small, invalid names, flags that contradict a variable and
    an even number of etcd members, and checks what M(k8sgu.cluster.preflight_node) read from the nodes.
  - For a living cluster, also looks for changes that it cannot make, such as another range of Services, and for members of etcd that lost their data.
  - Fails once, with all problems. Each names the variable or the node, what was found, and what to do.
author:
  - The k8sgu authors (@k8sgu)
requirements:
  - PyYAML
extends_documentation_fragment:
  - k8sgu.cluster.controller
  - k8sgu.cluster.read_only
options:
  values:
    description: Variables of the description by name; V(null) for one that is not set, which then gets the default of the argument specs.
    type: dict
    required: true
  seen:
    description: Names of all variables that are set; those with the prefix C(k8sgu_) must be known.
    type: list
    elements: str
    required: true
  nodes:
    description:
      - The inventory's nodes, each with C(name), C(control_plane), C(etcd), C(address), C(connection) and C(probe), the result of
        M(k8sgu.cluster.preflight_node). One without C(probe) is checked by the rest.
      - C(flags), if there, is a dictionary in the form of P(k8sgu.cluster.flag_problems#filter).
    type: list
    elements: dict
    default: []
  port_table:
    description: Rows of P(k8sgu.cluster.port_table#lookup).
    type: list
    elements: dict
    default: []
  roles_dir:
    description: Directory of the roles, whose argument specs define the variables.
    type: path
    required: true
  described:
    description: Whether the nodes will be made from the counts in O(values). Otherwise they are those in O(nodes).
    type: bool
    default: false
  living:
    description: What is known about the living cluster, in the form for P(k8sgu.cluster.living_problems#filter). Without it there is no cluster yet.
    type: dict
"""

EXAMPLES = r"""
- name: Check a description
  k8sgu.cluster.preflight_description:
    values: "{{ preflight_values }}"
    seen: "{{ query('ansible.builtin.varnames', '^k8sgu_') }}"
    roles_dir: "{{ role_path | dirname }}"
    described: true
"""

RETURN = r"""
msg:
  description: All problems, one per line.
  returned: failure
  type: str
"""
