#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: ssh_key
short_description: Makes a key pair for SSH
version_added: 0.1.0
description:
  - Makes an Ed25519 key without a passphrase if there is none, with its public key beside it (C(.pub)).
  - An existing key is kept, whatever its kind. Its public key is derived again if the file differs.
attributes:
  check_mode:
    support: full
    description: Nothing is written. If there is no key yet, the returned public key belongs to a temporary one.
  diff_mode:
    support: full
    description: The diff shows the public key.
  idempotent:
    support: full
    description: A second run changes nothing.
options:
  path:
    description:
      - The private key's file, mode 0600. Missing directories are created with mode 0700.
    type: path
    required: true
  comment:
    description:
      - The comment of the public key.
    type: str
    default: ""
requirements:
  - cryptography >= 42
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
  description: The public key in the form for C(authorized_keys).
  returned: success
  type: str
  sample: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA k8sgu demo
fingerprint:
  description: The public key's fingerprint.
  returned: success
  type: str
  sample: SHA256:uX1yo5uXyLzOlxKyTN7mBnXnEI8B4nZ8Ov9lFkqQp0c
"""

from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import run_module
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.ssh_key import MODULE


def main() -> None:
    run_module(MODULE)


if __name__ == "__main__":
    main()
