#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: signing_key
short_description: Makes the key pair that signs tokens, once
version_added: 0.1.0
description:
  - Makes a private key and its public key in two PEM files, as C(kube-apiserver) and C(kube-controller-manager) use
    them for service-account tokens, see U(https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/).
  - An existing key is never replaced, since every token that it signed would become invalid. If it does not fit, the task fails.
author:
  - The k8sgu authors (@k8sgu)
requirements:
  - cryptography >= 42
attributes:
  check_mode:
    description: Can run in check mode and return what it would change.
    support: full
  diff_mode:
    description: Shows which file is written, never a key.
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
    description:
      - File of the public key, mode 0644. Other public keys in it stay, so that tokens of a former key can be verified until they expire.
    type: path
    required: true
  algorithm:
    description: Kind of key. Every verifier of such tokens supports V(rsa), including those of cloud providers.
    type: str
    choices: [rsa, ecdsa]
    default: rsa
  size:
    description: Bits, 2048, 3072 or 4096 for V(rsa) and 256, 384 or 521 for V(ecdsa). The default is 2048 or 256.
    type: int
"""

EXAMPLES = r"""
- name: Make the key for service-account tokens
  k8sgu.cluster.signing_key:
    path: pki/sa.key
    public_path: pki/sa.pub
"""

RETURN = r"""
changes:
  description: What was, or in check mode would be, written.
  returned: success
  type: list
  elements: str
  sample: ["a key is made: rsa 2048"]
"""

from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import run_module
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.signing_key import MODULE


def main() -> None:
    run_module(MODULE)


if __name__ == "__main__":
    main()
