# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter fetched_from."""

from __future__ import annotations

from typing import Any, Callable, Mapping

from ansible.errors import AnsibleFilterError

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster.proxy_rules import ProxyError
from ansible_collections.k8sgu.cluster.plugins.module_utils._node import sources

DOCUMENTATION = r"""
name: fetched_from
short_description: The addresses that a node fetches programs and images from
version_added: 0.1.0
description:
  - What the node lacks of the release, by the address that it comes from, where the node goes there without a proxy.
  - Needs the manifest of the filled mirror, which says what has a publisher and what was built.
author:
  - The k8sgu authors (@k8sgu)
options:
  _input:
    description: The mirror's C(manifest.json) as a dictionary.
    type: dict
    required: true
  release:
    description: The release, as P(k8sgu.cluster.release#lookup) returns it.
    type: dict
    required: true
  selectors:
    description: What decides which components are needed, C(container_runtime), C(pod_network) and C(backup_bucket).
    type: dict
    required: true
  node:
    description:
      - The node's C(architecture) in the mirror, whether it is a C(control_plane) node, and C(programs) as
        M(k8sgu.cluster.node_facts) returns them.
    type: dict
    required: true
  ways:
    description:
      - C(mirror_url), C(mirror_proxy) and C(publishers) as for M(k8sgu.cluster.component), and as C(registry_mirrors)
        the registries that have mirrors of the user's.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Say where this node goes
  ansible.builtin.debug:
    msg: "{{ manifest | k8sgu.cluster.fetched_from(release, selectors, node, ways) | list | join(', ') }}"
"""

RETURN = r"""
_value:
  description: For each address, in the form C(host:port), the names of what comes from there.
  type: dict
"""


def fetched_from(
    manifest: Any,
    release: Mapping[str, Any],
    selectors: Mapping[str, Any],
    node: Mapping[str, Any],
    ways: Mapping[str, Any],
) -> dict[str, list[str]]:
    if not isinstance(manifest, Mapping):
        raise AnsibleFilterError("fetched_from takes a dictionary, the mirror's manifest")
    try:
        return sources.sources(manifest, release, selectors, node, ways)
    except ProxyError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"fetched_from": fetched_from}
