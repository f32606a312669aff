# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter audit_table."""

from __future__ import annotations

from typing import Any, Callable

DOCUMENTATION = r"""
name: audit_table
short_description: Events of the audit log as a table
version_added: 0.1.0
description:
  - Formats the events that M(k8sgu.cluster.audit_events) found on one or several nodes as lines of text, oldest first.
author:
  - The k8sgu authors (@k8sgu)
options:
  _input:
    description: The events.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Show who did what
  ansible.builtin.debug:
    msg: "{{ found.events | k8sgu.cluster.audit_table }}"
"""

RETURN = r"""
_value:
  description: A line of headings, then a line for each event.
  type: list
  elements: str
"""

_HEADINGS = ("time", "who", "what", "object", "answer", "from")


def audit_table(events: list[dict[str, Any]]) -> list[str]:
    rows = [_HEADINGS]
    for event in sorted(events, key=lambda one: str(one["time"])):
        who = f"{event['user']} as {event['as']}" if event["as"] else event["user"]
        place = "/".join(part for part in (event["namespace"], event["name"]) if part)
        target = f"{event['resource']} {place}".rstrip()
        rows.append((event["time"][:19] + "Z", who, event["verb"], target, str(event["code"]), event["from"]))
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"audit_table": audit_table}
