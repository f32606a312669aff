# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All resources of a cluster together: the order in which they are read, checked, planned and removed.

What a resource is, how it is read, planned, changed and removed, and which permissions that needs is in its own module.
Another kind of resource is one more module, and here a field of `Current`, a call in `read`, in `_plan` and in
`_surplus`, and a line in the tables below.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable, Collection, Iterator

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import (
    aside,
    billing,
    groups,
    plan,
    quotas,
    session,
    tags,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.access import bastion, key_pair, profiles
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.access.key_pair import KeyPair
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.access.profiles import Profile, Role
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.backups import bucket
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.backups.settings import Bucket
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.balancer import load_balancer, target_group
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.balancer.load_balancer import Listener, LoadBalancer
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.balancer.target_group import TargetGroup
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description, Image
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.groups import SecurityGroup
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.network import (
    internet_gateway,
    nat,
    route_tables,
    subnets,
    vpc,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.network.internet_gateway import Gateway
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.network.nat import Address, NatGateway
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.network.route_tables import RouteTable
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.network.subnets import Subnet
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.network.vpc import Vpc
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes import (
    changes,
    departures,
    images,
    instances,
    launch,
    members,
    offers,
    volumes,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.images import MachineImage
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.instances import Instance
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.volumes import Volume
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.plan import Draft, Facts, Plan
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.reader import Reader, together

PERMISSIONS = (
    *vpc.PERMISSIONS,
    *internet_gateway.PERMISSIONS,
    *subnets.PERMISSIONS,
    *nat.PERMISSIONS,
    *route_tables.PERMISSIONS,
    *groups.PERMISSIONS,
    *key_pair.PERMISSIONS,
    *profiles.PERMISSIONS,
    *images.PERMISSIONS,
    *offers.PERMISSIONS,
    *instances.PERMISSIONS,
    *launch.PERMISSIONS,
    *changes.PERMISSIONS,
    *load_balancer.PERMISSIONS,
    *target_group.PERMISSIONS,
    *volumes.PERMISSIONS,
    *bucket.PERMISSIONS,
    *quotas.PERMISSIONS,
    *aside.PERMISSIONS,
)
BILLED = (launch.billed, volumes.billed, load_balancer.billed, nat.billed, bastion.billed)
# The types of resources in ARNs, by what our references ("nat-gateway/eu-central-1a") and EC2's ids begin with.
# https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html#amazonec2-resources-for-iam-policies
TYPES = {
    **vpc.TYPES,
    **internet_gateway.TYPES,
    **subnets.TYPES,
    **nat.TYPES,
    **route_tables.TYPES,
    **groups.TYPES,
    **key_pair.TYPES,
    **instances.TYPES,
    **volumes.TYPES,
}


@dataclass
class Current:
    """What there is of the cluster in the account. With an existing VPC also what of it the cluster builds on."""

    vpcs: list[Vpc] = field(default_factory=list)  # ours, by tag; the one that is built in first
    given_vpc: Vpc | None = None  # the one named by vpc_id
    subnets: list[Subnet] = field(default_factory=list)
    foreign_subnets: list[Subnet] = field(default_factory=list)
    route_tables: list[RouteTable] = field(default_factory=list)
    foreign_route_tables: list[RouteTable] = field(default_factory=list)
    gateways: list[Gateway] = field(default_factory=list)
    foreign_gateways: list[Gateway] = field(default_factory=list)
    nat_gateways: list[NatGateway] = field(default_factory=list)
    addresses: list[Address] = field(default_factory=list)
    groups: list[SecurityGroup] = field(default_factory=list)
    key_pairs: list[KeyPair] = field(default_factory=list)
    roles: dict[str, Role] = field(default_factory=dict)
    profiles: dict[str, Profile] = field(default_factory=dict)
    instances: list[Instance] = field(default_factory=list)  # ended ones too, as long as EC2 shows them
    volumes: dict[str, Volume] = field(default_factory=dict)
    load_balancers: list[LoadBalancer] = field(default_factory=list)
    target_groups: list[TargetGroup] = field(default_factory=list)
    listeners: list[Listener] = field(default_factory=list)
    images: dict[Image, list[MachineImage]] = field(default_factory=dict)  # newest first
    # Of those that nodes were launched from and no pattern fits, the images that are to be had.
    images_there: set[str] = field(default_factory=set)
    account: str = ""  # the caller's, where a bucket is asked for
    bucket: Bucket | None = None  # for backups; a removal does not look

    @property
    def vpc(self) -> Vpc | None:
        return self.given_vpc or (self.vpcs[0] if self.vpcs else None)

    def built_in(self) -> set[str]:
        """The VPCs that hold something of ours."""
        holders: tuple[Any, ...] = (self.subnets, self.route_tables, self.gateways, self.groups, self.instances)
        return {item.vpc_id for items in holders for item in items}

    def empty_twins(self) -> list[Vpc]:
        """VPCs that CreateVpc, which knows no client token, left when its answer was lost and it was called again."""
        used = self.built_in()
        return [
            other
            for other in self.vpcs[1:]
            if other.id not in used and (other.cidr, dict(other.tags)) == (self.vpcs[0].cidr, dict(self.vpcs[0].tags))
        ]

    def nodes(self) -> dict[str, Instance]:
        """The instances that are there, by name."""
        return {instance.name: instance for instance in self.instances if instance.alive}

    def tagged(self) -> Iterator[Any]:
        """Everything of EC2 that has an id and tags."""
        for name in ("vpcs", "subnets", "route_tables", "gateways", "nat_gateways", "addresses", "groups", "key_pairs"):
            yield from getattr(self, name)
        yield from self.instances
        yield from self.volumes.values()
        yield from (*self.foreign_subnets, *self.foreign_route_tables, *self.foreign_gateways)
        yield from [self.given_vpc] if self.given_vpc else []


def read(aws: session.Aws, description: Description, removing: bool, comparing: bool = False) -> Current:
    """The current state: one call for each kind of resource, side by side, and only where it matters.

    For removal and for a comparison everything is asked for, otherwise what the description or the first answers call
    for.
    """
    everything = removing or comparing
    reader = Reader(aws, description.name)
    current = Current()
    # boto3 makes clients one at a time; made here, the threads do not queue for them.
    for service in ("ec2", "iam", *(("s3", "sts") if description.backup_bucket else ())):
        aws.client(service)
    meant = {pool.image for pool in description.pools}
    first: list[Callable[[], None]] = [
        partial(vpc.read, reader, description, current),
        partial(subnets.read, reader, description, current),
        partial(route_tables.read, reader, description.vpc_id, current),
        partial(groups.read, reader, current),
        partial(key_pair.read, reader, current),
        partial(instances.read, reader, current),
        partial(volumes.read, reader, current),
        partial(profiles.read, reader, description, current, removing),
    ]
    if description.backup_bucket and not removing:
        first.append(partial(bucket.read, reader, description, current))
    if everything or description.vpc_id:
        first.append(partial(internet_gateway.read, reader, description, current))
    if any(not image.id for image in meant):
        first.append(partial(images.read, reader, meant, current))
    if everything or description.private_nodes:
        first.append(partial(nat.read, reader, current))
    if everything or description.balanced:
        first.append(partial(load_balancer.read, reader, description, current))
    together(first)
    together(_second_calls(reader, description, current, removing, meant, everything))
    used = current.built_in()
    current.vpcs.sort(key=lambda vpc: (vpc.id not in used, vpc.id))
    return current


def _second_calls(
    reader: Reader, description: Description, current: Current, removing: bool, meant: set[Image], everything: bool
) -> list[Callable[[], None]]:
    """The calls that the first answers call for."""
    if removing:
        # Pod routes in the route tables of a VPC that was brought: the security groups, which go last, tell which VPC.
        brought = {group.vpc_id for group in current.groups} - {vpc.id for vpc in current.vpcs} - {description.vpc_id}
        return [partial(route_tables.read, reader, id, current, foreign_only=True) for id in sorted(brought)]
    calls: list[Callable[[], None]] = []
    # A route to a gateway proves that the gateway is there and attached; NAT gateways, addresses and the load balancer
    # never outlive the table or group that is made before and removed after them.
    attached = any(route.target.startswith("igw-") for table in current.route_tables for route in table.routes.values())
    if not everything and not description.vpc_id and not attached:
        calls.append(partial(internet_gateway.read, reader, description, current))
    if not (everything or description.private_nodes) and any(
        table.tags.get(tags.ROLE, "").startswith(subnets.PRIVATE) for table in current.route_tables
    ):
        calls.append(partial(nat.read, reader, current))
    if not (everything or description.balanced) and any(
        group.tags.get(tags.ROLE) == groups.API for group in current.groups
    ):
        calls.append(partial(load_balancer.read, reader, description, current))
    launched = {instance.image_id for instance in current.instances if instance.alive}
    ids = {image.id for image in meant if image.id}
    if ids - launched or (ids and len(current.nodes()) < description.node_count):
        calls.append(partial(images.read, reader, {image for image in meant if image.id}, current))
    fitting = {image.id for found in current.images.values() for image in found}
    if any(not image.id for image in meant) and launched - fitting:
        calls.append(partial(images.read_of_nodes, reader, launched - fitting, current))
    return calls


def billed(description: Description, zones: int) -> list[dict[str, Any]]:
    """What AWS bills a description for by time; `zones` is the number of availability zones."""
    return billing.total(item for part in BILLED for item in part(description, zones))


def check(description: Description, current: Current) -> None:
    """The description against the account. Raises DescriptionError."""
    vpc.check(description, current)
    subnets.check(description, current)
    bucket.check(description, current)


def facts_for_launch(
    reader: Reader, description: Description, current: Current, zones: tuple[str, ...], changes: Plan
) -> Facts:
    """Checks everything that a launch can fail at and that can be known before. Raises DescriptionError.

    Returns the facts with the image for each description of one.
    """
    types = offers.types_of(reader, description, current, zones)
    found = offers.images_of(reader, description, current, types, changes)
    key_pair.check_brought(reader, description)
    vpc.check_quota(reader, description, changes)
    nat.check_quota(reader, changes)
    route_tables.check_quota(reader, description, current, changes)
    offers.check_quota(reader, description, changes, types)
    return Facts(zones, found)


def launches(changes: Plan) -> bool:
    """Whether a plan needs what `facts_for_launch` finds out."""
    kinds = (launch.Launch, launch.Replace, bastion.LaunchBastion, subnets.CreateSubnet)
    return any(isinstance(step, kinds) for step in changes.steps)


def check_names(reader: Reader, changes: Plan) -> None:
    """Names that the plan is to make and that somebody else has. Raises DescriptionError."""
    key_pair.check_name(reader, changes)
    profiles.check_names(reader, changes)
    bucket.check_new(reader, changes)


def make(
    description: Description,
    current: Current,
    facts: Facts,
    removing: bool = False,
    drained: Collection[str] | None = None,
    comparing: bool = False,
) -> Plan:
    """The plan: the steps that turn `current` into what `description` says; with `removing` into nothing.

    A pure function: no clock, no chance, no API. With `drained` no node is replaced whose name is not in it; with
    `comparing` nothing is left for a later run. Raises DescriptionError.
    """
    if removing:
        return _plan(Draft(description, current, facts, removing))
    instances.check_twins(current)
    whole = _plan(Draft(description, current, facts, removing))
    held = {} if comparing else members.held_back(description, current, whole)
    leaving = [each for each in departures.departures(description, whole, current) if each.instance.name not in held]
    kept = {} if drained is None else departures.kept_back(leaving, drained)
    stays = not description.balanced and members.keep_balancer(description, current, held)
    if not held and not kept and not stays:
        return whole
    if stays:
        description = dataclasses.replace(description, keeps_balancer=True)
    rest = _plan(Draft(description, current, facts, removing, {**held, **kept}))
    rest.warnings += [members.warning(held)] if held else []
    rest.warnings += [departures.warning(kept)] if kept else []
    return rest


def _plan(draft: Draft) -> Plan:
    vpc.wanted(draft)
    internet_gateway.wanted(draft)
    subnets.wanted(draft)
    nat.wanted(draft)
    route_tables.wanted(draft)
    nodes = launch.nodes_wanted(draft)
    draft.replaced = changes.replacements(draft, nodes)
    groups.wanted(draft, nodes)
    key_pair.wanted(draft)
    bucket.wanted(draft)
    profiles.wanted(draft)
    launch.wanted(draft, nodes)
    routes = route_tables.pod_routes(draft, nodes)
    load_balancer.wanted(draft, nodes)
    _surplus(draft, {node.name for node in nodes} | bastion.wanted(draft), routes)
    draft.plan.nodes = nodes
    draft.plan.balanced = draft.description.balanced
    return draft.finished()


def _surplus(draft: Draft, names_wanted: set[str], routes: list[str]) -> None:
    """Removes whatever carries our tag and has no place in the description, each thing after those that use it.

    For `state: absent` that is everything. `routes` are the keys of the steps that remove pod routes.
    """
    ended = instances.surplus(draft, names_wanted, routes)
    replaced = [step.key for step in draft.plan.steps if step.action == plan.REPLACE]
    users = [*ended, *replaced, *load_balancer.REMOVALS]
    freed = volumes.surplus(draft, users)
    gone = nat.surplus(draft, [*ended, *replaced, *route_tables.moves(draft)])
    moved = draft.keys(changes.SetGroup, groups.Revoke, load_balancer.SetBalancerGroup)
    closed = groups.surplus(draft, [*users, *moved])
    tables = route_tables.surplus(draft, users)
    emptied = subnets.surplus(draft, [*users, *gone, *tables, *closed, f"update {load_balancer.RESOURCE}/subnets"])
    detached = internet_gateway.surplus(draft, [*users, *gone, *tables])
    vpc.surplus(draft, [*users, *freed, *gone, *closed, *tables, *emptied, *detached])
    key_pair.surplus(draft, users)
    profiles.surplus(draft, users, draft.keys(changes.SetProfile))
