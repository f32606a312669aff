#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: encryption_keys
short_description: Keep and rotate the keys of encryption at rest
version_added: 0.1.0
description:
  - Manages the file of keys on the controller from which the API server's C(EncryptionConfiguration) is written.
  - The states V(added), V(promoted) and V(dropped) are the steps of a rotation, see
    U(https://kubernetes.io/docs/tasks/administer-cluster/encrypt-data/#rotating-a-decryption-key).
  - No key is ever returned, shown or logged.
author:
  - The k8sgu authors (@k8sgu)
attributes:
  check_mode:
    description: Can run in check mode and predict what would change.
    support: full
  diff_mode:
    description: Shows the names of the keys, never the keys.
    support: full
  idempotent:
    description: A second run of the same state changes nothing.
    support: full
options:
  path:
    description: The file, mode V(0600); its directory is made with mode V(0700).
    type: path
    required: true
  state:
    description:
      - V(present) makes a key if there is none, 32 random bytes for each algorithm.
      - V(added) adds a key for reading.
      - V(promoted) makes the added key the writing key.
      - V(dropped) leaves only the key that writes.
    type: str
    choices: [present, added, promoted, dropped]
    default: present
  in_use:
    description:
      - Names of nodes that already have keys. If there are any and the file is missing, the module fails, since replacing a lost key
        would make the data in etcd unreadable.
    type: list
    elements: str
    default: []
  choice:
    description:
      - What to encrypt, and how. It is compared with the record of what etcd has; a choice that would make something unreadable is
        refused, with what to do instead. With V(kms), state V(present) makes no key.
    type: dict
    suboptions:
      provider:
        description: The provider that writes.
        type: str
        choices: [secretbox, aescbc, kms]
        required: true
      resources:
        description: Resources to encrypt.
        type: list
        elements: str
        required: true
      kms_endpoint:
        description: Socket of the KMS v2 provider; empty if there is none.
        type: str
        default: ""
      keys_file:
        description: The file of keys; it need not exist.
        type: path
        required: true
      record:
        description: The record that M(k8sgu.cluster.encryption_rewrite) writes.
        type: path
        required: true
      servers:
        description: Number of API servers.
        type: int
        default: 1
"""

EXAMPLES = r"""
- name: Make a key
  k8sgu.cluster.encryption_keys:
    path: .state/demo/secrets/encryption-keys.json
"""

RETURN = r"""
names:
  description: Names of the keys, the writing one first.
  returned: success
  type: list
  elements: str
  sample: [key-1]
stale:
  description: Whether something in etcd may be written differently from O(choice).
  returned: when O(choice) is given
  type: bool
reasons:
  description: Each change with its reason.
  returned: success
  type: list
  elements: str
"""

from ansible_collections.k8sgu.cluster.plugins.module_utils._encryption.encryption_keys import MODULE
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import run_module


def main() -> None:
    run_module(MODULE)


if __name__ == "__main__":
    main()
