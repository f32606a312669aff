# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter flag_problems."""

from __future__ import annotations

from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ansible_collections.k8sgu.cluster.plugins.module_utils._preflight import flags

DOCUMENTATION = r"""
name: flag_problems
short_description: Flags of one's own that contradict a variable or the cluster
version_added: 0.1.0
description:
  - Looks through C(k8sgu_apiserver_extra_flags), C(k8sgu_controller_manager_extra_flags),
    C(k8sgu_scheduler_extra_flags), C(k8sgu_kube_proxy_extra_flags) and C(k8sgu_kubelet_extra_config).
  - Each problem names the variable that says what the flag would say, or why the flag cannot be chosen.
author:
  - The k8sgu authors (@k8sgu)
options:
  _input:
    description: Dictionaries with these variables, one for each host; a variable may be missing.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Refuse flags that contradict the description
  ansible.builtin.assert:
    that: "[{'k8sgu_kubelet_extra_config': k8sgu_kubelet_extra_config}] | k8sgu.cluster.flag_problems | length == 0"
"""

RETURN = r"""
_value:
  description: Every problem, each once.
  type: list
  elements: str
"""


def flag_problems(values: Any) -> list[str]:
    if not isinstance(values, (list, tuple)):
        raise AnsibleFilterError("flag_problems takes a list of dictionaries")
    return flags.check_flags(values)


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"flag_problems": flag_problems}
