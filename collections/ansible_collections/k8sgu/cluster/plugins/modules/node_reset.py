#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_reset
short_description: Makes a node what it was before this collection
version_added: 0.1.0
description:
  - Takes back everything that M(k8sgu.cluster.component) and M(k8sgu.cluster.data_volume) did on the node. What that is they record on it
    before they change it, in C(/var/lib/k8sgu/origin.json), so there is no second list of it.
  - Stops and removes units, ends the containers' processes, unmounts what they mounted, and removes interfaces, packet rules, accounts and
    packages that came with the collection. Files, settings and swap areas that were there before are put back.
  - Packages that were there before stay, as does one that another package needs. They are named.
  - On a volume of its own, etcd's data is removed; the volume and its file system stay, since they belong to the infrastructure.
  - Kernel modules stay loaded until the next boot.
  - The record goes last, so that a run that was cut off is completed by the next. What cannot be removed fails the task, which names it with
    the reason; everything else is done.
  - It does not drain the node and does not care what runs on it.
author:
  - The k8sgu authors (@k8sgu)
attributes:
  check_mode:
    support: full
    description: Predicts the steps and changes nothing.
  diff_mode:
    support: full
    description: Lists the steps with their reasons.
  idempotent:
    support: full
    description: A node that is as it was before is left alone.
options:
  cluster:
    description: The cluster that the node belongs to. A node of another one is refused.
    type: str
    required: true
  lock_timeout:
    description: Seconds to wait for another run that is working on the node.
    type: int
    default: 300
"""

EXAMPLES = r"""
- name: Make it a bare machine
  k8sgu.cluster.node_reset:
    cluster: demo
  become: true
"""

RETURN = r"""
steps:
  description: The steps, each with its reason.
  returned: success
  type: list
  elements: str
  sample: ["stop kubelet.service  # ours"]
stays:
  description: What stays although it was asked to be as before, with the reason.
  returned: success
  type: list
  elements: str
"""

from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import ComponentError
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Module, run_module
from ansible_collections.k8sgu.cluster.plugins.module_utils._reset.options import ARGUMENT_SPEC
from ansible_collections.k8sgu.cluster.plugins.module_utils._reset.run import run


def main() -> None:
    run_module(Module(ARGUMENT_SPEC, run, (ComponentError,)))


if __name__ == "__main__":
    main()
