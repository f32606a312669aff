# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a plan needs to be allowed: for each step the actions, the resources and the context that a policy may ask for.

Which action takes which resources and has which keys:
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html and its neighbours for IAM and
Elastic Load Balancing. Left out is what the caller's own policies alone do not tell: KMS, whose keys have policies
of their own, and CreateServiceLinkedRole, which an account needs once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Iterable, Iterator, Mapping, Tuple

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import names, state, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.place import ANY, Account, Context, Place
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.plan import Plan

Arguments = Mapping[str, Any]
# Action, resource and context.
Found = Tuple[str, str, Context]


@dataclass(frozen=True)
class Need:
    """An action on a resource with what a request for it carries; `step` is the one that it was found for."""

    action: str
    resource: str
    context: tuple[tuple[str, str], ...]
    step: str = field(compare=False)

    @property
    def created_by(self) -> str:
        """For tags at creation the action that makes what is tagged."""
        call = dict(self.context).get("ec2:CreateAction", "")
        return f"ec2:{call}" if call and self.action == "ec2:CreateTags" else self.action


def of(plan: Plan, description: Description, current: state.Current, account: Account) -> list[Need]:
    """The needs of all steps, each once.

    Of resources of one type with one context the first stands for all, as a thousand nodes are no thousand questions.
    """
    place = Place(plan, description, current, account)
    found: dict[tuple[Any, ...], Need] = {}
    for step in plan.steps:
        for action, resource, context in NEEDS[step.call](place, step.arguments):
            need = Need(action, resource, tuple(sorted(context.items())), step.key)
            kind = resource if action.startswith("iam:") else resource.rpartition("/")[0]
            found.setdefault((action, kind, need.context), need)
    return list(found.values())


Finder = Callable[[Place, Arguments], Iterable[Found]]


def _nothing(place: Place, step: Arguments) -> Iterable[Found]:
    """For a step that waits: it asks what has been asked before."""
    return ()


def _makes(action: str, kind: str, *used: str) -> Finder:
    """EC2 makes something of `kind` with our tags, from what the arguments or references `used` name."""

    def found(place: Place, step: Arguments) -> Iterator[Found]:
        name = step.get("name", ANY) if kind == "key-pair" else ANY
        resource, context = place.arn("ec2", f"{kind}/{name}"), {**place.region, **place.requested()}
        yield f"ec2:{action}", resource, context
        yield "ec2:CreateTags", resource, {**context, "ec2:CreateAction": action}
        for reference in used:
            yield (f"ec2:{action}", *place.ec2(step.get(reference, reference)))

    return found


def _changes(action: str, *used: str) -> Finder:
    """EC2 changes or removes what the arguments or references `used` name."""

    def found(place: Place, step: Arguments) -> Iterator[Found]:
        for reference in used:
            yield (f"ec2:{action}", *place.ec2(step.get(reference, reference)))

    return found


def _all(*parts: Finder) -> Finder:
    def found(place: Place, step: Arguments) -> Iterator[Found]:
        for part in parts:
            yield from part(place, step)

    return found


def _create_tags(place: Place, step: Arguments) -> Iterator[Found]:
    resource, context = place.ec2(step["id"])
    yield "ec2:CreateTags", resource, {**context, **place.requested(step["tags"])}


def _delete_table(place: Place, step: Arguments) -> Iterator[Found]:
    if step["associations"]:
        yield ("ec2:DisassociateRouteTable", *place.ec2(step["id"]))
    yield ("ec2:DeleteRouteTable", *place.ec2(step["id"]))


def _associate(place: Place, step: Arguments) -> Iterator[Found]:
    action = "ec2:ReplaceRouteTableAssociation" if step["association"] else "ec2:AssociateRouteTable"
    for reference in (step["table"], step["subnet"]):
        yield (action, *place.ec2(reference))


def _put_route(place: Place, step: Arguments) -> Iterator[Found]:
    yield ("ec2:ReplaceRoute" if step["replace"] else "ec2:CreateRoute", *place.ec2(step["table"]))


def _key(place: Place, step: Arguments) -> Iterator[Found]:
    pair = next((pair for pair in place.current.key_pairs if pair.name == step["name"]), None)
    context = {**place.region, **place.tagged(pair.tags if pair else None, "ec2")}
    yield "ec2:DeleteKeyPair", place.arn("ec2", f"key-pair/{step['name']}"), context


