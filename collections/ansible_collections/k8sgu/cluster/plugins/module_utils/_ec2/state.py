# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What there is in the account, as plain data.

`reading` fills it from the API; `planning` compares it with the description.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping, NamedTuple

Tags = Mapping[str, str]

# An instance in one of these is there; in the others it is gone or going, and its name is free again.
ALIVE = frozenset({"pending", "running", "stopping", "stopped"})


class Rule(NamedTuple):
    """One permission of a security group towards one peer: a group's id ("sg-...") or a range.

    -1 stands for every port or type.
    """

    protocol: str
    first: int
    last: int
    peer: str


@dataclass(frozen=True)
class Vpc:
    id: str
    cidr: str
    tags: Tags
    dns_hostnames: bool = True
    further_cidrs: tuple[str, ...] = ()  # ranges that were added to it


@dataclass(frozen=True)
class Subnet:
    id: str
    vpc_id: str
    cidr: str
    zone: str
    maps_public_ip: bool
    tags: Tags


@dataclass(frozen=True)
class Route:
    """`target` is the id of what the route leads to, of an instance rather than of its interface.

    Not `active`: it is gone.
    """

    destination: str
    target: str
    active: bool = True


@dataclass(frozen=True)
class RouteTable:
    id: str
    vpc_id: str
    tags: Tags
    main: bool
    associations: Mapping[str, str]  # subnet id -> association id
    routes: Mapping[str, Route]  # by destination


@dataclass(frozen=True)
class Gateway:
    """An internet gateway; `vpc_id` is empty while it is not attached."""

    id: str
    vpc_id: str
    tags: Tags


@dataclass(frozen=True)
class NatGateway:
    id: str
    subnet_id: str
    state: str
    allocation_id: str
    tags: Tags


@dataclass(frozen=True)
class Address:
    """An Elastic IP; `association_id` is empty while nothing uses it."""

    id: str
    association_id: str
    tags: Tags


@dataclass(frozen=True)
class SecurityGroup:
    id: str
    name: str
    vpc_id: str
    tags: Tags
    rules: Mapping[Rule, str]  # each with its description


@dataclass(frozen=True)
class KeyPair:
    id: str
    name: str
    tags: Tags


@dataclass(frozen=True)
class Role:
    """An IAM role; `policy` is the inline document of our name, None without one."""

    name: str
    arn: str
    policy: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Profile:
    name: str
    arn: str
    roles: tuple[str, ...]


@dataclass(frozen=True)
class Volume:
    id: str
    size: int
    encrypted: bool
    kind: str
    state: str
    tags: Tags


@dataclass(frozen=True)
class Instance:
    id: str
    name: str
    state: str
    instance_type: str
    image_id: str
    architecture: str
    key_name: str
    subnet_id: str
    vpc_id: str
    zone: str
    private_ip: str
    public_ip: str
    private_dns: str
    groups: frozenset[str]
    profile_arn: str
    source_dest_check: bool
    imds_tokens_required: bool
    imds_hop_limit: int
    root_device: str
    volumes: Mapping[str, str]  # device -> volume id
    interface_id: str
    launched: str
    tags: Tags

    @property
    def alive(self) -> bool:
        return self.state in ALIVE


@dataclass(frozen=True)
class LoadBalancer:
    arn: str
    name: str
    dns_name: str
    scheme: str
    state: str
    vpc_id: str
    subnet_ids: frozenset[str]
    groups: frozenset[str]
    tags: Tags


@dataclass(frozen=True)
class TargetGroup:
    arn: str
    name: str
    vpc_id: str
    preserves_client_ip: bool
    targets: frozenset[str]  # instance ids that are not draining
    tags: Tags
    health_check: Mapping[str, str] = field(default_factory=dict)  # by the API's names


@dataclass(frozen=True)
class Listener:
    arn: str
    port: int
    target_group_arn: str


@dataclass(frozen=True)
class MachineImage:
    id: str
    name: str
    owner: str
    architecture: str
    root_device: str
    created: str
    smallest_root: int = 0


@dataclass
class Current:
    """Everything of the cluster in the account. With an existing VPC also what of it the cluster builds on."""

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
    instances: list[Instance] = field(default_factory=list)  # gone ones too, as long as EC2 shows them
    volumes: dict[str, Volume] = field(default_factory=dict)
    load_balancers: list[LoadBalancer] = field(default_factory=list)
    target_groups: list[TargetGroup] = field(default_factory=list)
    listeners: list[Listener] = field(default_factory=list)
    images: dict[Any, list[MachineImage]] = field(default_factory=dict)  # by description.Image, newest first

    @property
    def vpc(self) -> Vpc | None:
        return self.given_vpc or (self.vpcs[0] if self.vpcs else None)

    def built_in(self) -> set[str]:
        """The VPCs that hold something of ours."""
        holders = (self.subnets, self.route_tables, self.gateways, self.groups, self.instances)
        found: set[str] = {item.vpc_id for items in holders for item in items}
        return found

    def empty_twins(self) -> list[Vpc]:
        """VPCs that CreateVpc, which knows no client token, left when its answer was lost and it was called again."""
        used = self.built_in()
        return [
            vpc
            for vpc in self.vpcs[1:]
            if vpc.id not in used and (vpc.cidr, dict(vpc.tags)) == (self.vpcs[0].cidr, dict(self.vpcs[0].tags))
        ]

    def nodes(self) -> dict[str, Instance]:
        """The instances that are there, by name."""
        return {instance.name: instance for instance in self.instances if instance.alive}
