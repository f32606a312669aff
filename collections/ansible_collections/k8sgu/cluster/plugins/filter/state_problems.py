# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter state_problems."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

from ansible_collections.k8sgu.cluster.plugins.module_utils._preflight import state

DOCUMENTATION = r"""
name: state_problems
short_description: Why a state directory on the controller cannot be used
version_added: 0.1.0
description:
  - Finds a path that is a file, a directory that this user cannot read and write or make, secrets that are open to
    others, and the state of another cluster, by C(place.json), C(admin.kubeconfig) or the CA's certificate.
author:
  - The k8sgu authors (@k8sgu)
options:
  _input:
    description: The state directory, which need not exist yet.
    type: path
    required: true
  cluster:
    description: Name of the cluster for which it will be used.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Refuse a state directory that cannot be used
  ansible.builtin.assert:
    that: k8sgu_state_dir | k8sgu.cluster.state_problems(k8sgu_cluster_name) | length == 0
"""

RETURN = r"""
_value:
  description: The problem, if any.
  type: list
  elements: str
"""


def state_problems(directory: Any, cluster: Any) -> list[str]:
    # Relative to the working directory, as in Ansible's lookups and modules on the controller.
    return state.check_state(Path(str(directory)).expanduser().absolute(), str(cluster))


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"state_problems": state_problems}
