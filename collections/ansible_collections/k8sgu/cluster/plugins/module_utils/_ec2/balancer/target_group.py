# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The target group of the load balancer: the control-plane nodes behind it, and how their health is checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Callable, Iterable, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import names, plan, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.balancer import elb
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.context import CONSISTENCY_S, IN_USE
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.grants import Grant
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.reader import Reader

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.context import Context
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.needs import Found, Place
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.launch import Node

RESOURCE = "target-group"
# How the load balancer finds out which API servers to send clients to, by the API's names.
# https://docs.aws.amazon.com/elasticloadbalancing/latest/network/target-group-health-checks.html
HEALTH_CHECK: Mapping[str, str | int] = {
    # A TCP connection succeeds while the API server still refuses work, so it is asked.
    "HealthCheckProtocol": "HTTPS",
    "HealthCheckPath": "/readyz",
    # The least that there is: every stop of an API server waits until the balancer has noticed.
    "HealthCheckIntervalSeconds": 5,
    # Less than the interval. A server that needs more to say that it is ready hangs, most often on etcd, and would make
    # its clients hang.
    "HealthCheckTimeoutSeconds": 4,
    "HealthyThresholdCount": 2,
    "UnhealthyThresholdCount": 2,
}
ATTRIBUTES = {
    "preserve_client_ip.enabled": "false",
    "deregistration_delay.timeout_seconds": "30",
    # Without it each zone's address serves the nodes of its zone alone.
    "load_balancing.cross_zone.enabled": "true",
    # A server that is to stop says that it is not ready and finishes what it was asked.
    "target_health_state.unhealthy.connection_termination.enabled": "false",
}


@dataclass(frozen=True)
class TargetGroup:
    arn: str
    name: str
    preserves_client_ip: bool
    targets: frozenset[str]  # instance ids that are not draining
    tags: Mapping[str, str]
    health_check: Mapping[str, str] = field(default_factory=dict)  # by the API's names


class Details:
    """What is asked about target groups beside their list."""

    def __init__(self) -> None:
        self._health: list[Any] = []
        self._attributes: dict[str, str] = {}

    def calls(self, reader: Reader, arns: list[str]) -> list[Callable[[], None]]:
        def read_health(arn: str) -> None:
            found = reader.pages("elbv2", "describe_target_health", "TargetHealthDescriptions", TargetGroupArn=arn)
            self._health.extend(found)

        def read_attributes(arn: str) -> None:
            found = reader.pages("elbv2", "describe_target_group_attributes", "Attributes", TargetGroupArn=arn)
            self._attributes.update({entry["Key"]: entry["Value"] for entry in found})

        return [partial(call, arn) for call in (read_health, read_attributes) for arn in arns]

    def of(self, item: Mapping[str, Any], marks: Mapping[str, str]) -> TargetGroup:
        return TargetGroup(
            item["TargetGroupArn"],
            item["TargetGroupName"],
            self._attributes.get("preserve_client_ip.enabled", "true") != "false",
            frozenset(
                entry["Target"]["Id"]
                for entry in self._health
                if entry.get("TargetHealth", {}).get("State") != "draining"
            ),
            marks,
            {key: str(value) for key, value in item.items() if key in HEALTH_CHECK},
        )


def wanted(draft: plan.Draft, group: TargetGroup | None, marks: dict[str, str]) -> None:
    if not group:
        draft.add(CreateTargetGroup(RESOURCE, plan.MISSING, names.load_balancer(draft.cluster), marks), ["create vpc"])
    else:
        differs = {key: value for key, value in HEALTH_CHECK.items() if group.health_check.get(key) != str(value)}
        if differs:
            listed = (f"{key} {group.health_check.get(key, 'unset')} -> {value}" for key, value in differs.items())
            draft.add(ModifyHealthCheck(f"{RESOURCE}/health-check", ", ".join(listed), differs))
    if not group or group.preserves_client_ip:
        reason = "a control-plane node must reach itself through it, which kept client addresses prevent"
        draft.add(SetAttributes(RESOURCE, reason), [f"create {RESOURCE}"])


def targets(draft: plan.Draft, group: TargetGroup | None, nodes: list[Node], listener: str) -> None:
    """`listener` is the resource of the listener, which comes before the targets."""
    there = group.targets if group else frozenset()
    members = [node.name for node in nodes if node.role == tags.CONTROL_PLANE]
    lacking = [name for name in members if name in draft.replaced or draft.known(f"instance/{name}") not in there]
    if lacking:
        launches = [f"{action} instance/{name}" for name in lacking for action in ("create", "replace")]
        reason = f"{', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} not behind it"
        draft.add(
            Register("targets", reason, [f"instance/{name}" for name in lacking]),
            [*launches, "update wait/instances", f"create {RESOURCE}", f"create {listener}"],
        )
    kept = {draft.known(f"instance/{name}") for name in members}
    stray = sorted(id for id in there if id not in kept)
    if stray:
        draft.add(Deregister("targets", f"{', '.join(stray)} is no control-plane node", stray))


