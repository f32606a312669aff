# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Handlers of the load balancer's steps."""

from __future__ import annotations

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import names, session
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import tags as our_tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.apply_network import IN_USE
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.execution import CONSISTENCY_S, Context, Handler
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.plan_balancer import GROUP, LISTENER, RESOURCE

MISSING = ("LoadBalancerNotFound", "LoadBalancerNotFoundException")
NOT_YET = (*MISSING, "SubnetNotFound", "InvalidSubnet", "TargetGroupNotFound", "InvalidTarget")


def create_balancer(
    context: Context, name: str, scheme: str, subnets: list[str], group: str, tags: dict[str, str]
) -> None:
    answer = context.retry(
        "the subnets to be known",
        lambda: context.elbv2.create_load_balancer(
            Name=name,
            Type="network",
            Scheme=scheme,
            Subnets=[context.id(subnet) for subnet in subnets],
            SecurityGroups=[context.id(group)],
            Tags=our_tags.as_list(tags),
        ),
        NOT_YET,
        CONSISTENCY_S,
    )
    context.know(RESOURCE, answer["LoadBalancers"][0]["LoadBalancerArn"])


def replace_balancer(
    context: Context, name: str, scheme: str, subnets: list[str], group: str, tags: dict[str, str]
) -> None:
    delete_balancer(context, context.id(RESOURCE))
    create_balancer(context, name, scheme, subnets, group, tags)


def wait_balancer(context: Context) -> None:
    arn = context.id(RESOURCE)

    def probe() -> bool | None:
        found = context.elbv2.describe_load_balancers(LoadBalancerArns=[arn])["LoadBalancers"][0]["State"]
        if found["Code"] == "failed":
            raise session.AwsError(f"the load balancer failed: {found.get('Reason', 'no reason given')}")
        return True if found["Code"] in ("active", "active_impaired") else None

    context.until(f"load balancer {names.load_balancer(context.cluster)} to be active", probe)


def delete_balancer(context: Context, arn: str) -> None:
    context.gone(lambda: context.elbv2.delete_load_balancer(LoadBalancerArn=arn), MISSING)

    def probe() -> bool | None:
        try:
            return None if context.elbv2.describe_load_balancers(LoadBalancerArns=[arn])["LoadBalancers"] else True
        except Exception as error:
            if session.error_code(error) in MISSING:
                return True
            raise

    context.until("the load balancer to be gone", probe)


def set_balancer_group(context: Context, group: str) -> None:
    context.elbv2.set_security_groups(LoadBalancerArn=context.id(RESOURCE), SecurityGroups=[context.id(group)])


def set_balancer_subnets(context: Context, subnets: list[str]) -> None:
    context.elbv2.set_subnets(LoadBalancerArn=context.id(RESOURCE), Subnets=[context.id(subnet) for subnet in subnets])


def create_target_group(context: Context, name: str, tags: dict[str, str]) -> None:
    answer = context.elbv2.create_target_group(
        Name=name,
        Protocol="TCP",
        Port=names.API_PORT,
        VpcId=context.id("vpc"),
        TargetType="instance",
        **names.HEALTH_CHECK,
        Tags=our_tags.as_list(tags),
    )
    context.know(GROUP, answer["TargetGroups"][0]["TargetGroupArn"])


def modify_health_check(context: Context, settings: dict[str, str | int]) -> None:
    context.elbv2.modify_target_group(TargetGroupArn=context.id(GROUP), **settings)


def target_group_attributes(context: Context) -> None:
    attributes = {
        "preserve_client_ip.enabled": "false",
        "deregistration_delay.timeout_seconds": "30",
        # Without it each zone's address serves the nodes of its zone alone.
        "load_balancing.cross_zone.enabled": "true",
        # A server that is to stop says that it is not ready and finishes what it was asked.
        "target_health_state.unhealthy.connection_termination.enabled": "false",
    }
    context.elbv2.modify_target_group_attributes(
        TargetGroupArn=context.id(GROUP), Attributes=[{"Key": key, "Value": value} for key, value in attributes.items()]
    )


def delete_target_group(context: Context, arn: str) -> None:
    def call() -> None:
        context.gone(
            lambda: context.elbv2.delete_target_group(TargetGroupArn=arn),
            ["TargetGroupNotFound", "TargetGroupNotFoundException"],
        )

    context.retry("the target group to be free for deletion", call, ["ResourceInUse", *IN_USE], CONSISTENCY_S)


def create_listener(context: Context, tags: dict[str, str]) -> None:
    answer = context.retry(
        "the load balancer to be known",
        lambda: context.elbv2.create_listener(
            LoadBalancerArn=context.id(RESOURCE),
            Protocol="TCP",
            Port=names.API_PORT,
            DefaultActions=[{"Type": "forward", "TargetGroupArn": context.id(GROUP)}],
            Tags=our_tags.as_list(tags),
        ),
        NOT_YET,
        CONSISTENCY_S,
    )
    context.know(LISTENER, answer["Listeners"][0]["ListenerArn"])


def delete_listeners(context: Context, arns: list[str]) -> None:
    for arn in arns:
        context.gone(
            lambda arn=arn: context.elbv2.delete_listener(ListenerArn=arn),  # type: ignore[misc]
            ["ListenerNotFound", "ListenerNotFoundException"],
        )


def register(context: Context, instances: list[str]) -> None:
    targets = [{"Id": context.id(instance), "Port": names.API_PORT} for instance in instances]
    context.retry(
        "the nodes to be known to the load balancer",
        lambda: context.elbv2.register_targets(TargetGroupArn=context.id(GROUP), Targets=targets),
        NOT_YET,
        CONSISTENCY_S,
    )


def deregister(context: Context, ids: list[str]) -> None:
    context.gone(
        lambda: context.elbv2.deregister_targets(TargetGroupArn=context.id(GROUP), Targets=[{"Id": id} for id in ids]),
        ["InvalidTarget", "TargetGroupNotFound", "TargetGroupNotFoundException"],
    )


HANDLERS: dict[str, Handler] = {
    handler.__name__: handler
    for handler in (
        create_balancer,
        replace_balancer,
        wait_balancer,
        delete_balancer,
        set_balancer_group,
        set_balancer_subnets,
        create_target_group,
        modify_health_check,
        target_group_attributes,
        delete_target_group,
        create_listener,
        delete_listeners,
        register,
        deregister,
    )
}
