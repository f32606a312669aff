# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter flags."""

from __future__ import annotations

from typing import Any, Callable, Mapping

from ansible.errors import AnsibleFilterError

DOCUMENTATION = r"""
name: flags
short_description: Formats the flags of a program as lines of its unit
version_added: 0.1.0
description:
  - One line for each flag, C(--name=value), all but the last with a backslash at the end, for C(ExecStart=) of a
    unit. Booleans are written in lower case.
author:
  - The k8sgu authors (@k8sgu)
options:
  _input:
    description: Flags without their dashes, and their values, in the order in which they are written.
    type: dict
    required: true
"""

EXAMPLES = r"""
# In a template:
# ExecStart=/usr/bin/etcd \
# {{ {'name': 'a', 'pre-vote': true} | k8sgu.cluster.flags }}
"""

RETURN = r"""
_value:
  description: The lines, each indented by two spaces.
  type: str
"""


def flags(values: Mapping[str, Any]) -> str:
    if not isinstance(values, Mapping):
        raise AnsibleFilterError(f"flags takes a dictionary of flags and values, not {values!r}")
    return " \\\n".join(
        f"  --{name}={str(value).lower() if isinstance(value, bool) else value}" for name, value in values.items()
    )


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"flags": flags}
