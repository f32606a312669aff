#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_drill
short_description: Restores a snapshot of etcd beside the living one, and looks at it
version_added: 0.1.0
description:
  - Runs on a member of etcd, as root. Restores a snapshot into an etcd of its own, which listens on no network and ends with the call, counts
    its keys, and reads its newest Secret as it is stored. Nothing stays.
  - The member's own etcd goes on. It is asked for its revision, and for its keys as they were when the snapshot was taken.
  - Refuses what M(k8sgu.cluster.etcd_restore) refuses, with the same words, so that a snapshot that could not be restored is known before one is needed.
author:
  - The k8sgu authors (@k8sgu)
seealso:
  - name: Disaster recovery
    description: What a snapshot has, and how a member begins with it.
    link: https://etcd.io/docs/v3.6/op-guide/recovery/
attributes:
  check_mode:
    description: Checks the snapshot, and does not restore it.
    support: full
  diff_mode:
    description: Changes nothing, in any mode.
    support: none
extends_documentation_fragment:
  - k8sgu.cluster.etcd
options:
  snapshot:
    description: Name of the snapshot in O(directory).
    type: str
    required: true
  nodes:
    description: Names of the cluster's members. A snapshot with none of them is of another cluster.
    type: list
    elements: str
    required: true
  authority:
    description: Certificates of the cluster's CA, as PEM. A snapshot of a cluster with another one is refused.
    type: str
    required: true
  encryption_prefixes:
    description: How values begin that the API servers can decrypt, such as V(k8s:enc:secretbox:v1:key-1:).
    type: list
    elements: str
    required: true
  quota:
    description: etcd's quota in bytes. A snapshot is refused whose values fill it without their history. With V(0) that is not judged.
    type: int
    default: 0
  directory:
    description: Directory with the snapshots on this node.
    type: path
    default: /var/lib/k8sgu/snapshots
  drill_dir:
    description: Directory for the drill's etcd, which is removed afterwards. Beside it lies an empty file by which only one drill runs at a time.
    type: path
    default: /var/lib/k8sgu/drill
  timeout:
    description: Seconds that each step may take.
    type: int
    default: 300
  etcd:
    description: The program etcd.
    type: path
    default: /opt/k8sgu/etcd/current/etcd
  etcdutl:
    description: The program etcdutl.
    type: path
    default: /usr/local/bin/etcdutl
"""

EXAMPLES = r"""
- name: Restore the newest snapshot beside etcd
  k8sgu.cluster.etcd_drill:
    snapshot: 20261129T180210Z_etcd-3.6.14_rev-51234_backup.db
    nodes: "{{ groups['etcd'] }}"
    authority: "{{ lookup('ansible.builtin.file', k8sgu_pki_dir ~ '/kubernetes-ca.pem') }}"
    encryption_prefixes: ["k8s:enc:secretbox:v1:key-1:"]
  become: true
  register: drill
"""

RETURN = r"""
plan:
  description: What is done, or would be.
  returned: success
  type: list
  elements: str
steps:
  description: Seconds of each step, C(check), C(restore), C(start) and C(read); in check mode of the first.
  returned: success
  type: dict
  sample: {check: 0.31, restore: 0.84, start: 0.62, read: 0.12}
revision:
  description: The snapshot's revision.
  returned: success
  type: int
  sample: 51234
keys:
  description: How many keys the restored etcd has.
  returned: when not in check mode
  type: int
  sample: 1893
living:
  description: C(revision) of etcd on this node, and C(keys) that it had at the snapshot's revision; -1 if that was compacted since.
  returned: when not in check mode
  type: dict
  sample: {revision: 51300, keys: 1893}
secret:
  description: C(key) of the Secret that was written last, empty if there is none, and its C(value) as base64 if it is stored encrypted.
  returned: when not in check mode
  type: dict
  sample: {key: /registry/secrets/demo/token, value: azhzOmVuYzo...}
"""

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.etcd_drill import MODULE
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import run_module


def main() -> None:
    run_module(MODULE)


if __name__ == "__main__":
    main()
