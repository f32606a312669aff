#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: security_facts
short_description: Reads what the security report checks on a node
version_added: 0.1.0
description:
  - Returns the command lines of the cluster's running programs, owners and modes of their files, and the contents of configuration files
    without secrets. Of keys, kubeconfigs and the encryption configuration only owners, modes and the names of providers leave the node.
  - Reads it in one execution, with Python's standard library only. M(k8sgu.cluster.security_report) checks it.
author:
  - The k8sgu authors (@k8sgu)
extends_documentation_fragment:
  - k8sgu.cluster.read_only
"""

EXAMPLES = r"""
- name: Read the node
  become: true
  k8sgu.cluster.security_facts:
  register: facts
"""

RETURN = r"""
shown:
  description: Processes, files, texts and names of encryption providers.
  returned: success
  type: dict
"""

from ansible_collections.k8sgu.cluster.plugins.module_utils._cis.node import run
from ansible_collections.k8sgu.cluster.plugins.module_utils._cis.options import ARGUMENT_SPECS
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Module, run_module


def main() -> None:
    run_module(Module(ARGUMENT_SPECS["security_facts"], run))


if __name__ == "__main__":
    main()
