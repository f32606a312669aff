#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: encryption_scan
short_description: Proves that one key encrypts everything in etcd
version_added: 0.1.0
description:
  - Reads every value in etcd on a node with a member. Values of the given resources must begin with the prefix, and no other value may be
    encrypted with another key; otherwise the module fails and names some. This must hold before a key is dropped.
  - Only names of values are returned, never their content.
author:
  - The k8sgu authors (@k8sgu)
extends_documentation_fragment:
  - k8sgu.cluster.read_only
options:
  resources:
    description: Resources as named in the encryption configuration, V(secrets) or V(deployments.apps).
    type: list
    elements: str
    required: true
  prefix:
    description: Prefix that each of their values must have, for example V(k8s:enc:secretbox:v1:key-2:).
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Check that nothing needs the old key
  become: true
  k8sgu.cluster.encryption_scan:
    resources: [secrets]
    prefix: "k8s:enc:secretbox:v1:key-2:"
"""

RETURN = r"""
values:
  description: Number of values of the resources.
  returned: success
  type: int
"""

from ansible_collections.k8sgu.cluster.plugins.module_utils._encryption.encryption_scan import KeyStillNeeded, run
from ansible_collections.k8sgu.cluster.plugins.module_utils._encryption.options import ARGUMENT_SPECS
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Module, run_module


def main() -> None:
    run_module(Module(ARGUMENT_SPECS["encryption_scan"], run, (KeyStillNeeded,)))


if __name__ == "__main__":
    main()
