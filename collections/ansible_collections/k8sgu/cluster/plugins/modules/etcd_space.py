#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_space
short_description: Gives back the space that etcd's files have free
version_added: 0.1.0
description:
  - Runs on a member of etcd and asks all of them. One after another, those are defragmented of whose file enough is free; a member serves
    nobody meanwhile.
  - The leader is the last, and another one leads before it is defragmented. Before and after each of them every member has to answer.
  - Refused before the first change is an etcd of which a member does not answer, that has no leader, or that reports a fault of another kind,
    such as C(CORRUPT).
author:
  - The k8sgu authors (@k8sgu)
seealso:
  - name: Maintenance
    description: History, fragments and the quota.
    link: https://etcd.io/docs/v3.6/op-guide/maintenance/
attributes:
  check_mode:
    description: Refuses what a run would, and returns what it would do. What the history takes up is not known before it is gone.
    support: full
  diff_mode:
    description: Shows the members' files before and after.
    support: full
  idempotent:
    description: A member that was defragmented has nothing free. A run that was cut off is gone on with by the next.
    support: full
extends_documentation_fragment:
  - k8sgu.cluster.etcd
options:
  state:
    description:
      - With V(defragmented), an etcd that takes no writes since its quota is used up is an error.
      - With V(writable), that etcd is brought back. Its history is compacted, which the API servers cannot do any more since they have to
        write for that; every member is defragmented; and the alarm C(NOSPACE) is cleared. Watches that are behind begin anew. If what is
        left still fills the quota, the alarm stays, and the error has the numbers. So is an etcd whose file is as large as its quota, as where
        that was lowered, since its next write would raise the alarm.
    type: str
    choices: [defragmented, writable]
    required: true
  percent:
    description: How much of a member's file has to be free, in percent, from 1 to 99. It does not count when the quota is used up.
    type: int
    default: 45
  nodes:
    description: The address of every node that is a member, by name. One that is none is an error. Others are named as etcd does.
    type: dict
    default: {}
  timeout:
    description: Seconds that the compaction and each member may take, and that the other members are waited for with each step.
    type: int
    default: 300
"""

EXAMPLES = r"""
- name: Defragment members of whose file more than half is free
  k8sgu.cluster.etcd_space:
    state: defragmented
    percent: 50
  become: true
  run_once: true
"""

RETURN = r"""
plan:
  description: What was done, or would be, each with its reason.
  returned: success
  type: list
  elements: str
  sample: ["defragment demo-control-plane-0: 21.3 of 84.1 MiB are in use; 74 % of its file are free"]
members:
  description: The size of each member's file, what of it is in use, and the quota, in bytes, by node; C(told) is that in words.
  returned: success
  type: dict
  sample: {demo-control-plane-0: {size: 22335488, used: 22331392, quota: 4294967296,
    told: "demo-control-plane-0: 21.3 of 21.3 MiB in use, quota 4096.0 MiB"}}
advice:
  description: Says how much of the quota what is in etcd fills, if that is nine tenths or more.
  returned: success
  type: list
  elements: str
  sample: []
alarm:
  description: Whether etcd takes no writes, since its quota is used up.
  returned: success
  type: bool
freed:
  description: By how many bytes the members' files together became smaller.
  returned: success
  type: int
"""

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.etcd_space import MODULE
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import run_module


def main() -> None:
    run_module(MODULE)


if __name__ == "__main__":
    main()
