"""A VPC's packet filter as nftables text: a pure function of the description.

What happens to a packet, hook by hook, in the VPC's namespace:

    prerouting  raw     drops packets of a node that is cut off, or whose source address is not its own
                -150    the mark of the node's subnet (it selects the route table); the sender's egress rules
                -140    a load balancer's own security groups
                dstnat  load balancers' listeners to their targets; public addresses to private ones
    input               the lab's services, from nodes, whatever the security groups say (as EC2's link-local services)
    forward             the receiver's destination check; which links may forward to which
    postrouting srcnat  load balancers' and public addresses as source
                150     the receiver's ingress rules: they see the same source as on EC2

Security groups are stateful: only a connection's first packet is checked.
https://docs.aws.amazon.com/vpc/latest/userguide/vpc-security-groups.html
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ec2lab import addresses, model, names, routes

TABLE = "ec2lab"
NODES = '"n*"'  # every node's link, see names.node_link
_HAIRPIN = 0x1
_BALANCER = 0x100

Direction = Literal["ingress", "egress"]


@dataclass(frozen=True)
class Surroundings:
    """What the rules depend on besides the VPC's description."""

    # What nodes must not reach through the host: the host's own networks and every lab's public range.
    forbidden: tuple[str, ...] = ()
    # (target group, instance, port) of the targets that passed their health checks.
    healthy: frozenset[tuple[str, str, int]] = field(default_factory=frozenset)


def ruleset(vpc: model.Vpc, around: Surroundings) -> str:
    """The whole table, as a transaction that replaces the one before."""
    text = [f"table inet {TABLE} {{}}", f"delete table inet {TABLE}", f"table inet {TABLE} {{"]
    text += _sets(vpc, around)
    text += _group_chains(vpc)
    text += _chains(vpc, around)
    text.append("}")
    return "\n".join(text) + "\n"


def rule_matches(rule: model.Rule, direction: Direction) -> list[str]:
    """One nftables match for each kind of peer of a permission; empty if it permits nothing over IPv4."""
    match = _protocol_match(rule)
    peer = "saddr" if direction == "ingress" else "daddr"
    matches = []
    networks = collapse(rule.cidrs)
    if "0.0.0.0/0" in networks:
        matches.append(match or "meta nfproto ipv4")
    elif networks:
        matches.append(f"ip {peer} {{ {', '.join(networks)} }} {match}".strip())
    matches += [f"ip {peer} @{_members(group)} {match}".strip() for group in sorted(set(rule.groups))]
    return matches


def collapse(cidrs: Iterable[str]) -> list[str]:
    """The IPv4 networks among them, merged: a set of intervals refuses overlaps."""
    networks = [ipaddress.ip_network(cidr, strict=False) for cidr in cidrs]
    merged = ipaddress.collapse_addresses(network for network in networks if isinstance(network, ipaddress.IPv4Network))
    return [str(network) for network in merged]


def _protocol_match(rule: model.Rule) -> str:
    if rule.protocol == "-1":
        return ""
    if rule.protocol == "icmp":
        kind, code = rule.from_port, rule.to_port
        if kind is None or kind < 0:
            return "meta l4proto icmp"
        return f"icmp type {kind}" + (f" icmp code {code}" if code is not None and code >= 0 else "")
    if rule.from_port is None or rule.to_port is None or (rule.from_port <= 0 and rule.to_port >= 65535):
        return f"meta l4proto {rule.protocol}"
    ports = str(rule.from_port) if rule.from_port == rule.to_port else f"{rule.from_port}-{rule.to_port}"
    return f"{rule.protocol} dport {ports}"


def _members(group: str) -> str:
    return "members_" + group.replace("-", "_")


def _declare(kind: str, name: str, datatype: str, elements: Iterable[str], flags: str = "") -> str:
    listed = ", ".join(elements)
    return (
        f"  {kind} {name} {{ type {datatype};"
        + (f" flags {flags};" if flags else "")
        + (f" elements = {{ {listed} }};" if listed else "")
        + " }"
    )


