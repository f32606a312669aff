# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter restore_way."""

from __future__ import annotations

import datetime
from dataclasses import asdict
from typing import Any, Callable, Mapping

from ansible.errors import AnsibleFilterError

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import restore_plan

DOCUMENTATION = r"""
name: restore_way
short_description: What a restore of etcd does, and what is lost by it
version_added: 0.1.0
description:
  - Chooses the snapshot, and the node that gets its data. A restore that was begun and cut off goes on with its own.
author:
  - The k8sgu authors (@k8sgu)
positional: wanted
options:
  _input:
    description:
      - Every member, by name, with the result of M(k8sgu.cluster.etcd_snapshot_info), or nothing where it could not be
        asked.
    type: dict
    required: true
  wanted:
    description: Name of the snapshot, or V(latest).
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Say what a restore would do
  ansible.builtin.debug:
    msg: "{{ (found | k8sgu.cluster.restore_way('latest')).lines | join('\n') }}"
"""

RETURN = r"""
_value:
  description: >-
    C(problem), why there is no way; C(lost), what is lost; C(source), the node that gets the data; C(snapshot); C(id)
    and C(bump) for M(k8sgu.cluster.etcd_restore); C(goes_on), whether a restore that was cut off is completed; and
    C(lines), all of it in words.
  type: dict
"""


def restore_way(found: Any, wanted: str) -> dict[str, Any]:
    if not isinstance(found, Mapping):
        raise AnsibleFilterError("restore_way takes a dictionary of members")
    nodes = [{"name": name, "found": told or None} for name, told in found.items()]
    now = datetime.datetime.now(datetime.timezone.utc)
    return asdict(restore_plan.way(nodes, str(wanted), now))


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"restore_way": restore_way}
