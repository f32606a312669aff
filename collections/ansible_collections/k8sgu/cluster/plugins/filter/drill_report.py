# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter drill_report."""

from __future__ import annotations

import datetime
import json
from dataclasses import asdict
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import drill_report as reports
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.drill_result import Promised

DOCUMENTATION = r"""
name: drill_report
short_description: What would be lost by a restore of etcd, how long it would take, and what is in its way
version_added: 0.1.0
description:
  - Holds what M(k8sgu.cluster.etcd_drill) returned against what is promised, and tries the encryption keys of the
    state directory on the Secret that it read.
author:
  - The k8sgu authors (@k8sgu)
options:
  _input:
    description: Result of M(k8sgu.cluster.etcd_drill).
    type: dict
    required: true
  node:
    description: The node that it ran on.
    type: str
    required: true
  keys:
    description: Content of the file of encryption keys; empty if there is none.
    type: str
    required: true
  rpo_minutes:
    description: Minutes of writes that may be lost.
    type: float
    required: true
  rto_seconds:
    description: Seconds after which the restored etcd has to serve.
    type: float
    required: true
  last_restore:
    description: What the last restore left, as JSON; empty if there was none.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show what a restore would give
  ansible.builtin.debug:
    msg: "{{ report.lines }}"
  vars:
    report: >-
      {{ drill | k8sgu.cluster.drill_report(node='demo-control-plane-0', keys=keys, rpo_minutes=35, rto_seconds=120,
      last_restore='') }}
"""

RETURN = r"""
_value:
  description: C(document), for programs; C(lines), the same in words; and C(problems), why the drill fails.
  type: dict
"""


def drill_report(
    told: Any, node: str, keys: str, rpo_minutes: float, rto_seconds: float, last_restore: str
) -> dict[str, Any]:
    try:
        promised = Promised(float(rpo_minutes), float(rto_seconds))
        earlier = json.loads(last_restore) if last_restore else {}
        now = datetime.datetime.now(datetime.timezone.utc)
        return asdict(reports.report(str(node), told, str(keys), promised, earlier, now))
    except (ValueError, TypeError, LookupError) as error:
        raise AnsibleFilterError(f"drill_report: {type(error).__name__}: {error}") from error


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"drill_report": drill_report}
