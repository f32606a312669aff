#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_snapshot_info
short_description: Tells which snapshots of etcd are on a node
version_added: 0.1.0
description:
  - Runs on a member of etcd, as root. Lists the snapshots that M(k8sgu.cluster.etcd_snapshot) left there, and says how far etcd is, and whether
    a restore was begun on this node that has not come to its end.
  - etcd does not need to run.
author:
  - The k8sgu authors (@k8sgu)
attributes:
  check_mode:
    description: Changes nothing, in any mode.
    support: full
  diff_mode:
    description: Changes nothing, in any mode.
    support: none
extends_documentation_fragment:
  - k8sgu.cluster.etcd
options:
  directory:
    description: Directory for snapshots on this node. A directory that is not there has none.
    type: path
    default: /var/lib/k8sgu/snapshots
  incoming:
    description: Directory in which a snapshot is on its way to O(directory). What is there is of a run that was cut off.
    type: path
    default: /var/lib/k8sgu/incoming
  data_dir:
    description: etcd's directory.
    type: path
    default: /var/lib/etcd
  record:
    description: File by which a restore goes until its end.
    type: path
    default: /var/lib/k8sgu/etcd-restore.json
"""

EXAMPLES = r"""
- name: List the snapshots
  k8sgu.cluster.etcd_snapshot_info:
  become: true
  register: found
"""

RETURN = r"""
snapshots:
  description: Names of the snapshots, the newest first.
  returned: success
  type: list
  elements: str
  sample: ["20261129T180210Z_etcd-3.6.14_rev-51234_backup.db"]
free:
  description: Bytes that are free on the file system that has O(directory), or will have it.
  returned: success
  type: int
  sample: 8589934592
installed:
  description: Whether etcd's directory and programs are there.
  returned: success
  type: bool
revision:
  description: The revision of etcd on this node; 0 if it does not answer.
  returned: success
  type: int
  sample: 51300
database:
  description: Bytes of the database's file (C(size)), and of what is in use of it (C(used)), on this node; empty if etcd does not answer.
  returned: success
  type: dict
  sample: {"size": 22335488, "used": 22331392}
set_aside:
  description: Ids of the restores for which this member's data was moved aside.
  returned: success
  type: list
  elements: str
  sample: []
restoring:
  description: The restore that was begun on this node and has not come to its end, with C(id), C(snapshot), C(revision), C(keys), and C(placed), whether etcd
    has its data already; empty without one.
  returned: success
  type: dict
  sample: {"id": "20261129T181500Z", "snapshot": "20261129T180210Z_etcd-3.6.14_rev-51234_backup.db", "revision": 51234, "keys": 1893, "placed": false}
"""

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.etcd_snapshot_info import MODULE
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import run_module


def main() -> None:
    run_module(MODULE)


if __name__ == "__main__":
    main()
