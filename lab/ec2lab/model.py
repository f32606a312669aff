"""The network and nodes that should exist, as plain data: the boundary between the API and the machines.

`ec2lab.api` translates moto's objects into a `Desired`, from which `ec2lab.fabric` makes the network and
`ec2lab.machine` the nodes. Nothing here depends on moto, nftables or nspawn. Addresses are canonical ("10.240.0.10"),
networks are CIDR strings ("10.240.0.0/24").
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Protocol = Literal["-1", "tcp", "udp", "icmp"]
TargetKind = Literal["local", "internet", "nat", "instance", "blackhole"]


@dataclass(frozen=True)
class Rule:
    """One permission of a security group, as IpPermissions has it.

    `from_port` and `to_port` are inclusive; for icmp they are type and code (-1: any); None means every port.
    The peer is in one of `cidrs` or a member of one of `groups`.
    """

    protocol: Protocol
    from_port: int | None
    to_port: int | None
    cidrs: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class SecurityGroup:
    id: str
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()


@dataclass(frozen=True)
class Route:
    """`target` is an instance id for kind `instance`, a NAT gateway id for `nat`, otherwise empty."""

    destination: str
    kind: TargetKind
    target: str = ""


@dataclass(frozen=True)
class Subnet:
    id: str
    cidr: str
    routes: tuple[Route, ...]


@dataclass(frozen=True)
class Node:
    """An instance as the network sees it; only instances that have a machine (pending, running, stopping) are listed.

    `cut` is the fault `network`: the node keeps running with its link down.
    """

    id: str
    subnet_id: str
    private_ip: str
    mac: str
    hostname: str
    security_groups: tuple[str, ...]
    public_ip: str | None = None
    source_dest_check: bool = True
    cut: bool = False
    tap: bool = False  # its machine is a virtual one: the link is a tap device and not a veth


@dataclass(frozen=True)
class NatGateway:
    id: str
    subnet_id: str
    private_ip: str
    public_ip: str


@dataclass(frozen=True)
class Target:
    """A member of a target group: an instance of the same VPC (by its private address) and a port."""

    instance_id: str
    ip: str
    port: int


@dataclass(frozen=True)
class HealthCheck:
    protocol: Literal["TCP", "HTTP", "HTTPS"] = "TCP"
    port: int | None = None  # None: the traffic port
    path: str = "/"
    interval_s: float = 10.0
    timeout_s: float = 10.0
    healthy_threshold: int = 3
    unhealthy_threshold: int = 3
    matcher: str = "200-399"


@dataclass(frozen=True)
class TargetGroup:
    arn: str
    targets: tuple[Target, ...]
    health_check: HealthCheck
    preserve_client_ip: bool = False


@dataclass(frozen=True)
class Listener:
    port: int
    target_group_arn: str


@dataclass(frozen=True)
class LoadBalancer:
    """A network load balancer: one private address per subnet; public addresses when it is internet-facing."""

    arn: str
    dns_name: str
    security_groups: tuple[str, ...]  # empty: not filtered, as for an NLB made without security groups
    addresses: tuple[tuple[str, str, str | None], ...]  # (subnet id, private ip, public ip)
    listeners: tuple[Listener, ...]


@dataclass(frozen=True)
class Vpc:
    id: str
    cidrs: tuple[str, ...]  # the one that it was made with first
    subnets: tuple[Subnet, ...] = ()
    security_groups: tuple[SecurityGroup, ...] = ()
    nodes: tuple[Node, ...] = ()
    nat_gateways: tuple[NatGateway, ...] = ()
    load_balancers: tuple[LoadBalancer, ...] = ()
    target_groups: tuple[TargetGroup, ...] = ()
    internet_gateway: bool = False


@dataclass(frozen=True)
class Desired:
    """Everything that the fabric makes: the lab's name, its range of public addresses, its VPCs."""

    lab: str
    public_range: str
    vpcs: tuple[Vpc, ...] = field(default=())
