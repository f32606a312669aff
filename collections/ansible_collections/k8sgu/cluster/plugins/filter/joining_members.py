# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter joining_members."""

from __future__ import annotations

from typing import Any, Callable, Mapping

from ansible.errors import AnsibleFilterError

from ansible_collections.k8sgu.cluster.plugins.module_utils._preflight import members

DOCUMENTATION = r"""
name: joining_members
short_description: Which nodes join a living etcd, and who can add them
version_added: 0.1.0
description:
  - Nodes of the group C(etcd) without data, beside members of an etcd that lives, and learners that have no vote yet.
    Members of a cluster that is being born are not among them.
  - Refuse first what P(k8sgu.cluster.living_problems#filter) finds among the members.
author:
  - The k8sgu authors (@k8sgu)
options:
  _input:
    description: What is known about the cluster, in the form for P(k8sgu.cluster.living_problems#filter).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Say who joins
  ansible.builtin.debug:
    msg: "{{ (k8sgu_living | k8sgu.cluster.joining_members).names | join(', ') }}"
"""

RETURN = r"""
_value:
  description: >-
    C(names), in the order in which the nodes have to join; C(without_data), those of them whose directory is empty; and
    C(by), the name of a node whose etcd can add them, empty where nobody joins.
  type: dict
"""


def joining_members(found: Any) -> dict[str, Any]:
    if not isinstance(found, Mapping):
        raise AnsibleFilterError("joining_members takes a dictionary, as living_problems does")
    nodes = found["nodes"]
    names = members.joining(nodes)
    return {
        "names": names,
        "without_data": [
            node["name"] for node in nodes if node["name"] in names and not node["membership"]["etcd"]["data"]
        ],
        "by": members.teller(nodes) if names else "",
    }


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"joining_members": joining_members}
