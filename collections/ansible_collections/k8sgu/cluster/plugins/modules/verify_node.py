#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: verify_node
short_description: Makes the checks of a cluster that only a node can make
version_added: 0.1.0
description:
  - Asks every listening socket of the node for an answer without TLS, the kubelet, the API server and etcd for one without a certificate,
    etcd for its health and for the bytes of a Secret, and the audit log for an event. All of it in one execution.
  - It changes nothing and never fails for what it finds; M(k8sgu.cluster.verify_report) does.
author:
  - The k8sgu authors (@k8sgu)
extends_documentation_fragment:
  - k8sgu.cluster.read_only
options:
  node:
    description: Name of the node.
    type: str
    required: true
  address:
    description: Its private address.
    type: str
    required: true
  control_plane:
    description: Whether an API server runs there.
    type: bool
    default: false
  api_port:
    description: TCP port of the API server.
    type: int
    default: 6443
  etcd_members:
    description: How many members etcd should have; V(0) on a node that has none.
    type: int
    default: 0
  plaintext_ports:
    description: TCP ports that may answer without TLS on loopback, and only there.
    type: list
    elements: int
    default: []
  port_table:
    description:
      - Rows of P(k8sgu.cluster.port_table#lookup). What listens on the node and is not in it fails, and so does a row of the node's role
        for which nothing listens. What listens for a row with C(tls) is asked what it agrees to. Empty, none of it is looked at.
    type: list
    elements: dict
    default: []
  system_listeners:
    description: Rows of the same form for programs of the operating system, which may listen and need not.
    type: list
    elements: dict
    default: []
  exposure_limits:
    description:
      - By systemd unit, the highest level that C(systemd-analyze security) may give it. Every unit that M(k8sgu.cluster.component) started
        on the node must have one. Empty, none is looked at.
    type: dict
    default: {}
  secret_key:
    description: Key in etcd of a Secret.
    type: str
    default: /registry/secrets/k8sgu-verify/at-rest
  encryption_prefix:
    description: How the value of an encrypted Secret begins, for example V(k8s:enc:secretbox:v1:key-1:).
    type: str
    default: "k8s:enc:"
  encrypted_resources:
    description:
      - Resources of which every value in etcd must begin with O(encryption_prefix), as the encryption configuration names them. Empty,
        none is looked at; the members hold the same, so one of them is enough.
    type: list
    elements: str
    default: []
  plaintext:
    description: Words of that Secret which must not be found in etcd.
    type: str
    default: k8sgu-verify-plaintext-marker
  user_agent:
    description: User agent of a request that must be in the audit log.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Look at the node from inside
  become: true
  k8sgu.cluster.verify_node:
    node: "{{ inventory_hostname }}"
    address: "{{ ec2_private_ip }}"
"""

RETURN = r"""
checks:
  description: Each check with what was expected and what was seen.
  returned: success
  type: list
  elements: dict
audited:
  description: Whether an event of the user agent is in this node's audit log.
  returned: success
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.node import ARGUMENT_SPEC, execute


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    module.exit_json(**execute(module.params))


if __name__ == "__main__":
    main()
