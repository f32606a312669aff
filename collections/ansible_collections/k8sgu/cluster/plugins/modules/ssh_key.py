#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ssh_key
short_description: Make a key pair for SSH
version_added: 0.1.0
description:
  - Makes an Ed25519 key without a passphrase where there is none, with its public key beside it (C(.pub)).
  - A key that is there stays, of whatever kind it is. Its public key is derived from it again where that differs.
attributes:
  check_mode:
    support: full
    description: Nothing is written. Where there is no key yet, the public key returned belongs to one that is thrown away.
  diff_mode:
    support: full
    description: The diff shows the public key.
  idempotent:
    support: full
    description: A second run changes nothing.
options:
  path:
    description:
      - The private key's file, mode 0600. Missing directories are made with mode 0700.
    type: path
    required: true
  comment:
    description:
      - The comment of the public key.
    type: str
    default: ""
requirements:
  - cryptography
author:
  - The k8sgu authors (@k8sgu)
"""

EXAMPLES = r"""
- name: Make the cluster's key
  k8sgu.cluster.ssh_key:
    path: .state/demo/ssh/id_ed25519
    comment: k8sgu demo
"""

RETURN = r"""
path:
  description: The private key's file.
  returned: success
  type: str
  sample: .state/demo/ssh/id_ed25519
public_key:
  description: The public key as in C(authorized_keys).
  returned: success
  type: str
  sample: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA k8sgu demo
fingerprint:
  description: The public key's fingerprint.
  returned: success
  type: str
  sample: SHA256:uX1yo5uXyLzOlxKyTN7mBnXnEI8B4nZ8Ov9lFkqQp0c
"""

import importlib.util
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.k8sgu.cluster.plugins.module_utils._files import FileError
from ansible_collections.k8sgu.cluster.plugins.module_utils._ssh import keys


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "comment": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    if importlib.util.find_spec("cryptography") is None:
        module.fail_json(msg=missing_required_lib("cryptography"))
    path = Path(module.params["path"])
    try:
        wanted = keys.plan(path, module.params["comment"])
        if wanted.changed and not module.check_mode:
            keys.apply(path, wanted)
    except (keys.KeyFileError, FileError) as error:
        module.fail_json(msg=str(error))
    diff = {}
    if wanted.private is not None or wanted.write_public:
        diff = {"before": "", "after": wanted.public + "\n", "after_header": str(keys.public_path(path))}
    module.exit_json(
        changed=wanted.changed,
        diff=diff,
        path=str(path),
        public_key=wanted.public,
        fingerprint=wanted.fingerprint,
    )


if __name__ == "__main__":
    main()
