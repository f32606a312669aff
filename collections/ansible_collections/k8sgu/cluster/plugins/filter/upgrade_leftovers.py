# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter upgrade_leftovers."""

from __future__ import annotations

from typing import Any, Callable, Mapping

from ansible.errors import AnsibleFilterError

from ansible_collections.k8sgu.cluster.plugins.module_utils._upgrade import plan

DOCUMENTATION = r"""
name: upgrade_leftovers
short_description: Programs of releases that nobody runs and nobody goes back to
version_added: 0.1.0
description:
  - Names the versions of components on a node that neither run there nor belong to one of the given releases.
author:
  - The k8sgu authors (@k8sgu)
positional: releases, ran, origin
options:
  _input:
    description: C(membership) of a node, of M(k8sgu.cluster.node_facts).
    type: dict
    required: true
  releases:
    description: The releases whose programs stay, of P(k8sgu.cluster.release#lookup).
    type: list
    elements: dict
    required: true
  ran:
    description: C(programs) of that node's membership before the upgrade.
    type: dict
    required: true
  origin:
    description: The version of Kubernetes from which the upgrade came, of which there may be no release any more.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Say what an upgrade can remove
  ansible.builtin.debug:
    msg: "{{ k8sgu_node.membership | k8sgu.cluster.upgrade_leftovers([k8sgu_release], {}, '1.36.4') }}"
"""

RETURN = r"""
_value:
  description: Names of components with versions, with a slash between them, as below C(/opt/k8sgu).
  type: list
  elements: str
"""


def upgrade_leftovers(membership: Any, releases: Any, ran: Any, origin: str) -> list[str]:
    if not isinstance(membership, Mapping) or not isinstance(releases, (list, tuple)) or not isinstance(ran, Mapping):
        raise AnsibleFilterError("upgrade_leftovers takes a node's membership, a list of releases and programs")
    found = plan.leftovers(membership, releases, ran, str(origin))
    return [f"{component}/{version}" for component, versions in found.items() for version in versions]


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"upgrade_leftovers": upgrade_leftovers}