def _group_names(vpc: model.Vpc) -> list[str]:
    """Every group that is defined, referred to or attached to something."""
    found = {group.id for group in vpc.security_groups}
    for group in vpc.security_groups:
        for rule in (*group.ingress, *group.egress):
            found.update(rule.groups)
    for node in vpc.nodes:
        found.update(node.security_groups)
    for balancer in vpc.load_balancers:
        found.update(balancer.security_groups)
    return sorted(found)


def _combinations(vpc: model.Vpc) -> dict[tuple[str, ...], int]:
    """The combinations of groups in use, numbered: each becomes one chain per direction, however many nodes have it."""
    worn = {tuple(sorted(set(node.security_groups))) for node in vpc.nodes}
    worn |= {tuple(sorted(set(b.security_groups))) for b in vpc.load_balancers if b.security_groups}
    return {groups: number for number, groups in enumerate(sorted(worn))}


def _sets(vpc: model.Vpc, around: Surroundings) -> list[str]:
    links = {node.id: names.node_link(node.id) for node in vpc.nodes}
    combinations = _combinations(vpc)
    number = {node.id: combinations[tuple(sorted(set(node.security_groups)))] for node in vpc.nodes}
    outward = routes.public_sources(vpc)
    text = [
        _declare("set", "cut", "ifname", (f'"{links[node.id]}"' for node in vpc.nodes if node.cut)),
        _declare("set", "checked", "ifname", (f'"{links[node.id]}"' for node in vpc.nodes if node.source_dest_check)),
        _declare("set", "owned", "ifname . ipv4_addr", (f'"{links[n.id]}" . {n.private_ip}' for n in vpc.nodes)),
        _declare(
            "map", "subnet_mark", "ifname : mark", (f'"{links[n.id]}" : {routes.table(n.subnet_id)}' for n in vpc.nodes)
        ),
        _declare(
            "map", "egress_of", "ifname : verdict", (f'"{links[i]}" : jump egress_{k}' for i, k in number.items())
        ),
        _declare(
            "map", "ingress_of", "ifname : verdict", (f'"{links[i]}" : jump ingress_{k}' for i, k in number.items())
        ),
        _declare("set", "may_go_out", "ifname", (f'"{links[n.id]}"' for n in vpc.nodes if n.id in outward)),
        _declare(
            "map",
            "outward",
            "ipv4_addr : ipv4_addr",
            (f"{n.private_ip} : {outward[n.id]}" for n in vpc.nodes if n.id in outward),
        ),
        _declare(
            "map", "private_of", "ipv4_addr : ipv4_addr", (f"{a} : {b}" for a, b in routes.public_nodes(vpc).items())
        ),
        _declare("set", "forbidden", "ipv4_addr", collapse(around.forbidden), flags="interval"),
    ]
    for group in _group_names(vpc):
        wearers = [node.private_ip for node in vpc.nodes if group in node.security_groups]
        for balancer in vpc.load_balancers:
            if group in balancer.security_groups:
                wearers += [private for _, private, _ in balancer.addresses]
        text.append(_declare("set", _members(group), "ipv4_addr", wearers))
    return text


def _group_chains(vpc: model.Vpc) -> list[str]:
    groups = {group.id: group for group in vpc.security_groups}
    directions: tuple[tuple[Direction, Callable[[model.SecurityGroup], tuple[model.Rule, ...]]], ...] = (
        ("ingress", lambda group: group.ingress),
        ("egress", lambda group: group.egress),
    )
    text = []
    for combination, number in _combinations(vpc).items():
        for direction, rules_of in directions:
            text.append(f"  chain {direction}_{number} {{ # {', '.join(combination) or 'no group'}")
            matches: dict[str, None] = {}
            for group_id in combination:
                for rule in rules_of(groups[group_id]) if group_id in groups else ():
                    matches.update(dict.fromkeys(rule_matches(rule, direction)))
            text += [f"    {match} accept" for match in matches]
            text += ["    drop", "  }"]
    return text


