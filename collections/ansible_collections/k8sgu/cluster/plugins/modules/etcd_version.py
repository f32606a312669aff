#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_version
short_description: Lets etcd's members be replaced by those of another version
version_added: 0.1.0
description:
  - Runs on a member of etcd and asks all of them. One call comes before the first member is replaced, and one after the last; members
    themselves are replaced between the two calls, one after another.
  - On the way back to the minor version before, etcd has to be told first. Every member then takes what the older version does not know
    out of its data, while it serves; a member of the older version does not start before.
  - Forward, a way back that was begun is ended. etcd rises by itself when its last member was replaced.
  - Refused before the first change are more than one minor version, an etcd that does not have all its members, a learner, or an alarm, and
    members too old to be joined by those of the next version.
author:
  - The k8sgu authors (@k8sgu)
seealso:
  - name: Upgrading etcd
    description: The rules forward.
    link: https://etcd.io/docs/v3.7/upgrades/upgrade_3_7/
  - name: Downgrading etcd
    description: The rules back.
    link: https://etcd.io/docs/v3.7/downgrades/downgrade_3_7/
attributes:
  check_mode:
    description: Refuses what a run would, and returns what it would do; V(settled) tells what it would wait for, and does not wait.
    support: full
  diff_mode:
    description: Shows the members' programs and data before and after.
    support: full
  idempotent:
    description: Every call can be repeated, also while some members are of one version and some of the other.
    support: full
extends_documentation_fragment:
  - k8sgu.cluster.etcd
options:
  version:
    description: The version that the members will have, or have now, such as V(3.7.3). Only its minor version counts.
    type: str
    required: true
  state:
    description:
      - With V(ready), members may be replaced by those of O(version) afterwards.
      - V(settled) waits until all members run O(version), their data is of it, and no way back is under way.
    type: str
    choices: [ready, settled]
    required: true
  nodes:
    description: The address of every node that is a member, by name. One that is none is an error.
    type: dict
    required: true
  timeout:
    description: Seconds to wait for the members. They look for a change every four seconds.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: Let etcd go back
  k8sgu.cluster.etcd_version:
    version: 3.6.14
    state: ready
    nodes: {demo-control-plane-0: 10.240.0.10, demo-control-plane-1: 10.240.0.11, demo-control-plane-2: 10.240.0.12}
  become: true
  register: etcd

# Now replace the members, in the order etcd.order.

- name: Wait until etcd is there
  k8sgu.cluster.etcd_version:
    version: 3.6.14
    state: settled
    nodes: {demo-control-plane-0: 10.240.0.10, demo-control-plane-1: 10.240.0.11, demo-control-plane-2: 10.240.0.12}
  become: true
"""

RETURN = r"""
plan:
  description: What was done, or would be, each with its reason.
  returned: success
  type: list
  elements: str
  sample: ["let etcd go back to 3.6: all 3 members are at 3.7"]
members:
  description: The version of each member's program and of its data, by node.
  returned: success
  type: dict
  sample: {demo-control-plane-0: {version: 3.7.3, data: 3.6.0}}
order:
  description: The members in the order in which they should be replaced, the leader last, so that it changes only once.
  returned: success
  type: list
  elements: str
  sample: [demo-control-plane-1, demo-control-plane-2, demo-control-plane-0]
settled:
  description: Whether all members run O(version), with data of it, and no way back is under way.
  returned: success
  type: bool
"""

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.etcd_version import MODULE
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import run_module


def main() -> None:
    run_module(MODULE)


if __name__ == "__main__":
    main()
