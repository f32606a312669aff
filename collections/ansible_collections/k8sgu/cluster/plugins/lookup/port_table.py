# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The port table for playbooks and templates."""

from __future__ import annotations

DOCUMENTATION = r"""
name: port_table
short_description: The ports of a cluster, with programs, sources and reasons
version_added: 0.1.0
author:
  - The k8sgu authors (@k8sgu)
description:
  - Returns the rows of the collection's port table, from which the security groups are made.
  - Reads nothing outside the collection.
options:
  _terms:
    description:
      - V(routed) or V(vxlan) for the rows of this pod network, and as a second term the container runtime,
        V(containerd) by default or V(docker). Without a term all rows.
    type: list
    elements: str
    required: false
  observability:
    description: Whether the rows of what measures the nodes are among them.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: The ports that only the node itself can reach
  ansible.builtin.debug:
    msg: >-
      {{ query('k8sgu.cluster.port_table', 'routed') | selectattr('bind', 'eq', 'loopback') | map(attribute='first') }}
"""

RETURN = r"""
_raw:
  description:
    - One dictionary for each row, with C(name), C(listener), C(nodes), C(protocol), C(first), C(last), C(sources),
      C(why), C(bind) (C(any) or C(loopback)), C(encryption) (C(tls), C(ssh), C(none) or C(pods)) and
      C(when) (C(always), a pod network, a container runtime, C(observability) or C(mirror)).
  type: list
  elements: dict
"""

from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster import ports as port_table


class LookupModule(LookupBase):  # type: ignore[misc]
    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[dict[str, Any]]:
        self.set_options(var_options=variables, direct=kwargs)
        if not terms:
            return port_table.as_dictionaries()
        network, *runtime = terms
        if network not in (port_table.ROUTED, port_table.VXLAN):
            raise AnsibleError(
                f"port_table: {network!r} is not a pod network; give routed or vxlan, or nothing for every row"
            )
        if len(runtime) > 1 or any(name not in (port_table.CONTAINERD, port_table.DOCKER) for name in runtime):
            raise AnsibleError(f"port_table: {runtime!r} is not a container runtime; give containerd or docker")
        return port_table.as_dictionaries(
            network, runtime[0] if runtime else port_table.CONTAINERD, observability=self.get_option("observability")
        )
