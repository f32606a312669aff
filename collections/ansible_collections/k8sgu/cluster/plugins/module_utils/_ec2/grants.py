# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a resource says which permissions it is the reason for. `policy` makes the IAM policy of all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Mapping, Tuple

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current


class Case:
    """What a policy is for: a description, and what of the account it does not have any more, which has to be removed.

    For `state: absent`, whose description is empty, everything there can be counts (`whole`).
    """

    def __init__(self, description: Description, current: Current) -> None:
        self.description = description
        self.current = current
        self.whole = not description.pools
        self.own_vpc = not description.vpc_id
        self.own_subnets = not description.subnet_ids


When = Callable[[Case], bool]
# The resources that a statement is about, and its condition.
Scope = Callable[[Case], Tuple[Any, Mapping[str, Any]]]


def _everything(case: Case) -> tuple[Any, Mapping[str, Any]]:
    return "*", {}


def _ours(case: Case) -> tuple[Any, Mapping[str, Any]]:
    return "*", {"StringEquals": {f"aws:ResourceTag/{tags.cluster_tag(case.description.name)}": tags.OWNED}}


@dataclass(frozen=True)
class Statement:
    """A statement of the policy. `when` and `why` are for the documentation."""

    sid: str
    when: str
    why: str
    scope: Scope = _everything


READ = Statement("Read", "always", "looking at what there is, and whether a plan can be carried out")
MAKE = Statement("Make", "always", "making what does not exist yet, and what was brought and has no tag of ours")
CHANGE = Statement("ChangeOurs", "always", "changing and removing what carries the cluster's tag", _ours)


@dataclass(frozen=True)
class Grant:
    """Actions of a statement, and when they are part of it."""

    statement: Statement
    actions: tuple[str, ...]
    when: When = lambda case: True
    # The calls tag what they make:
    # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/supported-iam-actions-tagging.html
    tags: bool = False
