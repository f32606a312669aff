# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of nodes, and how many etcd members there are."""

from __future__ import annotations

import re
from typing import Any, Mapping, Sequence

# RFC 1123, and in lower case, as the names of Kubernetes objects are. Linux holds 64 characters of a host name.
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
RULE = "give at most 63 lower-case letters, digits and -, with neither end a -"


def described_names(values: Mapping[str, Any]) -> list[str]:
    """The names that ec2_cluster gives; of each pool the longest."""
    pools = {"control-plane": values["k8sgu_control_plane_count"], "worker": values["k8sgu_worker_count"]}
    pools.update({str(pool.get("name")): pool.get("count", 0) for pool in values["k8sgu_pools"]})
    return [
        f"{values['k8sgu_cluster_name']}-{pool}-{int(count) - 1}" for pool, count in pools.items() if int(count) > 0
    ]


def described_count(values: Mapping[str, Any]) -> int:
    counts = [values["k8sgu_control_plane_count"], values["k8sgu_worker_count"]]
    return sum(map(int, counts + [pool.get("count", 0) for pool in values["k8sgu_pools"]]))


def check_cluster_name(name: str, names: Sequence[str]) -> list[str]:
    if not LABEL.fullmatch(name):
        return [f"k8sgu_cluster_name: {name!r} is no host name (RFC 1123); {RULE}"]
    return [
        f"k8sgu_cluster_name: {made!r}, a node's name made of it ({len(made)} characters), is no host name (RFC 1123); "
        f"{RULE}, the pool's name and number included"
        for made in names
        if not LABEL.fullmatch(made)
    ]


def check_hosts(nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Nodes of the inventory: legal names, and one name for each machine."""
    problems = [
        f"{node['name']}: is no host name (RFC 1123), and a node's name in the inventory is its host name; {RULE}"
        for node in nodes
        if not LABEL.fullmatch(node["name"])
    ]
    for what, way_out in (
        ("name", "names count without regard to upper and lower case; rename one"),
        ("address", "two nodes cannot have one ec2_private_ip; correct the inventory"),
        ("connection", "they are the same machine; correct ansible_host or remove one"),
    ):
        by_value: dict[str, list[str]] = {}
        for node in nodes:
            if node.get(what):
                by_value.setdefault(str(node[what]).lower(), []).append(node["name"])
        problems += [
            f"{' and '.join(names)}: duplicate {what} {value}: {way_out}"
            for value, names in by_value.items()
            if len(names) > 1
        ]
    return problems


def check_members(count: int, option: str) -> list[str]:
    """etcd survives the loss of a minority: an even count has more to lose and no more to spare."""
    if count > 0 and count % 2:
        return []
    near = f"{count - 1} or {count + 1}" if count > 0 else "1 or 3"
    return [f"{option}: {count} etcd members; an odd number is needed: {near}"]
