# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter lives."""

from __future__ import annotations

from typing import Any, Callable, Mapping

from ansible.errors import AnsibleFilterError

from ansible_collections.k8sgu.cluster.plugins.module_utils._preflight import living

DOCUMENTATION = r"""
name: lives
short_description: Whether a cluster lives
version_added: 0.1.0
description:
  - A cluster lives from the first quorum of its etcd on, as the record on the controller or a node shows.
  - Without nodes there is no cluster, whatever the record says.
author:
  - The k8sgu authors (@k8sgu)
options:
  _input:
    description: What is known about the cluster, in the form for P(k8sgu.cluster.living_problems#filter).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Say whether there is a cluster to lose
  ansible.builtin.debug:
    msg: "{{ k8sgu_living | k8sgu.cluster.lives }}"
"""

RETURN = r"""
_value:
  description: Whether it lives.
  type: bool
"""


def lives(found: Any) -> bool:
    if not isinstance(found, Mapping):
        raise AnsibleFilterError("lives takes a dictionary, as living_problems does")
    return living.lives(found["record"], found["nodes"])


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"lives": lives}
