#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pod_credentials
short_description: Waits until a node's pods have the authorities and tokens that they should
version_added: 0.1.0
description:
  - Runs on a node and reads what the kubelet has written into the volumes of its pods; a file that is written anew meanwhile is read again.
    Nothing is asked of the API server, and nothing but Python's standard library is needed.
  - Every token of a service account counts, whatever audience and path it has. Tokens are neither returned nor shown.
  - A file C(ca.crt) counts if a token for the API server is beside it, if its volume is the one that every pod gets, or if it shares a
    certificate with O(authorities). Any other is an authority of something else.
  - A pod that terminates counts until the kubelet removes its volumes. Of one that has ended nothing is left. Tokens that have expired do not
    count, since nothing that runs can use them; a warning names their pods.
  - The kubelet writes another C(ca.crt) within 90 seconds. It keeps a token until four fifths of its life have passed, and asks for all of
    them anew when it is restarted.
  - What a container mounts by C(subPath), or has read already, is another matter. It needs a restart (M(k8sgu.cluster.workload_restart)).
author:
  - The k8sgu authors (@k8sgu)
seealso:
  - module: k8sgu.cluster.workload_restart
  - name: Projected volumes
    description: How a pod gets a token and an authority.
    link: https://kubernetes.io/docs/concepts/storage/projected-volumes/
attributes:
  check_mode:
    description: Returns the same in check mode as otherwise, but does not wait.
    support: full
  diff_mode:
    description: Returns details on what has changed.
    support: none
  idempotent:
    description: Changes nothing.
    support: full
options:
  pods_dir:
    description: The kubelet's directory of pods.
    type: path
    default: /var/lib/kubelet/pods
  authorities:
    description:
      - Certificates as PEM text, each item one or more. Every C(ca.crt) must hold exactly these, in whatever order.
      - If it is empty, no C(ca.crt) is looked at.
    type: list
    elements: str
    default: []
  key_ids:
    description:
      - What a token's header may have as C(kid). P(k8sgu.cluster.key_ids#filter) makes it of a public key.
      - If it is empty, no token is looked at. One of O(authorities) and this is needed.
    type: list
    elements: str
    default: []
  ignore:
    description: Pods that may have anything, each by namespace and name (V(shop/web-0)) or by its UID, as the error names it.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds to wait until all pods have followed; with V(0) it is looked once.
    type: int
    default: 180
  interval:
    description: Seconds between two looks.
    type: int
    default: 2
"""

EXAMPLES = r"""
- name: Wait until every pod trusts both authorities
  become: true
  k8sgu.cluster.pod_credentials:
    authorities: "{{ [old_authority, new_authority] }}"

- name: Wait until no pod has a token of the old key
  become: true
  k8sgu.cluster.pod_credentials:
    key_ids: "{{ lookup('ansible.builtin.file', 'service-account.pub') | k8sgu.cluster.key_ids }}"
"""

RETURN = r"""
pods:
  description: How many pods have a token or a file C(ca.crt), without those of O(ignore).
  returned: unless an option is wrong
  type: int
lagging:
  description: The files that are not as they should be; empty on success.
  returned: unless an option is wrong
  type: list
  elements: dict
  contains:
    pod: {description: Namespace and name of the pod; its UID if no token of it has them., type: str, sample: shop/web-0}
    volume: {description: The volume., type: str, sample: kube-api-access-x7k2p}
    file: {description: The file's path in the volume., type: str, sample: ca.crt}
    has: {description: What it has instead., type: str}
"""

from ansible_collections.k8sgu.cluster.plugins.module_utils._credentials.options import ARGUMENT_SPEC
from ansible_collections.k8sgu.cluster.plugins.module_utils._credentials.run import CredentialsError, run
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Module, run_module


def main() -> None:
    run_module(Module(ARGUMENT_SPEC, run, (CredentialsError,)))


if __name__ == "__main__":
    main()
