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
  - Keeps the file of keys on the controller from which the API server's C(EncryptionConfiguration) is written.
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
      - V(present) makes a key where there is none, 32 random bytes for each algorithm.
      - V(added) adds a key that can be read with.
      - V(promoted) makes the added key the one that writes.
      - V(dropped) leaves only the key that writes.
    type: str
    choices: [present, added, promoted, dropped]
    default: present
  in_use:
    description:
      - Names of nodes that already hold keys. Where there are some and the file is missing, nothing is made and the module fails, since
        a new key in the place of a lost one makes unreadable what is in etcd.
    type: list
    elements: str
    default: []
  choice:
    description:
      - What is to be encrypted and by what. It is held against the record of what etcd has; one that would leave something unreadable is
        refused with the way out. With V(kms) state V(present) makes no key.
    type: dict
    suboptions:
      provider:
        description: What writes.
        type: str
        choices: [secretbox, aescbc, kms]
        required: true
      resources:
        description: Resources that are encrypted.
        type: list
        elements: str
        required: true
      kms_endpoint:
        description: Socket of the KMS v2 provider; empty where there is none.
        type: str
        default: ""
      keys_file:
        description: The file of keys, whether it is there or not.
        type: path
        required: true
      record:
        description: The record that M(k8sgu.cluster.encryption_rewrite) keeps.
        type: path
        required: true
      servers:
        description: How many API servers there are.
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
  description: Whether something in etcd may be written otherwise than O(choice) says.
  returned: when O(choice) is given
  type: bool
reasons:
  description: Each change with its reason.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.k8sgu.cluster.plugins.module_utils._encryption.run import ERRORS, SPECIFICATION, keep


def main() -> None:
    module = AnsibleModule(**SPECIFICATION, supports_check_mode=True)
    try:
        result = keep(module.params, module.check_mode)
    except ERRORS as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
