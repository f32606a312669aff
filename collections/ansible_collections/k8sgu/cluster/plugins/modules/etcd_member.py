#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: etcd_member
short_description: Lets nodes join etcd and leave it
version_added: 0.1.0
description:
  - Runs on a node whose etcd works, and changes the list of members for other nodes. Two calls, with the start of the new node's
    etcd between them, make it a member. One call removes members.
  - A new member is a learner at first, without a vote, so that it never costs a quorum. It becomes a voter when it has the data.
  - A member of the same name that has lost its data is removed first, and so is one that is no node of the cluster any more and does
    not answer.
  - Refused before the first change where etcd has no quorum, where another member that stays does not answer or is a learner still,
    or where fewer members than a quorum would work afterwards.
author:
  - The k8sgu authors (@k8sgu)
seealso:
  - name: Runtime reconfiguration
    description: How etcd's members change, and what is unsafe.
    link: https://etcd.io/docs/v3.6/op-guide/runtime-configuration/
  - name: Learner
    description: Why a new member has no vote at first.
    link: https://etcd.io/docs/v3.6/learning/design-learner/
attributes:
  check_mode:
    description: Can run in check mode and return what it would do.
    support: full
  diff_mode:
    description: Shows the members before and after.
    support: full
  idempotent:
    description: A node that waits as a learner, one that is a voter, and one that is no member and shall be none, are not changed.
    support: full
extends_documentation_fragment:
  - k8sgu.cluster.etcd
options:
  name:
    description: The node's name, which is its member's too. One of O(nodes). Required with O(state=learner) and O(state=voter).
    type: str
  state:
    description:
      - V(learner) removes a member that the node was before and adds a learner. The node's etcd must have no data.
      - V(voter) makes the learner a voter as soon as it has the data, for which it waits.
      - V(follower) lets one of O(nodes) lead, if one of O(leaving) does, and says in RV(retiring) which of these can refuse clients and be
        restarted, one after another.
      - V(absent) removes the members of O(leaving), one after another, those that do not answer first and the leader last. Another
        member leads before it goes. All others have to answer before each removal.
    type: str
    choices: [learner, voter, follower, absent]
    required: true
  nodes:
    description: The address of every node that should be a member, by name. With O(leaving) that is of those that stay.
    type: dict
    required: true
  leaving:
    description: The address of every node that leaves, by name, with O(state=follower) and O(state=absent), which require it.
    type: dict
  retired:
    description:
      - Names of members of O(leaving) that refuse clients, and have a vote still.
      - For a second after its removal a member takes requests that it cannot answer any more. Nobody sends it any if it
        has refused them since its restart, as RV(retiring) says.
    type: list
    elements: str
    default: []
  without_data:
    description: Names of nodes that have no data yet and will join too. Their members need not answer.
    type: list
    elements: str
    default: []
  peer_port:
    description: Port at which members reach each other.
    type: int
    default: 2380
  timeout:
    description: Seconds to wait for a change that etcd refuses for the moment, such as for a learner that does not have all data yet.
    type: int
    default: 120
"""

EXAMPLES = r"""
- name: Add the node as a learner
  k8sgu.cluster.etcd_member:
    name: demo-control-plane-2
    state: learner
    nodes: {demo-control-plane-0: 10.240.0.10, demo-control-plane-1: 10.240.0.11, demo-control-plane-2: 10.240.0.12}
  delegate_to: demo-control-plane-0
  become: true
  register: added

# Now start etcd there, with the flag initial-cluster={{ added.initial_cluster }}.

- name: Give it its vote
  k8sgu.cluster.etcd_member:
    name: demo-control-plane-2
    state: voter
    nodes: {demo-control-plane-0: 10.240.0.10, demo-control-plane-1: 10.240.0.11, demo-control-plane-2: 10.240.0.12}
  delegate_to: demo-control-plane-0
  become: true

- name: Remove two of three members
  k8sgu.cluster.etcd_member:
    state: absent
    leaving: {demo-control-plane-1: 10.240.0.11, demo-control-plane-2: 10.240.0.12}
    nodes: {demo-control-plane-0: 10.240.0.10}
  delegate_to: demo-control-plane-0
  become: true
"""

RETURN = r"""
plan:
  description: What was changed, or would be, each with its reason.
  returned: success
  type: list
  elements: str
  sample: ["add demo-control-plane-2: demo-control-plane-2 has no data and is no member yet"]
member:
  description: The id of the node's member, in hexadecimal; empty in check mode if it would be added.
  returned: with O(state=learner) and O(state=voter)
  type: str
  sample: 53e2855db8f13054
members:
  description: Names of the members; the address of one that has not started.
  returned: unless O(state=follower)
  type: list
  elements: str
retiring:
  description: Names of members that leave and can be without clients from now on; none where a quorum would miss them in a restart.
  returned: with O(state=follower)
  type: list
  elements: str
initial_cluster:
  description: What etcd on the new node needs as C(initial-cluster).
  returned: with O(state=learner) and O(state=voter)
  type: str
  sample: demo-control-plane-0=https://10.240.0.10:2380,demo-control-plane-2=https://10.240.0.12:2380
"""

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.etcd_member import MODULE
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import run_module


def main() -> None:
    run_module(MODULE)


if __name__ == "__main__":
    main()
