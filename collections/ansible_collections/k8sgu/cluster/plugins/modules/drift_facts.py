#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: drift_facts
short_description: Reads what may be left or added on a node
version_added: 0.1.0
description:
  - Returns the names of files in the directories of Kubernetes, etcd and the pod network, of units that start something of ours, of what
    changes units, of links to our programs, and of the components that were installed. No content leaves the node.
  - Reads it in one execution, with Python's standard library only. M(k8sgu.cluster.drift_report) compares it with what the components
    know, which M(k8sgu.cluster.component) returns in check mode.
author:
  - The k8sgu authors (@k8sgu)
extends_documentation_fragment:
  - k8sgu.cluster.read_only
"""

EXAMPLES = r"""
- name: Read what is on the node
  become: true
  k8sgu.cluster.drift_facts:
  register: there
"""

RETURN = r"""
shown:
  description: Lists of C(files), C(units), C(dropins) and C(links), which are paths, and of C(records), names of components.
  returned: success
  type: dict
"""

from ansible_collections.k8sgu.cluster.plugins.module_utils._drift.facts import run
from ansible_collections.k8sgu.cluster.plugins.module_utils._drift.options import ARGUMENT_SPECS
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Module, run_module


def main() -> None:
    run_module(Module(ARGUMENT_SPECS["drift_facts"], run))


if __name__ == "__main__":
    main()
