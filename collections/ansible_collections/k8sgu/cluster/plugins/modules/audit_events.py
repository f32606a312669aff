#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: audit_events
short_description: Finds in a node's audit log who did what to which object
version_added: 0.1.0
description:
  - Reads the API server's audit log and its rotated files, in one execution and with nothing but Python's standard library.
  - Each finished request counts once, with the time at which it was received.
  - Patterns are shell patterns (C(*), C(?), C([abc])). An empty list matches everything.
author:
  - The k8sgu authors (@k8sgu)
extends_documentation_fragment:
  - k8sgu.cluster.read_only
options:
  path:
    description: The current log; rotated files are in the same directory.
    type: path
    default: /var/log/kubernetes/audit.log
  node:
    description: Name of the node, for the rows.
    type: str
    required: true
  since:
    description: Start of the period, as a duration before now (V(90m), V(2h), V(3d)) or a time (V(2026-11-23T12:00:00Z)).
    type: str
    default: 1h
  until:
    description: End of the period, in the same forms; V(0s) is now.
    type: str
    default: 0s
  users:
    description: Patterns of user names; a user who impersonates another is found by either name.
    type: list
    elements: str
    default: []
  verbs:
    description: Patterns of verbs, such as V(create) or V(delete*).
    type: list
    elements: str
    default: []
  resources:
    description: Patterns of resources with or without the subresource, such as V(secrets), V(pods/exec); for other requests, their path.
    type: list
    elements: str
    default: []
  namespaces:
    description: Patterns of namespaces.
    type: list
    elements: str
    default: []
  names:
    description: Patterns of object names.
    type: list
    elements: str
    default: []
  limit:
    description: Maximum number of events; the newest are returned.
    type: int
    default: 1000
"""

EXAMPLES = r"""
- name: Who touched Secrets since yesterday?
  become: true
  k8sgu.cluster.audit_events:
    node: "{{ inventory_hostname }}"
    since: 1d
    resources: [secrets]
"""

RETURN = r"""
events:
  description: The events, oldest first.
  returned: success
  type: list
  elements: dict
  contains:
    time: {description: When the request was received., type: str}
    node: {description: The node whose API server had it., type: str}
    user: {description: The user., type: str}
    as: {description: The impersonated user., type: str}
    verb: {description: The verb., type: str}
    group: {description: API group of the object., type: str}
    resource: {description: Kind of the object with its subresource; the path of a request that has no object., type: str}
    namespace: {description: Its namespace., type: str}
    name: {description: Its name., type: str}
    code: {description: HTTP status of the answer., type: int}
    from: {description: Addresses that the request came from., type: str}
    agent: {description: The client's user agent., type: str}
    id: {description: ID of the event in the log., type: str}
found:
  description: Number of all matching events; more than in RV(events) if O(limit) was reached.
  returned: success
  type: int
"""

from ansible_collections.k8sgu.cluster.plugins.module_utils._node.audit_events import AuditError, run
from ansible_collections.k8sgu.cluster.plugins.module_utils._node.options import ARGUMENT_SPECS
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Module, run_module


def main() -> None:
    run_module(Module(ARGUMENT_SPECS["audit_events"], run, (AuditError,)))


if __name__ == "__main__":
    main()
