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
      - V(present) makes a key of 32 random bytes where there is none.
      - V(added) adds a key that can be read with.
      - V(promoted) makes the added key the one that writes.
      - V(dropped) leaves only the key that writes.
    type: str
    choices: [present, added, promoted, dropped]
    default: present
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
reasons:
  description: Each change with its reason.
  returned: success
  type: list
  elements: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.k8sgu.cluster.plugins.module_utils._encryption.keys import KeysError, parse, plan, serialize
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import FileError, atomic_write


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "added", "promoted", "dropped"], "default": "present"},
        },
        supports_check_mode=True,
    )
    path = Path(module.params["path"])
    try:
        before = parse(path.read_text(), str(path)) if path.exists() else []
        after, reasons = plan(before, module.params["state"])
        if reasons and not module.check_mode:
            atomic_write(str(path), serialize(after).encode(), mode=0o600, directory_mode=0o700)
    except (KeysError, FileError, OSError) as error:
        module.fail_json(msg=str(error))
    names = [[key.name for key in keys] for keys in (before, after)]
    module.exit_json(
        changed=bool(reasons),
        names=names[1],
        reasons=reasons,
        diff={"before": "\n".join(names[0]) + "\n", "after": "\n".join(names[1]) + "\n", "before_header": str(path)},
    )


if __name__ == "__main__":
    main()
