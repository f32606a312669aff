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
  - Tries every listening socket of the node without TLS, and the kubelet, the API server and etcd without a certificate; checks
    etcd's health, its snapshots and the bytes of a Secret in it; and searches the audit log for an event. All in one execution.
  - It changes nothing and never fails because of a check; M(k8sgu.cluster.verify_report) does.
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
    description: Number of members that etcd should have; V(0) on a node without a member.
    type: int
    default: 0
  etcd_snapshot_minutes:
    description: Interval at which the node's member of etcd should take snapshots by itself; V(0) if it should not, which is not checked.
    type: int
    default: 0
  etcd_uploads_to:
    description: Where that member should put them (V(s3://BUCKET/PREFIX)); empty if they stay on the node, which is not checked.
    type: str
    default: ""
  etcd_drills:
    description: Whether that member should try once a day to restore its newest snapshot.
    type: bool
    default: false
  plaintext_ports:
    description: TCP ports that may answer without TLS on loopback, and only there.
    type: list
    elements: int
    default: []
  port_table:
    description:
      - Rows of P(k8sgu.cluster.port_table#lookup). A listener that is not in it fails, and so does a row of the node's role
        for which nothing listens. Listeners of rows with C(tls) are checked for the versions and suites that they accept. If empty, none is checked.
    type: list
    elements: dict
    default: []
  system_listeners:
    description: Rows of the same form for programs of the operating system, which may listen but need not.
    type: list
    elements: dict
    default: []
  exposure_limits:
    description:
      - For each systemd unit, the highest exposure level by C(systemd-analyze security). Every unit that M(k8sgu.cluster.component) started
        on the node must have one. If empty, none is checked.
    type: dict
    default: {}
  secret_key:
    description: Key in etcd of a Secret.
    type: str
    default: /registry/secrets/k8sgu-verify/at-rest
  encryption_prefix:
    description: Prefix of an encrypted Secret's value, for example V(k8s:enc:secretbox:v1:key-1:).
    type: str
    default: "k8s:enc:"
  encrypted_resources:
    description:
      - Resources, as named in the encryption configuration, whose values in etcd must all begin with O(encryption_prefix). If empty,
        none is checked; all members have the same data, so one of them is enough.
    type: list
    elements: str
    default: []
  plaintext:
    description: Text of that Secret, which must not be found in etcd.
    type: str
    default: k8sgu-verify-plaintext-marker
  user_agent:
    description: User agent of a request that must be in the audit log.
    type: str
    default: ""
  timeout:
    description:
      - Seconds in which checks that fail are made again, all together, since a program that was just started may not listen yet. With V(0)
        each is made once.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Check the node from inside
  become: true
  k8sgu.cluster.verify_node:
    node: "{{ inventory_hostname }}"
    address: "{{ ec2_private_ip }}"
"""

RETURN = r"""
checks:
  description: Each check with what was expected and what was found.
  returned: success
  type: list
  elements: dict
audited:
  description: Whether an event of the user agent is in this node's audit log.
  returned: success
  type: bool
"""

from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Module, run_module
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.node import run
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.options import ARGUMENT_SPECS


def main() -> None:
    run_module(Module(ARGUMENT_SPECS["verify_node"], run))


if __name__ == "__main__":
    main()