def _pass_role(place: Place, role: str) -> Iterator[Found]:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_passrole.html"""
    if role:
        yield "iam:PassRole", place.role(role), {"iam:PassedToService": "ec2.amazonaws.com"}


def _launch(place: Place, step: Arguments) -> Iterator[Found]:
    run = "ec2:RunInstances"
    requested = {**place.region, **place.requested()}
    for kind in ("instance", "volume", "network-interface"):
        resource = place.arn("ec2", f"{kind}/{ANY}")
        yield run, resource, requested
        yield "ec2:CreateTags", resource, {**requested, "ec2:CreateAction": "RunInstances"}
    yield run, place.arn("ec2", f"image/{step['image'].id}", account=""), place.region
    for reference in (step["subnet"], step["group"]):
        yield (run, *place.ec2(reference))
    # Whose key pair it is makes no difference to the policy that is documented.
    yield run, place.arn("ec2", f"key-pair/{step['key_name']}"), place.region
    yield (
        "ec2:ModifyInstanceAttribute",
        place.arn("ec2", f"instance/{ANY}"),
        {**place.region, **place.tagged(None, "ec2")},
    )
    yield from _pass_role(place, step["profile"])


def _set_profile(place: Place, step: Arguments) -> Iterator[Found]:
    instance = next((item for item in place.current.instances if item.id == step["id"]), None)
    yield "ec2:DescribeIamInstanceProfileAssociations", ANY, place.region
    if not step["profile"]:
        action = "ec2:DisassociateIamInstanceProfile"
    elif instance and instance.profile_arn:
        action = "ec2:ReplaceIamInstanceProfileAssociation"
    else:
        action = "ec2:AssociateIamInstanceProfile"
    yield (action, *place.ec2(step["id"]))
    yield from _pass_role(place, step["profile"])


def _create_role(place: Place, step: Arguments) -> Iterator[Found]:
    for action in ("iam:CreateRole", "iam:TagRole"):
        yield action, place.role(step["name"]), place.requested()
    # After the run the account is read again.
    yield "iam:GetRolePolicy", place.role(step["name"]), place.tagged(None, "iam")


def _create_profile(place: Place, step: Arguments) -> Iterator[Found]:
    for action in ("iam:CreateInstanceProfile", "iam:TagInstanceProfile"):
        yield action, place.profile(step["name"]), place.requested()


def _add_role(place: Place, step: Arguments) -> Iterator[Found]:
    yield "iam:AddRoleToInstanceProfile", place.profile(step["name"]), place.tagged(None, "iam")
    yield from _pass_role(place, step["name"])


def _of_role(action: str) -> Finder:
    return lambda place, step: [(f"iam:{action}", place.role(step["name"]), place.tagged(None, "iam"))]


def _of_profile(action: str, argument: str) -> Finder:
    return lambda place, step: [(f"iam:{action}", place.profile(step[argument]), place.tagged(None, "iam"))]


ELB = "elasticloadbalancing"


def _balancer_arn(place: Place, kind: str) -> str:
    """Of what is there, or of what is made under our name: AWS appends ids of its own."""
    there: dict[str, list[Any]] = {
        "loadbalancer": place.current.load_balancers,
        "targetgroup": place.current.target_groups,
        "listener": place.current.listeners,
    }
    mine = [
        item.arn
        for item in there[kind]
        if kind == "listener" or item.tags.get(tags.cluster_tag(place.description.name))
    ]
    if mine:
        return str(mine[0])
    name = names.load_balancer(place.description.name)
    forms = {"loadbalancer": f"net/{name}/{ANY}", "targetgroup": f"{name}/{ANY}", "listener": f"net/{name}/{ANY}/{ANY}"}
    return place.arn(ELB, f"{kind}/{forms[kind]}")


def _makes_balancing(action: str, kind: str, *reads: str) -> Finder:
    """`reads` are what is asked about it when the account is read again after the run."""

    def found(place: Place, step: Arguments) -> Iterator[Found]:
        resource, context = _balancer_arn(place, kind), {**place.region, **place.requested()}
        if kind == "listener":
            resource_of = _balancer_arn(place, "loadbalancer")
            yield f"{ELB}:{action}", resource_of, {**context, **place.tagged(None, ELB)}
        else:
            yield f"{ELB}:{action}", resource, context
        yield f"{ELB}:AddTags", resource, {**context, f"{ELB}:CreateAction": action}
        for read in reads:
            yield f"{ELB}:{read}", ANY, place.region

    return found


def _changes_balancing(action: str, kind: str) -> Finder:
    def found(place: Place, step: Arguments) -> Iterator[Found]:
        yield f"{ELB}:{action}", _balancer_arn(place, kind), {**place.region, **place.tagged(None, ELB)}

    return found


_CREATE_BALANCER = _makes_balancing("CreateLoadBalancer", "loadbalancer", "DescribeListeners", "DescribeTags")

# For each handler what it needs.
NEEDS: dict[str, Finder] = {
    "create_tags": _create_tags,
    "create_vpc": _makes("CreateVpc", "vpc"),
    "enable_dns": _changes("ModifyVpcAttribute", "vpc"),
    "delete_vpc": _changes("DeleteVpc", "id"),
    "create_gateway": _makes("CreateInternetGateway", "internet-gateway"),
    "attach_gateway": _changes("AttachInternetGateway", "gateway", "vpc"),
    "detach_gateway": _changes("DetachInternetGateway", "id", "vpc_id"),
    "delete_gateway": _changes("DeleteInternetGateway", "id"),
    "create_subnet": _makes("CreateSubnet", "subnet", "vpc"),
    "map_public_ip": _changes("ModifySubnetAttribute", "reference"),
    "delete_subnet": _changes("DeleteSubnet", "id"),
    "allocate_address": _makes("AllocateAddress", "elastic-ip"),
    "release_address": _changes("ReleaseAddress", "id"),
    "create_nat": _makes("CreateNatGateway", "natgateway", "subnet", "address"),
    "wait_nat": _nothing,
    "delete_nat": _changes("DeleteNatGateway", "id"),
    "create_table": _makes("CreateRouteTable", "route-table", "vpc"),
    "delete_table": _delete_table,
    "associate": _associate,
    "put_route": _put_route,
    "delete_route": _changes("DeleteRoute", "table"),
    "create_group": _makes("CreateSecurityGroup", "security-group", "vpc"),
    "delete_group": _changes("DeleteSecurityGroup", "id"),
    "authorize": _changes("AuthorizeSecurityGroupIngress", "reference"),
    "revoke": _changes("RevokeSecurityGroupIngress", "reference"),
    "import_key": _makes("ImportKeyPair", "key-pair"),
    "replace_key": _all(_key, _makes("ImportKeyPair", "key-pair")),
    "delete_key": _key,
    "create_role": _create_role,
    "put_policy": _of_role("PutRolePolicy"),
    "delete_policy": _of_role("DeleteRolePolicy"),
    "create_profile": _create_profile,
    "add_role": _add_role,
    "remove_role": _of_profile("RemoveRoleFromInstanceProfile", "profile"),
    "delete_profile": _of_profile("DeleteInstanceProfile", "name"),
    "delete_role": _of_role("DeleteRole"),
    "launch": _launch,
    "wait_running": _nothing,
    "replace": _all(_changes("TerminateInstances", "id"), _launch),
    "terminate": _changes("TerminateInstances", "id"),
    "wait_terminated": _nothing,
    "start": _changes("StartInstances", "id"),
    "no_source_dest_check": _changes("ModifyInstanceAttribute", "id"),
    "require_imdsv2": _changes("ModifyInstanceMetadataOptions", "id"),
    "set_group": _changes("ModifyInstanceAttribute", "id"),
    "set_profile": _set_profile,
    "modify_volume": _changes("ModifyVolume", "id"),
    "delete_volume": _changes("DeleteVolume", "id"),
    "create_balancer": _CREATE_BALANCER,
    "replace_balancer": _all(_changes_balancing("DeleteLoadBalancer", "loadbalancer"), _CREATE_BALANCER),
    "wait_balancer": _nothing,
    "delete_balancer": _changes_balancing("DeleteLoadBalancer", "loadbalancer"),
    "set_balancer_group": _changes_balancing("SetSecurityGroups", "loadbalancer"),
    "set_balancer_subnets": _changes_balancing("SetSubnets", "loadbalancer"),
    "create_target_group": _makes_balancing(
        "CreateTargetGroup", "targetgroup", "DescribeTags", "DescribeTargetGroupAttributes", "DescribeTargetHealth"
    ),
    "modify_health_check": _changes_balancing("ModifyTargetGroup", "targetgroup"),
    "target_group_attributes": _changes_balancing("ModifyTargetGroupAttributes", "targetgroup"),
    "delete_target_group": _changes_balancing("DeleteTargetGroup", "targetgroup"),
    "create_listener": _makes_balancing("CreateListener", "listener"),
    "delete_listeners": _changes_balancing("DeleteListener", "listener"),
    "register": _changes_balancing("RegisterTargets", "targetgroup"),
    "deregister": _changes_balancing("DeregisterTargets", "targetgroup"),
}