def _chains(vpc: model.Vpc, around: Surroundings) -> list[str]:
    services = ", ".join(addresses.services(vpc.cidrs[0]))
    name_servers = ", ".join(addresses.name_servers(vpc.cidrs[0]))
    stateful = "ct state established,related"
    return [
        "  chain from_node { type filter hook prerouting priority raw; policy accept;",
        "    iifname @cut drop",
        f"    iifname {NODES} meta nfproto ipv6 drop",
        "    iifname @checked iifname . ip saddr != @owned drop",
        "  }",
        "  chain egress { type filter hook prerouting priority -150; policy accept;",
        "    meta mark set iifname map @subnet_mark",
        f"    {stateful} accept",
        f"    ip daddr {{ {services} }} accept",
        "    iifname vmap @egress_of",
        "  }",
        "  chain balancer_ingress { type filter hook prerouting priority -140; policy accept;",
        f"    {stateful} accept",
        *_balancer_ingress(vpc),
        "  }",
        "  chain destination { type nat hook prerouting priority dstnat; policy accept;",
        *_listeners(vpc, around),
        f'    iifname "{names.HOST_DEVICE}" dnat ip to ip daddr map @private_of',
        f"    iifname {NODES} ip saddr @outward ip daddr @private_of ct mark set {_HAIRPIN} "
        "dnat ip to ip daddr map @private_of",
        "  }",
        "  chain input { type filter hook input priority filter; policy drop;",
        '    iifname "lo" accept',
        f"    {stateful} accept",
        # As Amazon's: who asks from another address than an interface's, as a pod with its own, gets no answer.
        f"    iifname {NODES} ip daddr {{ {name_servers} }} iifname . ip saddr != @owned drop",
        f"    iifname {NODES} ip daddr {{ {services} }} accept",
        "  }",
        "  chain forward { type filter hook forward priority filter; policy drop;",
        "    oifname @checked oifname . ip daddr != @owned drop",
        f"    {stateful} accept",
        "    ct state invalid drop",
        f"    iifname {NODES} oifname {NODES} accept",
        f'    iifname "{names.HOST_DEVICE}" oifname {NODES} ct status dnat accept',
        f'    iifname @may_go_out oifname "{names.INTERNET_DEVICE}" ip daddr != @forbidden accept',
        f'    iifname @may_go_out oifname "{names.OUTSIDE_DEVICE}" accept',
        "  }",
        "  chain source { type nat hook postrouting priority srcnat; policy accept;",
        f"    ct mark {_HAIRPIN} snat ip to ip saddr map @outward",
        *_balancer_sources(vpc),
        f'    oifname "{names.INTERNET_DEVICE}" masquerade',
        # Whoever is there sees the public address, and has no way back to what has none.
        f'    oifname "{names.OUTSIDE_DEVICE}" snat ip to ip saddr map @outward',
        "  }",
        "  chain ingress { type filter hook postrouting priority 150; policy accept;",
        "    oifname @cut drop",
        f"    {stateful} accept",
        "    oifname vmap @ingress_of",
        "  }",
    ]


def _entrances(vpc: model.Vpc, balancer: model.LoadBalancer) -> list[tuple[str, str]]:
    """(match, address) of each address at which a balancer listens; public ones match only what comes from outside."""
    entrances = [("", private) for _, private, _ in balancer.addresses]
    if vpc.internet_gateway:
        for _, _, public in balancer.addresses:
            if public:
                entrances += [
                    (f'iifname "{names.HOST_DEVICE}" ', public),
                    (f"iifname {NODES} ip saddr @outward ", public),
                ]
    return entrances


