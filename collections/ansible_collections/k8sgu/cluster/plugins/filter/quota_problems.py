# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter quota_problems."""

from __future__ import annotations

from typing import Any, Callable

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import quota

DOCUMENTATION = r"""
name: quota_problems
short_description: Why etcd cannot have a quota
version_added: 0.1.0
description:
  - The preflight check refuses such a quota too. This is for playbooks that come without it.
author:
  - The k8sgu authors (@k8sgu)
options:
  _input:
    description: The quota in bytes (C(k8sgu_etcd_quota_bytes)).
    type: int
    required: true
"""

EXAMPLES = r"""
- name: Refuse a quota that etcd does not bear
  ansible.builtin.assert:
    that: k8sgu_etcd_quota_bytes | k8sgu.cluster.quota_problems | length == 0
"""

RETURN = r"""
_value:
  description: The problem with its way out; empty if there is none.
  type: list
  elements: str
"""


def quota_problems(given: Any) -> list[str]:
    fault = quota.fault(given)
    return [fault] if fault else []


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"quota_problems": quota_problems}
