# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The network load balancer in front of several control-plane nodes, with its listener."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Iterable, Iterator, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import billing, names, plan, session, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.balancer import elb, target_group
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description, DescriptionError
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.grants import READ, Case, Grant, Statement
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.network import subnets
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.reader import Reader, together

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.context import Context
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.needs import Found, Place
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.launch import Node

RESOURCE, LISTENER = "load-balancer", "listener"
GROUP = target_group.RESOURCE
SECURITY_GROUP = "security-group/api"
# The keys of the steps that end somebody's place behind it, or itself.
REMOVALS = ("delete load-balancer", "delete target-group", "replace load-balancer", "detach targets")


@dataclass(frozen=True)
class LoadBalancer:
    arn: str
    name: str
    dns_name: str
    scheme: str
    state: str
    subnet_ids: frozenset[str]
    groups: frozenset[str]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Listener:
    arn: str
    port: int
    target_group_arn: str


def read(reader: Reader, description: Description, current: Current) -> None:
    """The load balancer and the target group of our name, whoever they belong to, with all that hangs on them."""
    name = names.load_balancer(description.name)
    reader.client("elbv2")
    balancers: list[Any] = []
    groups: list[Any] = []
    together(
        [
            lambda: balancers.extend(
                reader.maybe("elbv2", "describe_load_balancers", "LoadBalancers", elb.BALANCER_NOT_FOUND, Names=[name])
            ),
            lambda: groups.extend(
                reader.maybe("elbv2", "describe_target_groups", "TargetGroups", elb.GROUP_NOT_FOUND, Names=[name])
            ),
        ]
    )
    arns = [item["LoadBalancerArn"] for item in balancers] + [item["TargetGroupArn"] for item in groups]
    if not arns:
        return
    marks: dict[str, dict[str, str]] = {}
    listeners: list[Any] = []
    details = target_group.Details()

    def read_tags() -> None:
        for item in reader.pages("elbv2", "describe_tags", "TagDescriptions", ResourceArns=arns):
            marks[item["ResourceArn"]] = tags.as_mapping(item.get("Tags"))

    def read_listeners(arn: str) -> None:
        listeners.extend(reader.pages("elbv2", "describe_listeners", "Listeners", LoadBalancerArn=arn))

    together(
        [
            read_tags,
            *(partial(read_listeners, item["LoadBalancerArn"]) for item in balancers),
            *details.calls(reader, [item["TargetGroupArn"] for item in groups]),
        ]
    )
    current.load_balancers = [
        LoadBalancer(
            item["LoadBalancerArn"],
            item["LoadBalancerName"],
            item.get("DNSName", ""),
            item.get("Scheme", ""),
            item.get("State", {}).get("Code", ""),
            frozenset(zone["SubnetId"] for zone in item.get("AvailabilityZones", ())),
            frozenset(item.get("SecurityGroups", ())),
            marks.get(item["LoadBalancerArn"], {}),
        )
        for item in balancers
    ]
    current.target_groups = [details.of(item, marks.get(item["TargetGroupArn"], {})) for item in groups]
    current.listeners = [
        Listener(
            item["ListenerArn"],
            int(item.get("Port", 0)),
            next((action.get("TargetGroupArn", "") for action in item.get("DefaultActions", ())), ""),
        )
        for item in listeners
    ]


def billed(description: Description, zones: int) -> Iterator[tuple[str, int]]:
    """`zones` is the number of availability zones, in each of which it has an address."""
    if description.balanced:
        yield "network load balancer", 1
    if description.faces_internet:
        yield billing.ADDRESS, zones


def _check_owner(draft: plan.Draft) -> None:
    """Names of load balancers are unique in a region: one of our name without our tag is somebody else's."""
    everything: list[LoadBalancer | target_group.TargetGroup] = []
    for found in everything + draft.current.load_balancers + draft.current.target_groups:
        if not elb.ours(draft.cluster, found.tags) and not draft.removing:
            raise DescriptionError(
                f"name: there is a load balancer or target group {found.name} that is not the cluster's ({found.arn}); "
                "choose another name for the cluster, or rename that"
            )


def wanted(draft: plan.Draft, nodes: list[Node]) -> None:
    """The steps for having it, or for being rid of it."""
    _check_owner(draft)
    balancer = next((item for item in draft.current.load_balancers if elb.ours(draft.cluster, item.tags)), None)
    group = next((item for item in draft.current.target_groups if elb.ours(draft.cluster, item.tags)), None)
    if balancer:
        draft.know(RESOURCE, balancer.arn)
    if group:
        draft.know(GROUP, group.arn)
    if draft.removing or not draft.description.balanced:
        if balancer:
            draft.add(DeleteBalancer(RESOURCE, plan.SURPLUS, balancer.arn))
        if group:
            draft.add(target_group.DeleteTargetGroup(GROUP, plan.SURPLUS, group.arn), [f"delete {RESOURCE}"])
        return
    marks = draft.tags(names.load_balancer(draft.cluster), role="api")
    again = _balancer(draft, balancer, marks)
    target_group.wanted(draft, group, marks)
    _listener(draft, group, again, marks)
    target_group.targets(draft, group, nodes, LISTENER)
    if not balancer or again or balancer.state == "provisioning":
        keys = [f"create {RESOURCE}", f"replace {RESOURCE}", f"create {LISTENER}", "attach targets"]
        draft.add(WaitForBalancer(f"wait/{RESOURCE}", "it must be active"), keys, quiet=True)


