# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter upgrade_steps."""

from __future__ import annotations

from typing import Any, Callable, Mapping

from ansible.errors import AnsibleFilterError

from ansible_collections.k8sgu.cluster.plugins.module_utils._upgrade import plan

DOCUMENTATION = r"""
name: upgrade_steps
short_description: What is left of an upgrade, by node
version_added: 0.1.0
description:
  - Compares the programs that nodes run with those of a release.
author:
  - The k8sgu authors (@k8sgu)
positional: way, release
options:
  _input:
    description: What is known about the cluster, every node read, as for P(k8sgu.cluster.living_problems#filter).
    type: dict
    required: true
  way:
    description: The way, of P(k8sgu.cluster.upgrade_way#filter).
    type: dict
    required: true
  release:
    description: The release to which it leads, of P(k8sgu.cluster.release#lookup).
    type: dict
    required: true
  cordoned:
    description: Nodes that a run which was cut off has emptied, and that do not serve yet.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Say what is left to do
  ansible.builtin.debug:
    msg: "{{ (k8sgu_living | k8sgu.cluster.upgrade_steps(way, k8sgu_release)).lines }}"
"""

RETURN = r"""
_value:
  description: >-
    C(etcd), C(control_plane) and C(nodes), each a dictionary of nodes with their programs and both versions; C(later),
    the same for nodes that wait until the upgrade is finished; and C(lines), all of it in words, in the order in which
    it is done.
  type: dict
"""


def upgrade_steps(found: Any, way: Any, release: Any, cordoned: Any = ()) -> dict[str, Any]:
    if not isinstance(found, Mapping) or not isinstance(way, Mapping) or not isinstance(release, Mapping):
        raise AnsibleFilterError("upgrade_steps takes a dictionary, as living_problems does, a way and a release")
    going = plan.Way(**way)
    left = plan.remaining(found["nodes"], release, going, list(cordoned))
    return {**left, "lines": plan.lines(going, left)}


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"upgrade_steps": upgrade_steps}
