#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_restore
short_description: Gives a member of etcd the data of a snapshot
version_added: 0.1.0
description:
  - Runs on a member of etcd, as root. One member gets the snapshot's data; the others are emptied, and join it later (M(k8sgu.cluster.etcd_member)).
    The playbook restore.yml calls the states in their order, and starts and stops etcd and the API servers between.
  - Each state is one rename on etcd's file system, so that a call which is cut off has been done or has not. A later call with the same O(id) does
    what is left.
  - The restored etcd is another one for its members (a token of its own), so that none of the old ones can meet it, and its revisions begin after
    all that were given (O(bump)), so that no client sees time going backwards.
author:
  - The k8sgu authors (@k8sgu)
seealso:
  - name: Disaster recovery
    description: How etcd is restored, and what the revision bump is for.
    link: https://etcd.io/docs/v3.6/op-guide/recovery/
attributes:
  check_mode:
    description: Checks the snapshot as a run does, and says what it would do.
    support: full
  diff_mode:
    description: RV(plan) says it.
    support: none
  idempotent:
    description: For the same O(id), each state is reached once.
    support: full
extends_documentation_fragment:
  - k8sgu.cluster.etcd
options:
  id:
    description: When the restore was begun, such as V(20261129T181500Z). One restore has one id, on all nodes.
    type: str
    required: true
  state:
    description:
      - V(prepared) checks the snapshot and restores it beside etcd's data, while etcd goes on. Every reason that speaks against the snapshot is
        found here; damaged, of another cluster, of a newer etcd, encrypted with a key that is not there, no room.
      - V(aside) moves etcd's data away, for good, to C(member-before-ID). etcd must not run.
      - V(placed) moves the prepared data to where etcd expects it.
      - >-
        V(serving) waits for etcd, and removes the addresses of API servers that the snapshot has, of which some may be gone. If the snapshot was
        taken while etcd's quota was used up, it also has the alarm C(NOSPACE), and etcd would take no writes. It is brought back then, as by
        M(k8sgu.cluster.etcd_space) with V(writable).
      - V(finished) ends the restore.
    type: str
    choices: [prepared, aside, placed, serving, finished]
    required: true
  snapshot:
    description: Name of the snapshot in O(directory). For V(prepared).
    type: str
  name:
    description: The member's name. For V(prepared).
    type: str
  peer_url:
    description: The member's address for other members. For V(prepared).
    type: str
  nodes:
    description: Names of the cluster's members; a snapshot that has none of them is of another cluster. For V(prepared).
    type: list
    elements: str
  authority:
    description: The certificates of the cluster's CA, as PEM; a snapshot that has another one is of another cluster. For V(prepared).
    type: str
  encryption_prefixes:
    description: How values begin that the API servers can decrypt, with provider and key's name, such as V(k8s:enc:secretbox:v1:key-1:). For V(prepared).
    type: list
    elements: str
  quota:
    description: etcd's quota in bytes. A snapshot is refused whose values fill it without their history. With V(0) that is not judged.
    type: int
    default: 0
  bump:
    description: How many revisions after the snapshot's own the restored etcd begins. More than were given since it was taken.
    type: int
    default: 1000000000
  data_dir:
    description: etcd's directory.
    type: path
    default: /var/lib/etcd
  timeout:
    description: Seconds that V(prepared) may take for each program, and V(serving) for etcd.
    type: int
    default: 300
  directory:
    description: Directory for snapshots on this node.
    type: path
    default: /var/lib/k8sgu/snapshots
  record:
    description: File by which the restore goes until its end.
    type: path
    default: /var/lib/k8sgu/etcd-restore.json
  etcdutl:
    description: The program etcdutl.
    type: path
    default: /usr/local/bin/etcdutl
  environment:
    description: File with etcdctl's environment variables, its endpoint, which has to be this node's own member, and client certificate among them.
    type: path
    default: /etc/etcd/etcdctl.env
"""

EXAMPLES = r"""
- name: Prepare the data of a snapshot while etcd goes on
  k8sgu.cluster.etcd_restore:
    id: 20261129T181500Z
    state: prepared
    snapshot: 20261129T180210Z_etcd-3.6.14_rev-51234_backup.db
    name: demo-control-plane-1
    peer_url: https://10.0.0.10:2380
    nodes: [demo-control-plane-1]
    authority: "{{ lookup('ansible.builtin.file', 'ca.pem') }}"
    encryption_prefixes: ["k8s:enc:secretbox:v1:key-1:"]
  become: true
"""

RETURN = r"""
plan:
  description: What was done, or would be.
  returned: success
  type: list
  elements: str
  sample: ["move /var/lib/etcd/member to /var/lib/etcd/member-before-20261129T181500Z"]
snapshot:
  description: Name of the snapshot.
  returned: states prepared and placed
  type: str
  sample: 20261129T180210Z_etcd-3.6.14_rev-51234_backup.db
revision:
  description: The snapshot's revision; with state V(serving) the one that etcd has now.
  returned: states prepared, placed and serving
  type: int
  sample: 51234
keys:
  description: How many keys the snapshot has.
  returned: states prepared and placed
  type: int
  sample: 1893
aside:
  description: Where the data is that etcd had.
  returned: state aside
  type: str
  sample: /var/lib/etcd/member-before-20261129T181500Z
"""

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.etcd_restore import MODULE
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import run_module


def main() -> None:
    run_module(MODULE)


if __name__ == "__main__":
    main()
