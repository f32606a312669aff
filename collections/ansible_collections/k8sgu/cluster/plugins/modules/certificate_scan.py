#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: certificate_scan
short_description: Finds every certificate on a machine
version_added: 0.1.0
description:
  - Reads the certificates in PEM files and kubeconfigs below some directories, in one execution and with nothing but Python's standard library.
  - Keys are not returned. Of certificates that a kubelet rotates (C(kubelet-client-current.pem)), only the current one counts.
  - The filter P(k8sgu.cluster.certificate_report#filter) shows what is in them.
author:
  - The k8sgu authors (@k8sgu)
extends_documentation_fragment:
  - k8sgu.cluster.read_only
options:
  paths:
    description: Files and directories, which are searched recursively. Those that do not exist are ignored.
    type: list
    elements: path
    required: true
"""

EXAMPLES = r"""
- name: Find a node's certificates
  k8sgu.cluster.certificate_scan:
    paths: [/etc/kubernetes, /etc/etcd/pki, /var/lib/kubelet/pki]
  register: scan
"""

RETURN = r"""
certificates:
  description: The certificates.
  returned: success
  type: list
  elements: dict
  contains:
    place:
      description: The file, with C(#) and a number if it has several certificates.
      type: str
      sample: /etc/kubernetes/pki/client-ca-bundle.pem#2
    pem:
      description: The certificate.
      type: str
"""

from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Module, run_module
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.certificate_scan import Unreadable, run
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.options import ARGUMENT_SPECS


def main() -> None:
    run_module(Module(ARGUMENT_SPECS["certificate_scan"], run, (Unreadable,)))


if __name__ == "__main__":
    main()
