#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: upgrade_facts
short_description: Reads from a node what decides whether it can get another release
version_added: 0.1.0
description:
  - Returns which of the release's programs and images are on the node with the right checksum, which versions are installed and run, what
    its member of etcd says, free space, its certificates (no keys), and who used an API that a release removes, from the audit log.
  - Asks the release's own programs, as far as they are on the node, which flags they know, whether they take the feature gates
    in O(flags), and whether its kubelet takes the node's configuration. They run as nobody, and end before they do anything.
  - M(k8sgu.cluster.upgrade_gates) judges it. Needs root on the node. Checksums come from the release file and the mirror on the
    controller.
author:
  - The k8sgu authors (@k8sgu)
seealso:
  - module: k8sgu.cluster.upgrade_gates
extends_documentation_fragment:
  - k8sgu.cluster.read_only
options:
  kubernetes_version:
    description: The release's version of Kubernetes. One that is not among the releases has no files; the gates tell it.
    type: str
    required: true
  releases_dir:
    description: The directory of the release files, on the controller.
    type: path
    required: true
  mirror_dir:
    description: The mirror, on the controller.
    type: path
    required: true
  architecture:
    description: The node's architecture, as the mirror names it, such as V(amd64).
    type: str
    required: true
  images:
    description: Names of the release's images that the node has to have.
    type: list
    elements: str
    default: []
  flags:
    description: The variables with flags of the user's own that this host has, such as C(k8sgu_apiserver_extra_flags).
    type: dict
    default: {}
  member:
    description: The name of the node's member of etcd; empty without one.
    type: str
    default: ""
  back:
    description: Whether the release is an older one. Then etcd is asked whether it would go back to that release's version.
    type: bool
    default: false
  ask_programs:
    description: Whether to ask the release's programs which flags they know. One node of a cluster is enough.
    type: bool
    default: false
  image_directory:
    description: Where the runtime keeps images.
    type: path
    default: /var/lib/containerd
  snapshot_directory:
    description: Where a snapshot of etcd will be written, on the node that writes it.
    type: path
  prepared:
    description: Is filled in by the action plugin and cannot be given.
    type: dict
"""

EXAMPLES = r"""
- name: Read what decides whether the node can get 1.37.2
  k8sgu.cluster.upgrade_facts:
    kubernetes_version: 1.37.2
    releases_dir: "{{ k8sgu_releases_dir }}"
    mirror_dir: "{{ k8sgu_mirror_dir }}"
    architecture: amd64
    member: "{{ inventory_hostname if inventory_hostname in groups['etcd'] else '' }}"
  become: true
  register: read
"""

RETURN = r"""
facts:
  description:
    - C(installed) and C(running) have versions by component and program, C(files) and C(images) what the release brings with its
      C(state), C(disks) free bytes, C(known) flags by program, C(refused_gates), C(etcd) the member, C(certificates) PEM texts,
      C(deprecated) who used which API.
  returned: success
  type: dict
"""

from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Module, run_module
from ansible_collections.k8sgu.cluster.plugins.module_utils._upgrade.facts import run
from ansible_collections.k8sgu.cluster.plugins.module_utils._upgrade.options import ARGUMENT_SPECS


def main() -> None:
    run_module(Module(ARGUMENT_SPECS["upgrade_facts"], run))


if __name__ == "__main__":
    main()
