#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ca_rotation
short_description: Takes the steps by which CAs are rotated, in the files of the controller
version_added: 0.1.0
description:
  - Rotates CAs, and the key that signs service-account tokens, in the steps of
    U(https://kubernetes.io/docs/tasks/tls/manual-rotation-of-ca-certificates/). A new one is trusted beside the old one, then it signs,
    then the old one is trusted no more. Between two steps the nodes have to follow, which is the business of the playbook C(rotate_ca.yml).
  - A file beside the others, C(rotation.json), says what is rotated and which step was taken last. It changes together with the files, so
    a run that is killed is completed by the next one.
  - The key of a CA that signs no more is removed. Its certificate is kept in C(NAME.retired), by which snapshots and kubeconfigs of
    that time are recognised.
author:
  - The k8sgu authors (@k8sgu)
requirements:
  - cryptography >= 42
attributes:
  check_mode:
    description: Can run in check mode and return what it would change.
    support: full
  diff_mode:
    description: Shows which step is taken, never a key.
    support: full
  idempotent:
    description: A step that was taken is not taken again.
    support: full
options:
  path:
    description: The directory of the CAs' files.
    type: path
    required: true
  names:
    description:
      - What to rotate; V(service-account) is the key that signs service-account tokens.
      - May be empty while a rotation is under way, which then goes on.
    type: list
    elements: str
    choices: [kubernetes-ca, etcd-ca, front-proxy-ca, kubelet-client-ca, service-account]
    default: []
  state:
    description:
      - V(planned) changes nothing and returns what would be rotated, and the step that was taken last.
      - V(added) begins. The next CA (C(NAME-next.pem)) and key (C(sa-next.key)) are made afterwards, by M(k8sgu.cluster.cfssl_cert) and
        M(k8sgu.cluster.signing_key).
      - V(promoted) puts the next ones in the place of those that sign. Everybody must trust them by then.
      - V(dropped) ends the trust in those before. Nothing that they signed may be in use by then.
      - V(finished) is for after the last node has followed.
    type: str
    choices: [planned, added, promoted, dropped, finished]
    default: planned
"""

EXAMPLES = r"""
- name: Begin the rotation of etcd's CA
  k8sgu.cluster.ca_rotation:
    path: .state/demo/pki
    names: [etcd-ca]
    state: added
"""

RETURN = r"""
names:
  description: What is rotated.
  returned: success
  type: list
  elements: str
  sample: [etcd-ca]
step:
  description: The step that was taken last; empty if none was.
  returned: success
  type: str
  sample: added
plan:
  description: What is left of the rotation, in words, in its order.
  returned: success
  type: list
  elements: str
changes:
  description: What was, or in check mode would be, done.
  returned: success
  type: list
  elements: str
  sample: ["etcd-ca: the new one signs"]
"""

from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import run_module
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.rotation import MODULE


def main() -> None:
    run_module(MODULE)


if __name__ == "__main__":
    main()