def _balancer(draft: plan.Draft, balancer: LoadBalancer | None, marks: dict[str, str]) -> bool:
    """Returns whether one that is there is made again, which another scheme calls for."""
    scheme = draft.description.load_balancer_scheme
    if scheme == "internal":
        places = subnets.of_nodes(draft)
    elif draft.description.subnet_ids:
        places = [f"subnet/{id}" for id in draft.description.subnet_ids]
    else:
        places = [f"subnet/{subnets.PUBLIC}/{zone}" for zone in draft.facts.zones]
    needed = [f"create {subnet}" for subnet in places]
    if balancer and balancer.scheme == scheme:
        if balancer.groups != {draft.known(SECURITY_GROUP)}:
            reason = f"its security groups are {', '.join(sorted(balancer.groups)) or 'none'}"
            draft.add(SetBalancerGroup(f"{RESOURCE}/groups", reason), [f"create {SECURITY_GROUP}"])
        if balancer.subnet_ids != {draft.known(subnet) for subnet in places}:
            reason = "its subnets are not those of the description"
            draft.add(SetBalancerSubnets(f"{RESOURCE}/subnets", reason, places), needed)
        return False
    several = draft.description.control_plane_count > 1
    needed_for = (
        "more than one control-plane node" if several else "the API of private nodes, for administrators outside"
    )
    reason = f"its scheme is {balancer.scheme} and not {scheme}" if balancer else needed_for
    make = ReplaceBalancer if balancer else CreateBalancer
    draft.add(
        make(RESOURCE, reason, names.load_balancer(draft.cluster), scheme, places, marks),
        ["create vpc", f"create {SECURITY_GROUP}", "attach internet-gateway", *needed],
    )
    return balancer is not None


def _listener(draft: plan.Draft, group: target_group.TargetGroup | None, again: bool, marks: dict[str, str]) -> None:
    serving = [
        item
        for item in draft.current.listeners
        if item.port == names.API_PORT and group and item.target_group_arn == group.arn
    ]
    if not serving or again:
        draft.add(
            CreateListener(LISTENER, plan.MISSING, marks),
            [f"create {RESOURCE}", f"replace {RESOURCE}", f"create {GROUP}", f"delete {LISTENER}"],
        )
    stray = [item.arn for item in draft.current.listeners if item not in serving]
    if stray and not again:
        draft.add(DeleteListeners(LISTENER, plan.SURPLUS, stray))


def _arn(place: Place) -> str:
    """Of what is there, or of what is made under our name: AWS appends ids of its own."""
    there = next((item.arn for item in place.current.load_balancers if elb.ours(place.description.name, item.tags)), "")
    return there or place.arn(elb.ELB, f"loadbalancer/net/{names.load_balancer(place.description.name)}/*")


def _listener_arn(place: Place) -> str:
    there = next((item.arn for item in place.current.listeners), "")
    return there or place.arn(elb.ELB, f"listener/net/{names.load_balancer(place.description.name)}/*/*")


@dataclass
class _MakeBalancer(plan.Step):
    name: str
    scheme: str
    subnets: list[str]  # references
    tags: dict[str, str]

    def create(self, context: Context) -> None:
        answer = context.when_known(
            "the subnets",
            lambda: context.elbv2.create_load_balancer(
                Name=self.name,
                Type="network",
                Scheme=self.scheme,
                Subnets=[context.id(subnet) for subnet in self.subnets],
                SecurityGroups=[context.id(SECURITY_GROUP)],
                Tags=tags.as_list(self.tags),
            ),
            elb.NOT_YET,
        )
        context.know(RESOURCE, answer["LoadBalancers"][0]["LoadBalancerArn"])

    def needs_of_creation(self, place: Place) -> Iterator[Found]:
        return elb.creates(place, "CreateLoadBalancer", _arn(place), "DescribeListeners", "DescribeTags")


@dataclass
class CreateBalancer(_MakeBalancer):
    action = plan.CREATE

    def apply(self, context: Context) -> None:
        self.create(context)

    def needs(self, place: Place) -> Iterable[Found]:
        return self.needs_of_creation(place)


@dataclass
class ReplaceBalancer(_MakeBalancer):
    action = plan.REPLACE

    def apply(self, context: Context) -> None:
        _delete(context, context.id(RESOURCE))
        self.create(context)

    def needs(self, place: Place) -> Iterable[Found]:
        yield from elb.changes(place, "DeleteLoadBalancer", _arn(place))
        yield from self.needs_of_creation(place)


@dataclass
class DeleteBalancer(plan.Step):
    arn: str
    action = plan.DELETE

    def apply(self, context: Context) -> None:
        _delete(context, self.arn)

    def needs(self, place: Place) -> Iterable[Found]:
        return elb.changes(place, "DeleteLoadBalancer", _arn(place))


