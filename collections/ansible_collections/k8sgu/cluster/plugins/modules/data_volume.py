#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: data_volume
short_description: Puts an EBS volume where a program's data is to be
version_added: 0.1.0
description:
  - Finds the disk of a volume by the volume's id in C(/dev/disk/by-id), as instances of the Nitro system show it, and waits for it.
  - A blank disk gets an ext4 file system, once, with a mark of the cluster and node that it belongs to. A disk with anything else on it is
    refused and not touched; so is one with the mark of another cluster or node, and a directory with data on the root disk.
  - A systemd unit mounts it. The program's unit needs C(RequiresMountsFor), so that it never starts on the directory below.
  - When the volume has grown, the file system grows, while it is mounted. Only where the kernel does not allow that to root (without
    C(CAP_SYS_RESOURCE)), O(unit) is stopped for it and started again.
author:
  - The k8sgu authors (@k8sgu)
requirements:
  - e2fsprogs and util-linux on the node
attributes:
  check_mode:
    support: full
    description: Predicts the changes and changes nothing.
  diff_mode:
    support: full
    description: Lists the changes with their reasons.
  idempotent:
    support: full
    description: A volume that is in its place and has its size is left alone. A run that was cut off is completed by the next.
options:
  volume_id:
    description: The id of the volume.
    type: str
    required: true
  size:
    description: GiB that the disk must have at least, so that a volume which grows is waited for; V(0) for any.
    type: int
    default: 0
  path:
    description: Where the file system is mounted.
    type: path
    default: /var/lib/etcd
  unit:
    description: The unit that uses it.
    type: str
    default: etcd.service
  cluster:
    description: The cluster that the data belongs to.
    type: str
    required: true
  node:
    description: The node that the data belongs to.
    type: str
    required: true
  timeout:
    description: Seconds to wait for the disk, and for its size.
    type: int
    default: 60
"""

EXAMPLES = r"""
- name: Put etcd's data on its volume
  k8sgu.cluster.data_volume:
    volume_id: vol-0123456789abcdef0
    cluster: demo
    node: demo-control-plane-0
  become: true
"""

RETURN = r"""
device:
  description: The disk's device, whose name may differ after a start.
  returned: success
  type: str
  sample: /dev/nvme1n1
reasons:
  description: The changes, each with its reason.
  returned: success
  type: list
  elements: str
"""

from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Module, run_module
from ansible_collections.k8sgu.cluster.plugins.module_utils._volume.disk import VolumeError
from ansible_collections.k8sgu.cluster.plugins.module_utils._volume.options import ARGUMENT_SPEC
from ansible_collections.k8sgu.cluster.plugins.module_utils._volume.run import run


def main() -> None:
    run_module(Module(ARGUMENT_SPEC, run, (VolumeError,)))


if __name__ == "__main__":
    main()
