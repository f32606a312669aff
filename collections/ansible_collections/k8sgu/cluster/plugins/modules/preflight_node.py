#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight_node
short_description: Reads the facts of a machine that are checked before it becomes a node
version_added: 0.1.0
description:
  - Reads operating system, memory, disks, clock, kernel features, listening sockets and owner of a machine in one execution.
  - M(k8sgu.cluster.preflight_description) checks them. Reading the programs of sockets needs root.
  - Its own files are in the memory of the node (C(/dev/shm)), so that a node is read whose disks are full or read-only.
author:
  - The k8sgu authors (@k8sgu)
extends_documentation_fragment:
  - k8sgu.cluster.read_only
options:
  reach:
    description: Addresses, C(host:port), to which the machine tries a TCP connection.
    type: list
    elements: str
    default: []
  volume:
    description: The id of the machine's volume for etcd; empty for none.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Read the machine
  k8sgu.cluster.preflight_node:
  become: true
  register: preflight_probe
"""

RETURN = r"""
node:
  description: What was read.
  returned: success
  type: dict
  contains:
    distribution:
      description: C(ID) of C(/etc/os-release).
      returned: always
      type: str
    distribution_version:
      description: C(VERSION_ID) of C(/etc/os-release), empty if it has none.
      returned: always
      type: str
    architecture:
      description: The architecture in the form of C(uname -m).
      returned: always
      type: str
    memory_mb:
      description: Memory in MiB.
      returned: always
      type: int
    disk_total_gb:
      description: Size of the file system of C(/var/lib) in GiB.
      returned: always
      type: float
    disk_free_gb:
      description: Its free space in GiB.
      returned: always
      type: float
    file_systems:
      description:
        - Each file system that is written to, with C(mount), its C(directories), C(size_mb), C(free_mb), C(inodes) (0 if it has no
          fixed number), C(free_inodes) and C(read_only).
      returned: always
      type: list
      elements: dict
    owner:
      description: The content of C(/etc/k8sgu/cluster.json), empty if it does not exist.
      returned: always
      type: str
    kernel:
      description: For each feature (C(br_netfilter), C(overlay), C(nf_tables)), whether the kernel has it.
      returned: always
      type: dict
    listeners:
      description: Listening TCP and bound UDP sockets, each with C(address), C(port), C(program) and C(protocol).
      returned: always
      type: list
      elements: dict
    cloud_init:
      description:
        - Whether cloud-init ran at this boot (C(enabled)) and has C(finished), the C(stage) that it is in, and the C(errors) that broke it.
      returned: always
      type: dict
    unreached:
      description: Addresses of O(reach) that could not be reached, with the reason.
      returned: always
      type: dict
    volume:
      description:
        - The disk of O(volume) and what is where it is to be mounted; C(error) if it cannot be read. Empty without one.
      returned: always
      type: dict
    time:
      description: The machine's clock, in seconds since 1970.
      returned: always
      type: float
clock:
  description: The controller's clock C(before) and C(after) the execution, in seconds since 1970.
  returned: always
  type: dict
"""

from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Module, run_module
from ansible_collections.k8sgu.cluster.plugins.module_utils._preflight.options import ARGUMENT_SPECS
from ansible_collections.k8sgu.cluster.plugins.module_utils._preflight.probe import run


def main() -> None:
    run_module(Module(ARGUMENT_SPECS["preflight_node"], run))


if __name__ == "__main__":
    main()
