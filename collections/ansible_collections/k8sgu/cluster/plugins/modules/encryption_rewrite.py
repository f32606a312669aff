#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation; the action plugin of this name does the work, always on the controller."""

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
extends_documentation_fragment:
  - k8sgu.cluster.controller
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
