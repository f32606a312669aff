# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter capacity_report."""

from __future__ import annotations

import datetime
from dataclasses import asdict
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import capacity_report as reports
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.capacity import CapacityError

DOCUMENTATION = r"""
name: capacity_report
short_description: What etcd's database needs, and when its quota is used up
version_added: 0.1.0
description:
  - Calculates from what one intends (C(k8sgu_etcd_expected)), or where that is empty from what is there.
author:
  - The k8sgu authors (@k8sgu)
options:
  _input:
    description: What one intends; empty for what is there.
    type: dict
    required: true
  metrics:
    description: Result of the task that read an API server's metrics.
    type: dict
    required: true
  told:
    description: By member, the result of M(k8sgu.cluster.etcd_snapshot_info).
    type: dict
    required: true
  earlier:
    description: The last document, as JSON; empty if there is none.
    type: str
    required: true
  quota:
    description: etcd's quota in bytes.
    type: int
    required: true
  defragment_percent:
    description: How much of a member's file has to be free before it is defragmented; 0 for never.
    type: int
    required: true
"""

EXAMPLES = r"""
- name: Show what a cluster of a hundred nodes needs
  ansible.builtin.debug:
    msg: >-
      {{ ({'nodes': 100, 'pods': 3000} | k8sgu.cluster.capacity_report(metrics={}, told={}, earlier='',
      quota=4294967296, defragment_percent=45)).lines }}
"""

RETURN = r"""
_value:
  description: >-
    C(document), for programs; C(lines), the same as a table; C(problems), why the capacity does not do;
    and C(fault), why it cannot be calculated, which leaves the others empty.
  type: dict
"""


def capacity_report(
    expected: Any, metrics: Any, told: Any, earlier: str, quota: int, defragment_percent: int
) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.timezone.utc)
    try:
        made = reports.report(expected, metrics, told, str(earlier), int(quota), int(defragment_percent), now)
    except CapacityError as error:
        return {"document": {}, "lines": [], "problems": [], "fault": str(error)}
    except (ValueError, TypeError, LookupError) as error:
        raise AnsibleFilterError(f"capacity_report: {type(error).__name__}: {error}") from error
    return {**asdict(made), "fault": ""}


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"capacity_report": capacity_report}
