#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: node_facts
short_description: Reads the facts of a node that the roles need
version_added: 0.1.0
description:
  - Reads the cgroup version, limits, memory and distribution of a node in one execution, in a tenth of the time of Ansible's own facts.
  - The roles use it to choose the runtime's limits and to keep the cgroup driver of a node with pods, see
    U(https://kubernetes.io/docs/setup/production-environment/container-runtimes/).
  - Its own files are in the memory of the node (C(/dev/shm)), so that a node is read whose disks are full or read-only.
author:
  - The k8sgu authors (@k8sgu)
extends_documentation_fragment:
  - k8sgu.cluster.read_only
options: {}
"""

EXAMPLES = r"""
- name: Read the node
  k8sgu.cluster.node_facts:
  become: true
"""

RETURN = r"""
ansible_facts:
  description: The facts of the node.
  returned: always
  type: dict
  contains:
    k8sgu_node:
      description: All facts in one dictionary.
      returned: always
      type: dict
      contains:
        cgroup_version:
          description: V(2) on a unified hierarchy, otherwise V(1).
          returned: always
          type: int
        can_lower_oom_score:
          description: Whether processes can get a lower C(oom_score_adj), which needs C(CAP_SYS_RESOURCE).
          returned: always
          type: bool
        max_open_files:
          description: The hard limit of open files.
          returned: always
          type: int
        architecture:
          description: The architecture in the form of C(uname -m).
          returned: always
          type: str
        kernel:
          description: The kernel's release.
          returned: always
          type: str
        hostname:
          description: The host name.
          returned: always
          type: str
        distribution:
          description: C(ID) of C(/etc/os-release).
          returned: always
          type: str
        distribution_version:
          description: C(VERSION_ID) of C(/etc/os-release).
          returned: always
          type: str
        kube_proxy_mode:
          description:
            - V(nftables), or V(iptables) if the kernel or the distribution's C(nft) is too old for that mode,
              see U(https://kubernetes.io/docs/reference/networking/virtual-ips/#proxy-mode-nftables).
          returned: always
          type: str
        cpus:
          description: The number of processors.
          returned: always
          type: int
        memory_bytes:
          description: The memory of the machine in bytes.
          returned: always
          type: int
        swap_bytes:
          description: The swap space in bytes.
          returned: always
          type: int
        resolv_conf:
          description: The resolver configuration with real name servers, usable for pods.
          returned: always
          type: str
        name_servers:
          description: The IPv4 name servers in it, without those on loopback.
          returned: always
          type: list
          elements: str
        domain_name:
          description: The host name with the first domain that the resolver searches; empty where it searches none.
          returned: always
          type: str
          sample: ip-10-240-0-10.ec2.internal
        mtu:
          description: The MTU in bytes of the default route's interface.
          returned: always
          type: int
        encrypts:
          description: Whether an API server was set up here, with keys of encryption at rest.
          returned: always
          type: bool
        active_units:
          description: Which of C(etcd.service) and C(kube-apiserver.service) have started.
          returned: always
          type: list
          elements: str
        programs:
          description: The programs of the cluster that are installed, as C(component/version/file).
          returned: always
          type: list
          elements: str
        membership:
          description:
            - What the node shows of its cluster; reading all of it needs root. C(cluster) is the owner's name, C(born) whether the API has run here,
              C(fixed) the options that the cluster was made with, C(programs) the version of each component that is in use, C(kept) the versions
              of the API server that are on the node, C(emulates) the minor version as which it behaves if that is not its own, C(runtime) the
              kubelet's container runtime, C(cgroup_driver) that runtime's cgroup driver, C(pods) the number of pods on the node.
            - C(etcd) is the node's member, with C(data) whether its directory has any, C(joined) whether it has ever had a quorum, C(volume) whether
              it is on a volume of its own, C(mounted) whether its directory is a mount, C(initial) the names at its first start,
              C(members) the members that it lists, each with C(name), C(address), C(started) and C(learner); none if it does not answer, and
              C(refused) whether that is because of a certificate that is not accepted.
          returned: always
          type: dict
        python:
          description: The version of the Python that runs modules.
          returned: always
          type: str
"""

from ansible_collections.k8sgu.cluster.plugins.module_utils._node.facts import run
from ansible_collections.k8sgu.cluster.plugins.module_utils._node.options import ARGUMENT_SPECS
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Module, run_module


def main() -> None:
    run_module(Module(ARGUMENT_SPECS["node_facts"], run))


if __name__ == "__main__":
    main()