def _delete(context: Context, arn: str) -> None:
    context.gone(lambda: context.elbv2.delete_load_balancer(LoadBalancerArn=arn), elb.BALANCER_NOT_FOUND)

    def probe() -> bool | None:
        try:
            return None if context.elbv2.describe_load_balancers(LoadBalancerArns=[arn])["LoadBalancers"] else True
        except Exception as error:
            if session.error_code(error) in elb.BALANCER_NOT_FOUND:
                return True
            raise

    context.until("the load balancer to be gone", probe)


@dataclass
class WaitForBalancer(plan.Step):
    action = plan.UPDATE

    def apply(self, context: Context) -> None:
        arn = context.id(RESOURCE)

        def probe() -> bool | None:
            try:
                found = context.elbv2.describe_load_balancers(LoadBalancerArns=[arn])["LoadBalancers"][0]["State"]
            except Exception as error:
                if session.error_code(error) in elb.BALANCER_NOT_FOUND:
                    return None
                raise
            if found["Code"] == "failed":
                raise session.AwsError(f"the load balancer failed: {found.get('Reason', 'no reason given')}")
            return True if found["Code"] in ("active", "active_impaired") else None

        context.until(f"load balancer {names.load_balancer(context.cluster)} to be active", probe)

    def needs(self, place: Place) -> Iterable[Found]:
        return ()


@dataclass
class SetBalancerGroup(plan.Step):
    action = plan.UPDATE

    def apply(self, context: Context) -> None:
        group = context.id(SECURITY_GROUP)
        context.elbv2.set_security_groups(LoadBalancerArn=context.id(RESOURCE), SecurityGroups=[group])

    def needs(self, place: Place) -> Iterable[Found]:
        return elb.changes(place, "SetSecurityGroups", _arn(place))


@dataclass
class SetBalancerSubnets(plan.Step):
    subnets: list[str]  # references
    action = plan.UPDATE

    def apply(self, context: Context) -> None:
        ids = [context.id(subnet) for subnet in self.subnets]
        context.elbv2.set_subnets(LoadBalancerArn=context.id(RESOURCE), Subnets=ids)

    def needs(self, place: Place) -> Iterable[Found]:
        return elb.changes(place, "SetSubnets", _arn(place))


@dataclass
class CreateListener(plan.Step):
    tags: dict[str, str]
    action = plan.CREATE

    def apply(self, context: Context) -> None:
        answer = context.when_known(
            "the load balancer",
            lambda: context.elbv2.create_listener(
                LoadBalancerArn=context.id(RESOURCE),
                Protocol="TCP",
                Port=names.API_PORT,
                DefaultActions=[{"Type": "forward", "TargetGroupArn": context.id(GROUP)}],
                Tags=tags.as_list(self.tags),
            ),
            elb.NOT_YET,
        )
        context.know(LISTENER, answer["Listeners"][0]["ListenerArn"])

    def needs(self, place: Place) -> Iterable[Found]:
        requested = {**place.region, **place.requested()}
        yield f"{elb.ELB}:CreateListener", _arn(place), {**requested, **place.tagged(None, elb.ELB)}
        yield f"{elb.ELB}:AddTags", _listener_arn(place), {**requested, f"{elb.ELB}:CreateAction": "CreateListener"}


@dataclass
class DeleteListeners(plan.Step):
    arns: list[str]
    action = plan.DELETE

    def apply(self, context: Context) -> None:
        for arn in self.arns:
            context.gone(
                lambda arn=arn: context.elbv2.delete_listener(ListenerArn=arn),  # type: ignore[misc]
                ["ListenerNotFound", "ListenerNotFoundException"],
            )

    def needs(self, place: Place) -> Iterable[Found]:
        return elb.changes(place, "DeleteListener", _listener_arn(place))


# The account's first load balancer makes the role with which the service works there:
# https://docs.aws.amazon.com/elasticloadbalancing/latest/userguide/elb-service-linked-roles.html
SERVICE = "elasticloadbalancing.amazonaws.com"


def _service_role(case: Case) -> tuple[Any, Mapping[str, Any]]:
    role = f"arn:*:iam::*:role/aws-service-role/{SERVICE}/*"
    return role, {"StringEquals": {"iam:AWSServiceName": SERVICE}}


FIRST = Statement(
    "FirstLoadBalancer",
    elb.STATEMENT.when,
    "the role with which AWS's load balancers work in the account, made with the first of them",
    _service_role,
)
PERMISSIONS = (
    Grant(READ, elb.actions("DescribeLoadBalancers", "DescribeTargetGroups")),
    Grant(
        elb.STATEMENT,
        elb.actions("CreateListener", "CreateLoadBalancer", "DeleteLoadBalancer", "DescribeListeners", "DescribeTags"),
        elb.used,
    ),
    Grant(elb.STATEMENT, (*elb.actions("AddTags"), *elb.LOOKS), elb.used),
    Grant(elb.STATEMENT, elb.actions("DeleteListener", "SetSecurityGroups", "SetSubnets"), elb.used),
    Grant(FIRST, ("iam:CreateServiceLinkedRole",), elb.used),
)
