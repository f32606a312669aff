# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter proxy_settings."""

from __future__ import annotations

from typing import Any, Callable, Mapping, Sequence

from ansible.errors import AnsibleFilterError

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster import proxy

DOCUMENTATION = r"""
name: proxy_settings
short_description: Values for the proxy files of a node
version_added: 0.1.0
description:
  - Adds exceptions for what nodes never reach through a proxy, that is loopback, link-local addresses, names that end
    in C(.internal) or C(.svc), and a mirror at a private address.
  - Fails for a proxy that cannot be used. No message contains its address, which may contain a password.
author:
  - The k8sgu authors (@k8sgu)
options:
  _input:
    description: The proxies C(http) and C(https), and the exceptions C(no_proxy). Empty for none.
    type: dict
    required: true
  own:
    description: Ranges, domains and addresses of the cluster, which are exceptions too.
    type: list
    elements: str
    default: []
  mirror_url:
    description: Address of the mirror for nodes, empty for none.
    type: str
    default: ""
  judged:
    description: Treat a proxy that cannot be used as none, because something else reports the error.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Show what nodes reach without their proxy
  ansible.builtin.debug:
    msg: "{{ (k8sgu_proxy | k8sgu.cluster.proxy_settings(['10.240.0.0/16', '.cluster.local'])).no_proxy }}"
"""

RETURN = r"""
_value:
  description:
    - The proxies C(http) and C(https), empty for none, and the exceptions C(no_proxy) for Go's programs.
    - C(direct), the exceptions that are hosts or addresses; C(mirror), the proxy to the mirror, empty for none.
    - C(addresses), C(host:port) of each proxy; C(mode), the permissions of a file that contains the proxies.
  type: dict
"""


def proxy_settings(
    given: Mapping[str, Any] | None, own: Sequence[str] = (), mirror_url: str = "", judged: bool = False
) -> dict[str, Any]:
    faults = proxy.problems(given or {})
    if faults and not judged:
        raise AnsibleFilterError("; ".join(faults))
    return proxy.settings(None if faults else given, own, mirror_url)


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"proxy_settings": proxy_settings}
