#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_key
short_description: Makes the key pair that snapshots in a bucket are encrypted for, once
version_added: 0.1.0
description:
  - Makes a private and a public key of age, as C(age-keygen) does. Nodes get the public one, and encrypt for it what they put into the bucket.
  - An existing key is never replaced, since nothing else opens what was encrypted for it. If the two files do not fit together, the task fails.
seealso:
  - name: age
    description: The format, and the program.
    link: https://age-encryption.org
author:
  - The k8sgu authors (@k8sgu)
requirements:
  - pyrage >= 1.2
attributes:
  check_mode:
    description: Can run in check mode and return what it would change.
    support: full
  diff_mode:
    description: Shows which file is written, never a private key.
    support: full
  idempotent:
    description: A second run changes nothing.
    support: full
options:
  path:
    description: File of the private key, mode 0600. Missing parent directories are created with mode 0700.
    type: path
    required: true
  public_path:
    description: File of the public key, mode 0644.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Make the key for snapshots in the bucket
  k8sgu.cluster.backup_key:
    path: .state/demo/secrets/backup-identity.txt
    public_path: .state/demo/secrets/backup-recipient.pub
"""

RETURN = r"""
changes:
  description: What was, or in check mode would be, written.
  returned: success
  type: list
  elements: str
  sample: ["a key is made", "the public key is written"]
"""

from ansible_collections.k8sgu.cluster.plugins.module_utils._backup.key import MODULE
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import run_module


def main() -> None:
    run_module(MODULE)


if __name__ == "__main__":
    main()
