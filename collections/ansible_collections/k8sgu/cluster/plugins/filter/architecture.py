# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter architecture."""

from __future__ import annotations

from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster.architectures import NAMES, mirror_name

DOCUMENTATION = r"""
name: architecture
short_description: The mirror's name of a machine's architecture
version_added: 0.1.0
description:
  - Accepts the kernel's, EC2's or the mirror's name of the architecture.
author:
  - The k8sgu authors (@k8sgu)
options:
  _input:
    description: The name, such as V(aarch64).
    type: str
    required: true
  otherwise:
    description: What to return for any other architecture; without it, that is an error.
    type: str
"""

EXAMPLES = r"""
- name: Show what this node's programs are built for
  ansible.builtin.debug:
    msg: "{{ ec2_architecture | k8sgu.cluster.architecture }}"
"""

RETURN = r"""
_value:
  description: V(amd64), V(arm64), or the value for others.
  type: str
"""


def architecture(machine: Any, otherwise: str | None = None) -> str:
    name = mirror_name(str(machine)) or otherwise
    if name is None:
        raise AnsibleFilterError(
            f"the architecture {machine} is not supported; use a machine with {' or '.join(NAMES)}"
        )
    return name


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"architecture": architecture}
