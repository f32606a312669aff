#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_snapshot
short_description: Takes a verified snapshot of etcd
version_added: 0.1.0
description:
  - Runs on a member of etcd, as root, and takes a snapshot from it, which has everything that etcd had acknowledged before.
  - The snapshot gets its name only after it has been verified. Its end has the SHA-256 that etcd sent with it, C(etcdutl) has walked through
    all its pages, its revision is not older than etcd's was, and the members that it lists are this cluster's. A run that is cut off leaves
    nothing that looks like a snapshot.
  - Its name has the time (UTC), etcd's version, the revision, O(series) and O(label), such as
    C(20261129T180210Z_etcd-3.6.14_rev-51234_upgrade_1.36.4-to-1.37.2.db).
  - Refused before anything is written where etcd does not serve on this node, where its member is a learner, or where there is not enough room.
author:
  - The k8sgu authors (@k8sgu)
seealso:
  - name: Disaster recovery
    description: What a snapshot is, and how etcd is restored from it.
    link: https://etcd.io/docs/v3.6/op-guide/recovery/
attributes:
  check_mode:
    description: Says whether it would take a snapshot, whether there is room, and which ones would go. RV(keys) and RV(hash) are unknown then.
    support: full
  diff_mode:
    description: Shows the snapshots before and after.
    support: full
  idempotent:
    description: With a label, a whole snapshot of the same series and label that is not older than O(max_age) serves; without, each call takes one.
    support: partial
extends_documentation_fragment:
  - k8sgu.cluster.etcd
options:
  directory:
    description: Directory for snapshots on this node. It is created, and only root may read it (mode 0700; the snapshots have 0600).
    type: path
    default: /var/lib/k8sgu/snapshots
  series:
    description: What the snapshot belongs to, such as V(upgrade) or V(backup). O(keep) counts the snapshots of one series.
    type: str
    default: manual
  label:
    description: What the snapshot is for. With the same label a later run takes no second one.
    type: str
    default: ""
  max_age:
    description: Seconds after which a snapshot with the same label does not serve any more.
    type: int
    default: 86400
  keep:
    description: How many snapshots of O(series) stay, the newest ones. Older ones are removed after the new one has been verified. At least 1.
    type: int
    default: 3
  disk_percent:
    description:
      - How much of the disk the snapshots of O(series) may have together, in percent of what would be free without them, so that they never fill
        it. Older ones are removed beyond that, though O(keep) would let them stay; the newest always stays. From 1 to 100.
    type: int
    default: 100
  timeout:
    description: Seconds that the snapshot may take, and as long it waits for another run.
    type: int
    default: 300
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
- name: Take a snapshot before a change
  k8sgu.cluster.etcd_snapshot:
  become: true

- name: Take a snapshot once for an upgrade, however often it is started
  k8sgu.cluster.etcd_snapshot:
    series: upgrade
    label: 1.36.4-to-1.37.2
  become: true
  register: snapshot
"""

RETURN = r"""
plan:
  description: What was done, or would be.
  returned: success
  type: list
  elements: str
  sample: ["take a snapshot of 25165824 bytes at revision 51234: 20261129T180210Z_etcd-3.6.14_rev-51234_upgrade_1.36.4-to-1.37.2.db"]
path:
  description: The snapshot; in check mode a name such as it would have.
  returned: success
  type: str
  sample: /var/lib/k8sgu/snapshots/20261129T180210Z_etcd-3.6.14_rev-51234_upgrade_1.36.4-to-1.37.2.db
revision:
  description: etcd's revision in the snapshot. What was written later is not in it.
  returned: success
  type: int
  sample: 51234
keys:
  description: How many keys it has.
  returned: success
  type: int
  sample: 1893
hash:
  description: Hash of its content, as C(etcdutl snapshot status) prints it, in hexadecimal.
  returned: success
  type: str
  sample: 7b1f3c0a
bytes:
  description: Its size.
  returned: success
  type: int
  sample: 25165856
seconds:
  description: How long taking and verifying it took.
  returned: success
  type: float
  sample: 0.8
"""

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.etcd_snapshot import MODULE
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import run_module


def main() -> None:
    run_module(MODULE)


if __name__ == "__main__":
    main()
