#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: encryption_rewrite
short_description: Rewrites objects, so that they are encrypted with the key that writes now
version_added: 0.1.0
description:
  - Reads every object of the given resources and writes it back unchanged. The API server stores it only if the stored form is encrypted
    with another key, or is not encrypted but should be, or the other way round, see
    U(https://kubernetes.io/docs/tasks/administer-cluster/encrypt-data/#rotating-a-decryption-key).
author:
  - The k8sgu authors (@k8sgu)
requirements:
  - PyYAML
attributes:
  check_mode:
    description: Can run in check mode and return what it would do.
    support: partial
    details: The objects are counted and none is written. The number of stale ones is not known.
  diff_mode:
    description: Returns details on what has changed.
    support: none
  idempotent:
    description: A second run finds nothing stale.
    support: full
options:
  kubeconfig:
    description: Kubeconfig of an administrator.
    type: path
    required: true
  choice:
    description:
      - What is encrypted, and how. Resources in the record that are no longer chosen are rewritten too. At the end the choice is
        written to the record.
    type: dict
    required: true
    suboptions:
      provider:
        description: The provider that writes.
        type: str
        choices: [secretbox, aescbc, kms]
        required: true
      resources:
        description: Resources as named in the encryption configuration, V(secrets) or V(deployments.apps).
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
        description: The record to write, mode V(0600).
        type: path
        required: true
      servers:
        description: Number of API servers.
        type: int
        default: 1
  patience:
    description: Seconds that the API server may be unreachable.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Encrypt every Secret with the new key
  k8sgu.cluster.encryption_rewrite:
    kubeconfig: .state/demo/admin.kubeconfig
    choice:
      provider: secretbox
      resources: [secrets]
      keys_file: .state/demo/secrets/encryption-keys.json
      record: .state/demo/secrets/encryption-written.json
"""

RETURN = r"""
objects:
  description: For each resource, the number of objects and how many of them were rewritten.
  returned: success
  type: dict
  sample: {secrets: {found: 12, rewritten: 12}}
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.k8sgu.cluster.plugins.module_utils._encryption import choice as choices
from ansible_collections.k8sgu.cluster.plugins.module_utils._encryption.keys import KeysError
from ansible_collections.k8sgu.cluster.plugins.module_utils._encryption.rewrite import (
    collection_path,
    exists,
    objects,
    rewrite,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import FileError, atomic_write
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.client import Client
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.kubeconfig import load


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "kubeconfig": {"type": "path", "required": True},
            "choice": {"type": "dict", "required": True, "options": choices.SPEC},
            "patience": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    counts = {}
    record = Path(module.params["choice"]["record"])
    try:
        now, before = choices.from_options(module.params["choice"]), choices.read(record)
        gone = set(before.resources) - set(now.resources) if before else set()
        client = Client(load(module.params["kubeconfig"], None), module.params["patience"])
        for resource in (*now.resources, *sorted(gone)):
            if resource in gone and not exists(client, resource):
                continue
            if module.check_mode:
                found, stale = sum(1 for _item in objects(client, collection_path(client, resource))), 0
            else:
                found, stale = rewrite(client, resource)
            counts[resource] = {"found": found, "rewritten": stale}
        if now != before and not module.check_mode:
            atomic_write(str(record), choices.serialize(now).encode(), mode=0o600, directory_mode=0o700)
    except (KubernetesError, KeysError, choices.RecordError, FileError, OSError) as error:
        module.fail_json(msg=str(error), objects=counts)
    module.exit_json(changed=any(count["rewritten"] for count in counts.values()), objects=counts)


if __name__ == "__main__":
    main()
