# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter snapshot_calendar."""

from __future__ import annotations

from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import schedule

DOCUMENTATION = r"""
name: snapshot_calendar
short_description: When a member of etcd takes a snapshot by itself
version_added: 0.1.0
description:
  - Gives each member its own times, which share the interval evenly, in the form of systemd's C(OnCalendar).
author:
  - The k8sgu authors (@k8sgu)
positional: member, minutes
options:
  _input:
    description: The names of all members.
    type: list
    elements: str
    required: true
  member:
    description: The name of the member.
    type: str
    required: true
  minutes:
    description: The interval, a number of minutes that fits into an hour or a day evenly.
    type: int
    required: true
"""

EXAMPLES = r"""
- name: Show when this member takes its snapshots
  ansible.builtin.debug:
    msg: "{{ groups['etcd'] | k8sgu.cluster.snapshot_calendar(inventory_hostname, 15) }}"
"""

RETURN = r"""
_value:
  description: The times, in UTC, such as V(*-*-* *:05/15:00 UTC).
  type: str
"""


def snapshot_calendar(members: Any, member: Any, minutes: Any) -> str:
    names = [str(name) for name in members]
    if str(member) not in names:
        raise AnsibleFilterError(f"snapshot_calendar: {member} is not among the members ({', '.join(names) or 'none'})")
    interval = int(minutes)
    problem = "0 is for none" if interval == 0 else schedule.problem(interval)
    if problem:
        raise AnsibleFilterError(f"snapshot_calendar: {problem}")
    return schedule.calendar(interval, str(member), names)


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"snapshot_calendar": snapshot_calendar}
