#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_bucket
short_description: Lists what a bucket of S3 has of a cluster, fetches it, and puts backups there
version_added: 0.1.0
description:
  - The bucket has snapshots of etcd, which members put there as C(CLUSTER/etcd/SNAPSHOT.age), encrypted in the format of age, and backups that
    M(k8sgu.cluster.cluster_backup) made, as C(CLUSTER/state/BACKUP).
  - A file has its name when it is whole. A snapshot is decrypted on its way, and what was damaged or made by somebody without the keys is refused.
notes:
  - The caller needs C(s3:ListBucket) on the bucket, and C(s3:GetObject) on its objects for O(state=fetched), C(s3:PutObject) and C(s3:GetObject) for
    O(state=stored). With a KMS key of one's own also C(kms:Decrypt) and C(kms:GenerateDataKey).
seealso:
  - module: k8sgu.cluster.cluster_backup
  - name: age
    description: The format, and the program.
    link: https://age-encryption.org
attributes:
  check_mode:
    description: The bucket is asked all the same, and nothing is written on either side.
    support: full
  diff_mode:
    description: There is no diff, since the content is secret.
    support: none
extends_documentation_fragment:
  - k8sgu.cluster.aws
options:
  state:
    description: >-
      V(listed) tells what there is, V(fetched) puts a snapshot or a backup into a directory of this machine, and V(stored) puts a backup into the
      bucket.
    type: str
    choices: [listed, fetched, stored]
    required: true
  bucket:
    description: Name of the bucket, in the region that is asked.
    type: str
    required: true
  cluster:
    description: Name of the cluster, by which what belongs to it is known.
    type: str
    required: true
  snapshot:
    description: Name of the snapshot that is fetched and decrypted.
    type: str
  backup:
    description: Name of the backup that is fetched, as it is, or V(latest).
    type: str
  path:
    description: >-
      With O(state=fetched) the directory for the file, which is left as it is if it is there; with O(state=stored) the backup. An object that has the
      same content stays as it is, and one with another content is an error.
    type: path
  identity_files:
    description: Files with private keys that may open a snapshot, as C(age-keygen) writes them. Those that are not there are left out.
    type: list
    elements: path
    default: []
requirements:
  - pyrage >= 1.2 (to fetch a snapshot)
author:
  - The k8sgu authors (@k8sgu)
"""

EXAMPLES = r"""
- name: Tell what there is
  k8sgu.cluster.backup_bucket:
    state: listed
    bucket: example-backups
    cluster: demo
  register: found

- name: Fetch a snapshot
  k8sgu.cluster.backup_bucket:
    state: fetched
    bucket: example-backups
    cluster: demo
    snapshot: "{{ found.snapshots[0].name }}"
    path: .state/demo/snapshots
    identity_files: [.state/demo/secrets/backup-identity.txt]

- name: Put a backup there
  k8sgu.cluster.backup_bucket:
    state: stored
    bucket: example-backups
    cluster: demo
    path: backups/demo-20261129T181500Z.tar.age
"""

RETURN = r"""
snapshots:
  description: The snapshots of etcd, the newest first, each with its C(name), its encrypted C(bytes), and when it was put there, C(modified).
  returned: with O(state=listed)
  type: list
  elements: dict
  sample: [{"name": "20261129T180210Z_etcd-3.6.14_rev-51234_backup.db", "bytes": 25171968, "modified": "2026-11-29T18:02:14+00:00"}]
backups:
  description: The backups of the state directory, the newest first, as the snapshots.
  returned: with O(state=listed)
  type: list
  elements: dict
  sample: [{"name": "demo-20261129T181500Z.tar.age", "bytes": 25334912, "modified": "2026-11-29T18:15:09+00:00"}]
path:
  description: The file on this machine.
  returned: with O(state=fetched) and O(state=stored)
  type: str
  sample: .state/demo/snapshots/20261129T180210Z_etcd-3.6.14_rev-51234_backup.db
object:
  description: The object in the bucket.
  returned: with O(state=fetched) and O(state=stored)
  type: str
  sample: s3://example-backups/demo/etcd/20261129T180210Z_etcd-3.6.14_rev-51234_backup.db.age
bytes:
  description: The object's size.
  returned: with O(state=fetched) and O(state=stored)
  type: int
  sample: 25171968
"""

from ansible_collections.k8sgu.cluster.plugins.module_utils._bucket.run import MODULE
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import run_module


def main() -> None:
    run_module(MODULE)


if __name__ == "__main__":
    main()
