"""A VPC's routing as data: the kernel routes that each subnet's route table becomes. Pure functions.

Each node's address is a /32 route to its link in the main table; the rest of the VPC's own range is a blackhole there,
so that no subnet's table can route it elsewhere. Each subnet has a kernel table of its own, chosen by the mark that
its nodes' packets get on arrival.
"""

from __future__ import annotations

import ipaddress
import zlib
from dataclasses import dataclass

from ec2lab import addresses, model, names

MAIN = 254
# Every subnet's routes to instances, for packets from the namespace itself and from the host.
SHARED = 200
RULE_MAIN, RULE_SUBNET, RULE_SHARED = 100, 200, 300


@dataclass(frozen=True, order=True)
class KernelRoute:
    """A route in the kernel. `kind` is unicast, blackhole or unreachable."""

    table: int
    destination: str
    kind: str = "unicast"
    device: str = ""
    via: str = ""


@dataclass(frozen=True, order=True)
class KernelRule:
    """A routing rule; mark 0 matches every packet."""

    priority: int
    mark: int
    table: int


def table(subnet_id: str) -> int:
    """The number of a subnet's kernel table, also used as its packets' mark; the same in every run."""
    return 0x10000 + (zlib.crc32(subnet_id.encode()) & 0x7FFEFFFF)


def _network(cidr: str) -> ipaddress.IPv4Network:
    return ipaddress.IPv4Network(cidr, strict=False)


def public_sources(vpc: model.Vpc) -> dict[str, str]:
    """{instance id: its public source address on the internet}, without the nodes that cannot reach the internet.

    It is the node's own address if its subnet's default route is the internet gateway, or its NAT gateway's address.
    """
    if not vpc.internet_gateway:
        return {}
    subnets = {subnet.id: subnet for subnet in vpc.subnets}
    gateways = {gateway.id: gateway for gateway in vpc.nat_gateways}
    found = {}
    for node in vpc.nodes:
        route = _default(subnets.get(node.subnet_id))
        if route is None:
            continue
        if route.kind == "internet" and node.public_ip:
            found[node.id] = node.public_ip
        elif route.kind == "nat" and _works(gateways.get(route.target), subnets):
            found[node.id] = gateways[route.target].public_ip
    return found


def public_nodes(vpc: model.Vpc) -> dict[str, str]:
    """{public address: private address} of the nodes that the internet can reach."""
    reachable = public_sources(vpc)
    return {
        node.public_ip: node.private_ip
        for node in vpc.nodes
        if node.public_ip is not None and reachable.get(node.id) == node.public_ip
    }


def public_addresses(vpc: model.Vpc) -> list[str]:
    """Every public address at which the VPC answers: the host needs a route to each."""
    found = set(public_nodes(vpc))
    if vpc.internet_gateway:
        found |= {public for b in vpc.load_balancers for _, _, public in b.addresses if public}
    return sorted(found, key=ipaddress.IPv4Address)


def _default(subnet: model.Subnet | None) -> model.Route | None:
    # Any address on the internet will do; no more specific route covers this one.
    return next((r for r in subnet.routes if r.destination == "0.0.0.0/0"), None) if subnet else None


def _towards(subnet: model.Subnet, address: str) -> model.Route | None:
    """The route that a packet from the subnet to the address takes: the most specific one."""
    there = ipaddress.IPv4Address(address)
    covering = [route for route in subnet.routes if there in _network(route.destination)]
    return max(covering, key=lambda route: _network(route.destination).prefixlen, default=None)


def _works(gateway: model.NatGateway | None, subnets: dict[str, model.Subnet]) -> bool:
    """A NAT gateway works if its own subnet has a route to the internet."""
    if gateway is None:
        return False
    route = _default(subnets.get(gateway.subnet_id))
    return route is not None and route.kind == "internet"


def kernel_routes(vpc: model.Vpc, internet: bool) -> set[KernelRoute]:
    """Every route of the VPC's namespace. `internet`: whether the host reaches the internet."""
    subnets = {subnet.id: subnet for subnet in vpc.subnets}
    gateways = {gateway.id: gateway for gateway in vpc.nat_gateways}
    nodes = {node.id: node for node in vpc.nodes}
    wanted = {KernelRoute(MAIN, node.private_ip, device=names.node_link(node.id)) for node in vpc.nodes}
    wanted |= {KernelRoute(MAIN, cidr, "blackhole") for cidr in vpc.cidrs}
    shared: dict[str, KernelRoute] = {}
    for subnet in vpc.subnets:
        number = table(subnet.id)
        if _default(subnet) is None:
            wanted.add(KernelRoute(number, "default", "blackhole"))  # nothing falls through to the shared table
        for route in subnet.routes:
            if route.kind == "local":
                continue
            destination = "default" if route.destination == "0.0.0.0/0" else route.destination
            made = KernelRoute(number, destination, "blackhole")
            if route.kind == "instance" and route.target in nodes:
                node = nodes[route.target]
                made = KernelRoute(number, destination, device=names.node_link(node.id), via=node.private_ip)
                shared.setdefault(destination, KernelRoute(SHARED, destination, device=made.device, via=made.via))
            elif (route.kind == "internet" and vpc.internet_gateway) or (
                route.kind == "nat" and vpc.internet_gateway and _works(gateways.get(route.target), subnets)
            ):
                # Without access to the internet a program fails at once instead of waiting.
                made = KernelRoute(number, destination, "unreachable")
                if internet:
                    made = KernelRoute(number, destination, device=names.INTERNET_DEVICE, via=addresses.SLIRP_GATEWAY)
                if route is _towards(subnet, addresses.OUTSIDE):
                    wanted.add(
                        KernelRoute(
                            number, addresses.OUTSIDE, device=names.OUTSIDE_DEVICE, via=addresses.OUTSIDE_GATEWAY
                        )
                    )
            wanted.add(made)
    return wanted | set(shared.values())


def kernel_rules(vpc: model.Vpc) -> set[KernelRule]:
    wanted = {KernelRule(RULE_MAIN, 0, MAIN), KernelRule(RULE_SHARED, 0, SHARED)}
    return wanted | {KernelRule(RULE_SUBNET, table(subnet.id), table(subnet.id)) for subnet in vpc.subnets}


def local_addresses(vpc: model.Vpc) -> set[str]:
    """Addresses of the namespace itself: the subnets' routers, the lab's services, the balancers."""
    found = {*addresses.services(vpc.cidrs[0]), *(addresses.router(subnet.cidr) for subnet in vpc.subnets)}
    found |= {private for balancer in vpc.load_balancers for _, private, _ in balancer.addresses}
    if vpc.internet_gateway:
        found |= {public for b in vpc.load_balancers for _, _, public in b.addresses if public}
    return found
