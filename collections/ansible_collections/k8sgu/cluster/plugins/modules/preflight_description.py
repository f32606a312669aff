#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight_description
short_description: Judges a cluster's description and its nodes before anything is changed
version_added: 0.1.0
description:
  - Looks for unknown variables, a version without a release file, ranges that overlap or are too small, illegal names and an even number of etcd
    members, and judges what M(k8sgu.cluster.preflight_node) read of the nodes.
  - Of a living cluster, also looks for changes that it cannot take, such as another range of Services, and for members of etcd that lost their data.
  - Fails once, with every problem that was found. Each names the variable or the node, what was seen, and the way out.
author:
  - The k8sgu authors (@k8sgu)
requirements:
  - PyYAML
extends_documentation_fragment:
  - k8sgu.cluster.read_only
attributes:
  platform:
    description: The controller.
    support: full
    platforms: posix
options:
  values:
    description: Variables of the description by name; V(null) for one that is not set, of which the default of the argument specs counts.
    type: dict
    required: true
  seen:
    description: Names of all variables that are set; those with the prefix C(k8sgu_) have to be known.
    type: list
    elements: str
    required: true
  nodes:
    description:
      - The inventory's nodes, each with C(name), C(control_plane), C(etcd), C(address), C(connection) and C(probe), the result of
        M(k8sgu.cluster.preflight_node). One without C(probe) is judged by the rest.
    type: list
    elements: dict
    default: []
  port_table:
    description: Rows of P(k8sgu.cluster.port_table#lookup).
    type: list
    elements: dict
    default: []
  roles_dir:
    description: Directory of the roles, whose argument specs say which variables there are.
    type: path
    required: true
  described:
    description: Whether the nodes are to be made of the counts in O(values). Otherwise they are those in O(nodes).
    type: bool
    default: false
  living:
    description: What is known of the living cluster, as P(k8sgu.cluster.living_problems#filter) takes it. Without it there is none.
    type: dict
"""

EXAMPLES = r"""
- name: Judge a description
  k8sgu.cluster.preflight_description:
    values: "{{ preflight_values }}"
    seen: "{{ query('ansible.builtin.varnames', '^k8sgu_') }}"
    roles_dir: "{{ role_path | dirname }}"
    described: true
"""

RETURN = r"""
msg:
  description: Every problem, one on a line.
  returned: failure
  type: str
"""
