#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_backup
short_description: Puts all that a cluster can be made from again into one encrypted file, and opens it
version_added: 0.1.0
description:
  - The file has the controller's state directory, with the authorities' keys and those for encryption at rest, and snapshots of etcd. It is an archive of
    tar in the format of age, so that the program C(age) opens it as well.
  - Nothing is on the disk unencrypted while it is made.
  - It is opened into a state directory that is not there or empty, as a whole or not at all. Where this backup was opened already, nothing is changed.
seealso:
  - name: age
    description: The format, and the program.
    link: https://age-encryption.org
attributes:
  check_mode:
    description: Nothing is written. A backup that is to be opened is read and verified all the same.
    support: full
  diff_mode:
    description: There is no diff, since the content is secret.
    support: none
options:
  state:
    description: Whether the backup is V(made) or V(opened).
    type: str
    choices: [made, opened]
    required: true
  cluster:
    description: Name of the cluster. A backup of another one is not opened.
    type: str
    required: true
  state_dir:
    description: The controller's state directory.
    type: path
    required: true
  path:
    description: With O(state=made) the directory for the backup, which is named after the cluster and the time; with O(state=opened) the backup.
    type: path
    required: true
  snapshots:
    description: Snapshots of etcd, on this machine, that the backup is to have.
    type: list
    elements: path
    default: []
  passphrase:
    description: Passphrase of the backup. All of the backup is in memory then, and it has at most 512 MiB.
    type: str
  recipients:
    description: Public keys of age (V(age1...)) of those who may open it, instead of a passphrase.
    type: list
    elements: str
    default: []
  identity_file:
    description: File with the private key of one of the recipients, as C(age-keygen) writes it.
    type: path
  fixed:
    description:
      - What a cluster would be made with that cannot change afterwards, by option. A backup of a cluster that was made with something else is not opened.
    type: dict
    default: {}
  keep:
    description: How many backups of this cluster stay in O(path), the newest ones; V(0) for all.
    type: int
    default: 0
requirements:
  - pyrage >= 1.2
author:
  - The k8sgu authors (@k8sgu)
"""

EXAMPLES = r"""
- name: Make a backup
  k8sgu.cluster.cluster_backup:
    state: made
    cluster: demo
    state_dir: .state/demo
    path: backups
    snapshots: [/tmp/20261129T180210Z_etcd-3.6.14_rev-51234_backup.db]
    recipients: [age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p]

- name: Open it in an empty folder
  k8sgu.cluster.cluster_backup:
    state: opened
    cluster: demo
    state_dir: .state/demo
    path: demo-20261129T181500Z.tar.age
    identity_file: key.txt
"""

RETURN = r"""
path:
  description: The backup.
  returned: with O(state=made)
  type: str
  sample: backups/demo-20261129T181500Z.tar.age
bytes:
  description: Its size.
  returned: with O(state=made), when not in check mode
  type: int
  sample: 25334912
files:
  description: How many files of the state directory it has.
  returned: with O(state=made)
  type: int
  sample: 61
removed:
  description: Names of older backups that were too many.
  returned: with O(state=made)
  type: list
  elements: str
snapshots:
  description: Names of the snapshots that it has. Opened, they are in C(snapshots) of the state directory.
  returned: success
  type: list
  elements: str
  sample: ["20261129T180210Z_etcd-3.6.14_rev-51234_backup.db"]
made:
  description: When it was made, UTC.
  returned: with O(state=opened)
  type: str
  sample: 20261129T181500Z
fixed:
  description: What the cluster was made with, and has to be made with again.
  returned: with O(state=opened)
  type: dict
  sample: {k8sgu_pod_cidr: 10.200.0.0/16}
"""

from ansible_collections.k8sgu.cluster.plugins.module_utils._backup.run import MODULE
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import run_module


def main() -> None:
    run_module(MODULE)


if __name__ == "__main__":
    main()
