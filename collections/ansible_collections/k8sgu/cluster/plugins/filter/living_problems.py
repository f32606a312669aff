# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter living_problems."""

from __future__ import annotations

from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ansible_collections.k8sgu.cluster.plugins.module_utils._preflight import living, members

DOCUMENTATION = r"""
name: living_problems
short_description: Finds changes that a living cluster cannot make
version_added: 0.1.0
description:
  - Compares a description with what the cluster was made with, according to its nodes (M(k8sgu.cluster.node_facts)) and
    the record on the controller.
  - Each problem has both values and what to do. M(k8sgu.cluster.preflight_description) finds the same problems among
    others.
author:
  - The k8sgu authors (@k8sgu)
options:
  _input:
    description:
      - C(values) of the description by option, C(count) of control-plane nodes or null, C(record) and C(record_file) on
        the controller, and C(nodes), each with C(name), C(control_plane), C(etcd), C(address), C(volume) and
        C(membership), null for one that was not read. C(upgrading) says that the release is changed by V(upgrade.yml),
        C(restoring) that a restore is being completed.
    type: dict
    required: true
  of:
    description: V(description) for options that are fixed, V(members) for members of etcd that must not start.
    type: str
    choices: [description, members]
    default: description
"""

EXAMPLES = r"""
- name: Refuse changes that a living cluster cannot make
  ansible.builtin.assert:
    that: k8sgu_living | k8sgu.cluster.living_problems | length == 0
"""

RETURN = r"""
_value:
  description: Every problem.
  type: list
  elements: str
"""


def living_problems(found: Any, of: str = "description") -> list[str]:
    if not isinstance(found, dict) or of not in ("description", "members"):
        raise AnsibleFilterError("living_problems needs a dictionary, and description or members")
    if of == "members":
        return members.check_members(
            found["record"], found["nodes"], found["record_file"], bool(found.get("restoring"))
        )
    values = found["values"]
    # A value from the command line is text.
    count = None if found["count"] is None else int(found["count"])
    return [
        *living.check_cluster(str(values["k8sgu_cluster_name"]), found["nodes"]),
        *living.check_living(values, count, found["record"], found["nodes"], bool(found.get("upgrading"))),
    ]


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"living_problems": living_problems}
