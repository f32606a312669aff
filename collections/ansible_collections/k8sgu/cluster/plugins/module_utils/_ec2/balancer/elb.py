# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the load balancer and its target group have in common: errors, whose they are, and permissions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Iterator, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import implied, session, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.grants import Case, Statement

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.needs import Found, Place

ELB = "elasticloadbalancing"
BALANCER_NOT_FOUND = ("LoadBalancerNotFound", "LoadBalancerNotFoundException")
GROUP_NOT_FOUND = ("TargetGroupNotFound", "TargetGroupNotFoundException")
# What it answers while it does not know yet what it or EC2 has made.
NOT_YET = (
    *BALANCER_NOT_FOUND,
    *GROUP_NOT_FOUND,
    "SubnetNotFound",
    "InvalidSubnet",
    "InvalidSecurityGroup",
    "InvalidTarget",
)
# What its calls look at in the caller's name and nothing else here reads, see `implied`.
LOOKS = ("ec2:DescribeAccountAttributes", "ec2:GetSecurityGroupsForVpc")
STATEMENT = Statement(
    "LoadBalancer", "more than one control-plane node", "the load balancer in front of the API servers"
)


def vpc_unknown(error: BaseException) -> bool:
    """Whether it does not know a VPC yet: one code for many errors, of which only this one passes with time."""
    text = session.message(error)
    return session.error_code(error) == "ValidationError" and "VPC ID" in text and "not found" in text


def ours(cluster: str, marks: Mapping[str, str]) -> bool:
    return marks.get(tags.cluster_tag(cluster)) == tags.OWNED


def used(case: Case) -> bool:
    there = case.current.load_balancers or case.current.target_groups
    return case.whole or case.description.balanced or bool(there)


def creates(place: Place, action: str, arn: str, *reads: str) -> Iterator[Found]:
    """`reads` are what is asked about the new resource when the account is read again after the run."""
    context = {**place.region, **place.requested()}
    yield f"{ELB}:{action}", arn, context
    yield f"{ELB}:AddTags", arn, {**context, f"{ELB}:CreateAction": action}
    for read in reads:
        yield f"{ELB}:{read}", "*", place.region
    yield from _looks(place, action)


def changes(place: Place, action: str, arn: str) -> Iterator[Found]:
    yield f"{ELB}:{action}", arn, {**place.region, **place.tagged(None, ELB)}
    yield from _looks(place, action)


def _looks(place: Place, action: str) -> Iterator[Found]:
    for look in implied.looks(f"{ELB}:{action}"):
        yield look, "*", place.region


def actions(*calls: str) -> tuple[str, ...]:
    return tuple(f"{ELB}:{call}" for call in calls)
