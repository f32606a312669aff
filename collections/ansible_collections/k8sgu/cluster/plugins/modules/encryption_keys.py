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
      - V(present) makes a key where there is none: 32 random bytes for each algorithm.
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

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.k8sgu.cluster.plugins.module_utils._encryption import choice as choices
from ansible_collections.k8sgu.cluster.plugins.module_utils._encryption.keys import (
    KeysError,
    parse,
    plan,
    refuse_loss,
    serialize,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import FileError, atomic_write


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "added", "promoted", "dropped"], "default": "present"},
            "in_use": {"type": "list", "elements": "str", "default": []},
            "choice": {"type": "dict", "options": choices.SPEC},
        },
        supports_check_mode=True,
    )
    path, state, choice = Path(module.params["path"]), module.params["state"], module.params["choice"]
    try:
        before = parse(path.read_text(), str(path)) if path.exists() else []
        record = choices.read(Path(choice["record"])) if choice else None
        needs_no_key = bool(choice) and choice["provider"] == choices.KMS
        # Where only a KMS provider wrote so far, the nodes hold no key that could be lost.
        if not before and not needs_no_key and (record is None or set(record.reads) != {choices.KMS}):
            refuse_loss(str(path), module.params["in_use"])
        after, reasons = (before, []) if needs_no_key and state == "present" else plan(before, state)
        if choice:
            now = choices.wanted(
                choice["provider"], after[0].name if after else "", choice["resources"], choice["kms_endpoint"]
            )
            refused = choices.problems(now, choice["kms_endpoint"], record, choice["servers"])
            if refused:
                module.fail_json(msg="\n".join(refused))
        if reasons and not module.check_mode:
            atomic_write(str(path), serialize(after).encode(), mode=0o600, directory_mode=0o700)
    except (KeysError, choices.RecordError, FileError, OSError) as error:
        module.fail_json(msg=str(error))
    names = [[key.name for key in keys] for keys in (before, after)]
    module.exit_json(
        changed=bool(reasons),
        names=names[1],
        reasons=reasons,
        **({"stale": now != record} if choice else {}),
        diff={"before": "\n".join(names[0]) + "\n", "after": "\n".join(names[1]) + "\n", "before_header": str(path)},
    )


if __name__ == "__main__":
    main()
