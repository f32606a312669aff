# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that a cluster's network ranges are large enough and do not overlap each other or the nodes."""

from __future__ import annotations

import ipaddress
from itertools import combinations
from typing import Any, Mapping, Sequence

RANGES = ("k8sgu_vpc_cidr", "k8sgu_pod_cidr", "k8sgu_service_cidr")
# RFC 6890: ranges that no cluster can use.
SPECIAL = {
    "loopback": ipaddress.IPv4Network("127.0.0.0/8"),
    "link-local": ipaddress.IPv4Network("169.254.0.0/16"),
    "multicast": ipaddress.IPv4Network("224.0.0.0/4"),
}
# Addresses of a node's range that no pod can have: the network's own, the bridge's and the broadcast address.
RESERVED_ON_NODE = 3
Networks = Mapping[str, ipaddress.IPv4Network]


def check_ranges(values: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]], expected_nodes: int) -> list[str]:
    """Problems of the ranges. `nodes` have `name` and `address`; `expected_nodes` is the planned number of nodes."""
    networks: dict[str, ipaddress.IPv4Network] = {}
    problems: list[str] = []
    for option in RANGES:
        # An existing VPC of the user's has its own range, which ec2_cluster reads.
        if option == "k8sgu_vpc_cidr" and values.get("k8sgu_vpc_id"):
            continue
        try:
            networks[option] = ipaddress.IPv4Network(values[option])
        except ValueError as error:
            problems.append(f"{option}: {values[option]!r} is not an IPv4 range ({error}); give one like 10.200.0.0/16")
    problems += overlaps(networks)
    problems += node_addresses(networks, nodes)
    if "k8sgu_pod_cidr" in networks:
        problems += pod_range(networks["k8sgu_pod_cidr"], values, expected_nodes)
    if "k8sgu_service_cidr" in networks:
        problems += service_addresses(networks["k8sgu_service_cidr"], values)
    return problems


def overlaps(networks: Networks) -> list[str]:
    problems = [
        f"{second}: {networks[second]} overlaps {first} {networks[first]}; choose ranges that share no address"
        for first, second in combinations(networks, 2)
        if networks[first].overlaps(networks[second])
    ]
    problems += [
        f"{option}: {net} overlaps the {kind} range {special}; choose another"
        for option, net in networks.items()
        for kind, special in SPECIAL.items()
        if net.overlaps(special)
    ]
    return problems


def node_addresses(networks: Networks, nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Problems of ranges of pods and Services that contain addresses of nodes."""
    problems = []
    for node in nodes:
        if not node.get("address"):
            continue
        try:
            address = ipaddress.IPv4Address(node["address"])
        except ValueError:
            problems.append(
                f"{node['name']}: ec2_private_ip {node['address']!r} is not an IPv4 address; set it in the inventory"
            )
            continue
        problems += [
            f"{option}: {networks[option]} holds the address {address} of {node['name']}; choose a range without nodes"
            for option in ("k8sgu_pod_cidr", "k8sgu_service_cidr")
            if option in networks and address in networks[option]
        ]
    return problems


def pod_range(net: ipaddress.IPv4Network, values: Mapping[str, Any], expected_nodes: int) -> list[str]:
    prefix, max_pods = int(values["k8sgu_pod_cidr_node_prefix"]), int(values["k8sgu_max_pods"])
    if not net.prefixlen <= prefix <= 30:
        return [
            f"k8sgu_pod_cidr_node_prefix: a /{prefix} is not part of k8sgu_pod_cidr {net}; "
            f"give {max(net.prefixlen, 24)}, or another from {net.prefixlen} to 30"
        ]
    problems = []
    parts, room = 2 ** (prefix - net.prefixlen), 2 ** (32 - prefix) - RESERVED_ON_NODE
    if parts < expected_nodes:
        problems.append(
            f"k8sgu_pod_cidr: {net} has {parts} parts of /{prefix} (k8sgu_pod_cidr_node_prefix) for {expected_nodes} "
            "nodes; choose a larger range or smaller parts"
        )
    if room < max_pods:
        problems.append(
            f"k8sgu_pod_cidr_node_prefix: a /{prefix} has addresses for {room} pods and k8sgu_max_pods is {max_pods}; "
            "give a smaller number for either"
        )
    return problems


def service_addresses(net: ipaddress.IPv4Network, values: Mapping[str, Any]) -> list[str]:
    problems, found = [], {}
    for option in ("k8sgu_api_service_address", "k8sgu_cluster_dns_address"):
        try:
            found[option] = ipaddress.IPv4Address(values[option])
        except ValueError:
            problems.append(
                f"{option}: {values[option]!r} is not an IPv4 address; give one of k8sgu_service_cidr {net}"
            )
    if net.prefixlen > 28:
        return [*problems, f"k8sgu_service_cidr: {net} has fewer than 16 addresses; choose a larger range"]
    first = net.network_address + 1
    api = found.get("k8sgu_api_service_address", first)
    if api != first:
        problems.append(
            f"k8sgu_api_service_address: {api} is not the first address of k8sgu_service_cidr {net}, which the API "
            f"server takes; give {first}"
        )
    dns = found.get("k8sgu_cluster_dns_address")
    if dns is not None and (dns not in net or dns in (net.network_address, net.broadcast_address, first)):
        problems.append(
            f"k8sgu_cluster_dns_address: {dns} is not a free address of k8sgu_service_cidr {net}; give {first + 9}"
        )
    return problems
