# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter upgrade_way."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Callable, Mapping

from ansible.errors import AnsibleFilterError

from ansible_collections.k8sgu.cluster.plugins.module_utils._upgrade import plan

DOCUMENTATION = r"""
name: upgrade_way
short_description: From which release to which an upgrade leads
version_added: 0.1.0
description:
  - Finds from what the nodes show which release the cluster comes from and goes to. One that was cut off between two
    releases goes on, in either direction.
author:
  - The k8sgu authors (@k8sgu)
positional: wanted
options:
  _input:
    description: What is known about the cluster, every node read, as for P(k8sgu.cluster.living_problems#filter).
    type: dict
    required: true
  wanted:
    description: The version in the description.
    type: str
    required: true
  back:
    description: Whether it is to return to the release before.
    type: bool
    default: false
  finish:
    description: Whether the control plane is to behave as the new release, after which nodes can follow.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Say where it leads
  ansible.builtin.debug:
    msg: "{{ (k8sgu_living | k8sgu.cluster.upgrade_way('1.37.2')).origin }}"
"""

RETURN = r"""
_value:
  description: >-
    C(origin) and C(target), equal if nothing is to be changed; C(direction), V(forward) or V(back); C(emulated), the
    minor version as which the control plane behaves until the upgrade is finished; and C(problem), why there is no such
    way, or empty.
  type: dict
"""


def upgrade_way(found: Any, wanted: Any, back: Any = False, finish: Any = False) -> dict[str, Any]:
    if not isinstance(found, Mapping):
        raise AnsibleFilterError("upgrade_way takes a dictionary, as living_problems does")
    return asdict(plan.way(found["nodes"], str(wanted), bool(back), bool(finish)))


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"upgrade_way": upgrade_way}