def _arn(place: Place) -> str:
    """Of what is there, or of what is made under our name: AWS appends ids of its own."""
    there = next((item.arn for item in place.current.target_groups if elb.ours(place.description.name, item.tags)), "")
    return there or place.arn(elb.ELB, f"targetgroup/{names.load_balancer(place.description.name)}/*")


@dataclass
class CreateTargetGroup(plan.Step):
    name: str
    tags: dict[str, str]
    action = plan.CREATE

    def apply(self, context: Context) -> None:
        answer = context.when_known(
            "the VPC",
            lambda: context.elbv2.create_target_group(
                Name=self.name,
                Protocol="TCP",
                Port=names.API_PORT,
                VpcId=context.id("vpc"),
                TargetType="instance",
                **HEALTH_CHECK,
                Tags=tags.as_list(self.tags),
            ),
            elb.NOT_YET,
            elb.vpc_unknown,
        )
        context.know(RESOURCE, answer["TargetGroups"][0]["TargetGroupArn"])

    def needs(self, place: Place) -> Iterable[Found]:
        reads = ("DescribeTags", "DescribeTargetGroupAttributes", "DescribeTargetHealth")
        return elb.creates(place, "CreateTargetGroup", _arn(place), *reads)


@dataclass
class ModifyHealthCheck(plan.Step):
    settings: dict[str, str | int]
    action = plan.UPDATE

    def apply(self, context: Context) -> None:
        context.elbv2.modify_target_group(TargetGroupArn=context.id(RESOURCE), **self.settings)

    def needs(self, place: Place) -> Iterable[Found]:
        return elb.changes(place, "ModifyTargetGroup", _arn(place))


@dataclass
class SetAttributes(plan.Step):
    action = plan.UPDATE

    def apply(self, context: Context) -> None:
        attributes = [{"Key": key, "Value": value} for key, value in ATTRIBUTES.items()]
        context.when_known(
            "the target group",
            lambda: context.elbv2.modify_target_group_attributes(
                TargetGroupArn=context.id(RESOURCE), Attributes=attributes
            ),
            elb.NOT_YET,
        )

    def needs(self, place: Place) -> Iterable[Found]:
        return elb.changes(place, "ModifyTargetGroupAttributes", _arn(place))


@dataclass
class DeleteTargetGroup(plan.Step):
    arn: str
    action = plan.DELETE

    def apply(self, context: Context) -> None:
        context.retry(
            "the target group to be free for deletion",
            lambda: context.gone(
                lambda: context.elbv2.delete_target_group(TargetGroupArn=self.arn), elb.GROUP_NOT_FOUND
            ),
            ["ResourceInUse", *IN_USE],
            CONSISTENCY_S,
        )

    def needs(self, place: Place) -> Iterable[Found]:
        return elb.changes(place, "DeleteTargetGroup", _arn(place))


@dataclass
class Register(plan.Step):
    instances: list[str]  # references
    action = plan.ATTACH

    def apply(self, context: Context) -> None:
        targets = [{"Id": context.id(instance), "Port": names.API_PORT} for instance in self.instances]
        context.retry(
            "the nodes to be known to the load balancer",
            lambda: context.elbv2.register_targets(TargetGroupArn=context.id(RESOURCE), Targets=targets),
            elb.NOT_YET,
            CONSISTENCY_S,
        )

    def needs(self, place: Place) -> Iterable[Found]:
        return elb.changes(place, "RegisterTargets", _arn(place))


@dataclass
class Deregister(plan.Step):
    ids: list[str]
    action = plan.DETACH

    def apply(self, context: Context) -> None:
        targets = [{"Id": id} for id in self.ids]
        context.gone(
            lambda: context.elbv2.deregister_targets(TargetGroupArn=context.id(RESOURCE), Targets=targets),
            ["InvalidTarget", *elb.GROUP_NOT_FOUND],
        )

    def needs(self, place: Place) -> Iterable[Found]:
        return elb.changes(place, "DeregisterTargets", _arn(place))


PERMISSIONS = (
    Grant(
        elb.STATEMENT,
        elb.actions(
            "CreateTargetGroup",
            "DeleteTargetGroup",
            "DescribeTargetGroupAttributes",
            "DescribeTargetHealth",
            "ModifyTargetGroupAttributes",
            "RegisterTargets",
        ),
        elb.used,
    ),
    Grant(elb.STATEMENT, elb.actions("DeregisterTargets", "ModifyTargetGroup"), elb.used),
)