def _from_nodes(vpc: model.Vpc, balancer: model.LoadBalancer) -> list[str]:
    """What a balancer's groups permit to nodes that come by its public addresses.

    They come from their own public address, or their NAT gateway's, which no group stands for. The translation happens
    elsewhere here, so each permitted address is written as the nodes that have it.
    """
    groups = {group.id: group for group in vpc.security_groups}
    outward = routes.public_sources(vpc)
    matches: dict[str, None] = {}
    for group_id in balancer.security_groups:
        for rule in groups[group_id].ingress if group_id in groups else ():
            networks = [ipaddress.IPv4Network(cidr) for cidr in collapse(rule.cidrs)]
            senders = [
                node.private_ip
                for node in vpc.nodes
                if node.id in outward and any(ipaddress.IPv4Address(outward[node.id]) in net for net in networks)
            ]
            if senders:
                matches[f"ip saddr {{ {', '.join(senders)} }} {_protocol_match(rule)}".strip()] = None
    return list(matches)


def _balancer_ingress(vpc: model.Vpc) -> list[str]:
    combinations = _combinations(vpc)
    text = []
    for balancer in vpc.load_balancers:
        public = sorted(address for _, _, address in balancer.addresses if address) if vpc.internet_gateway else []
        if balancer.security_groups and public:
            way_in = f"    iifname {NODES} ip daddr {{ {', '.join(public)} }}"
            text += [f"{way_in} {match} accept" for match in _from_nodes(vpc, balancer)]
            text.append(f"{way_in} drop")
        if balancer.security_groups:
            number = combinations[tuple(sorted(set(balancer.security_groups)))]
            listened = sorted({address for _, address in _entrances(vpc, balancer)})
            if listened:
                text.append(f"    ip daddr {{ {', '.join(listened)} }} jump ingress_{number}")
    return text


def receivers(group: model.TargetGroup, vpc: model.Vpc, around: Surroundings) -> list[model.Target]:
    """The targets that get new connections: the healthy ones, or all when none is healthy (EC2 fails open too).

    One that was registered a moment ago and never checked is not among the healthy.

    https://docs.aws.amazon.com/elasticloadbalancing/latest/network/target-group-health-checks.html
    """
    present = {node.id for node in vpc.nodes}
    able = [target for target in group.targets if target.instance_id in present]
    healthy = [t for t in able if (group.arn, t.instance_id, t.port) in around.healthy]
    return healthy or able


def _listeners(vpc: model.Vpc, around: Surroundings) -> list[str]:
    groups: Mapping[str, model.TargetGroup] = {group.arn: group for group in vpc.target_groups}
    text = []
    for index, balancer in enumerate(vpc.load_balancers):
        for listener in balancer.listeners:
            group = groups.get(listener.target_group_arn)
            targets = receivers(group, vpc, around) if group else []
            if not group or not targets:
                continue
            mark = "" if group.preserve_client_ip else f"ct mark set {_BALANCER + index} "
            if len(targets) == 1:
                choice = f"{targets[0].ip}:{targets[0].port}"
            else:
                options = ", ".join(f"{n} : {t.ip} . {t.port}" for n, t in enumerate(targets))
                choice = f"numgen random mod {len(targets)} map {{ {options} }}"
            text += [
                f"    {match}ip daddr {address} tcp dport {listener.port} {mark}dnat ip to {choice}"
                for match, address in _entrances(vpc, balancer)
            ]
    return text


def _balancer_sources(vpc: model.Vpc) -> list[str]:
    """Rules by which a balancer connects to a target from its address in the target's subnet, or from its first one."""
    subnets = {subnet.id: subnet.cidr for subnet in vpc.subnets}
    text = []
    for index, balancer in enumerate(vpc.load_balancers):
        mark = f"    ct mark {_BALANCER + index}"
        for subnet_id, private, _ in balancer.addresses:
            if subnet_id in subnets:
                text.append(f"{mark} ip daddr {subnets[subnet_id]} snat ip to {private}")
        if balancer.addresses:
            text.append(f"{mark} snat ip to {balancer.addresses[0][1]}")
    return text
