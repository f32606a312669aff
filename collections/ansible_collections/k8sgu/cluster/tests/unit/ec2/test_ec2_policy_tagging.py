# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the policy lets its holder tag: with the documents alone, since moto does not evaluate such conditions."""

from __future__ import annotations

import pytest
from test_ec2_plan import description, pool

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import policy
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description
from ec2lab.api.policies import ALLOWED, decide

INSTANCE = "arn:aws:ec2:us-east-1:123456789012:instance/i-1"
THREE = (pool("control_plane", 3), pool("workers", 1))
MARK = "k8sgu.io/cluster/demo"
OURS, ASKED = {f"aws:ResourceTag/{MARK}": ["owned"]}, {f"aws:RequestTag/{MARK}": ["owned"]}
LAYOUTS = [
    description(),
    description(private_nodes=True),
    description(pools=THREE),
    description(vpc_id="vpc-1", subnet_ids=("subnet-1",)),
    Description("demo", "us-east-1"),
]


@pytest.mark.parametrize("wanted", LAYOUTS)
def test_what_is_made_is_tagged_with_the_cluster_alone(wanted: Description) -> None:
    document = policy.document(wanted)
    made = {action for statement in document["Statement"] for action in statement["Action"]} & policy.TAGGING
    assert {"ec2:CreateSecurityGroup", "ec2:RunInstances"} <= made
    for action in made:
        at_creation = {"ec2:CreateAction": [action.partition(":")[2]]}
        assert decide([document], "ec2:CreateTags", INSTANCE, {**at_creation, **ASKED}) == ALLOWED, action
        assert decide([document], "ec2:CreateTags", INSTANCE, at_creation) != ALLOWED
        other = {"aws:RequestTag/k8sgu.io/cluster/other": ["owned"]}
        assert decide([document], "ec2:CreateTags", INSTANCE, {**at_creation, **other}) != ALLOWED
    snapshot = {"ec2:CreateAction": ["CreateSnapshot"]}
    assert decide([document], "ec2:CreateTags", INSTANCE, {**snapshot, **ASKED}) != ALLOWED


@pytest.mark.parametrize("wanted", LAYOUTS)
def test_what_is_there_is_tagged_only_where_it_is_ours(wanted: Description) -> None:
    document = policy.document(wanted)
    assert decide([document], "ec2:CreateTags", INSTANCE, OURS) == ALLOWED
    # Otherwise whatever there is could be given the tag that allows its removal.
    assert decide([document], "ec2:CreateTags", INSTANCE, ASKED) != ALLOWED
    assert decide([document], "ec2:CreateTags", INSTANCE, {}) != ALLOWED
    assert decide([document], "ec2:TerminateInstances", INSTANCE, {}) != ALLOWED
