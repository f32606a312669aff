# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks names in the description and of the nodes, and the number of etcd members."""

from __future__ import annotations

from typing import Any, Callable, Mapping, Sequence

from ansible.module_utils.common.validation import check_type_dict, check_type_list

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster import names as name_rules


def _count(pool: Any) -> int:
    """The number of nodes of a pool; 0 if it does not give a valid one, which `check_pools` reports."""
    count = pool.get("count") if isinstance(pool, Mapping) else None
    return int(count) if isinstance(count, (int, str)) and str(count).isdecimal() else 0


def _pools(values: Mapping[str, Any]) -> list[Any]:
    given = values["k8sgu_pools"]
    return list(given) if isinstance(given, (list, tuple)) else [given]


def described_count(values: Mapping[str, Any]) -> int:
    counts = [values["k8sgu_control_plane_count"], values["k8sgu_worker_count"]]
    return sum(map(int, counts)) + sum(map(_count, _pools(values)))


def check_described(values: Mapping[str, Any]) -> list[str]:
    """Problems of the names of a cluster that ec2_cluster is to make, in ec2_cluster's words."""
    problems = [
        *check_pools(values),
        *_check_admins(values),
        *_of("k8sgu_tags", name_rules.tags_faults, values.get("k8sgu_tags"), check_type_dict),
    ]
    region = str(values.get("k8sgu_region") or "")
    return problems + _of(
        "k8sgu_zones", lambda zones: [name_rules.zones_fault(zones, region)], values.get("k8sgu_zones"), check_type_list
    )


def _check_admins(values: Mapping[str, Any]) -> list[str]:
    """The security groups of the nodes admit nobody else, and what is added to them by hand a run takes away."""
    if values.get("k8sgu_admin_cidrs"):
        return []
    return [
        "k8sgu_admin_cidrs: empty, so that no node would admit anybody to SSH and the API, this machine neither, and "
        "the run would end there with everything billed; give the range that you come from: your public address "
        "([203.0.113.7/32]), or, on a machine in the VPC (k8sgu_vpc_id) or connected to it, its private one "
        "([10.0.1.0/24]); nodes are then reached by their private addresses"
    ]


def _of(option: str, faults: Callable[[Any], list[str]], value: Any, converted: Callable[[Any], Any]) -> list[str]:
    """Faults of a value after Ansible's conversion: -e k8sgu_zones=a,b becomes a list."""
    if not value:
        return []
    try:
        value = converted(value)
    except TypeError:
        what = "a dictionary" if converted is check_type_dict else "a list"
        return [f"{option}: {name_rules.shown(value)} is not {what}; give {what}, or leave it out"]
    return [f"{option}: {fault}" for fault in faults(value) if fault]


def check_pools(values: Mapping[str, Any]) -> list[str]:
    """Problems of the additional pools, and of the names that all nodes would have."""
    problems = []
    pools = [
        (name_rules.CONTROL_PLANE_POOL, int(values["k8sgu_control_plane_count"])),
        (name_rules.WORKER_POOL, int(values["k8sgu_worker_count"])),
    ]
    for number, pool in enumerate(_pools(values)):
        where = f"k8sgu_pools[{number}]"
        if not isinstance(pool, Mapping) or "name" not in pool:
            problems.append(f"{where}: {pool!r} has no name; give each pool a name and a count")
            continue
        if not str(pool.get("count")).isdecimal():
            problems.append(
                f"{where}.count: {name_rules.shown(pool.get('count'))} is not a number of nodes; give 0 or more"
            )
        fault = name_rules.pool_fault(pool["name"])
        if fault:
            problems.append(f"{where}.name: {fault}")
        else:
            pools.append((str(pool["name"]), _count(pool)))
    cluster = values["k8sgu_cluster_name"]
    # Report a wrong name once: the nodes' names that contain it are wrong too.
    if not name_rules.cluster_fault(cluster):
        problems += [f"k8sgu_pools: {fault}" for fault in name_rules.pools_faults(cluster, pools)]
    return problems


def check_hosts(nodes: Sequence[Mapping[str, Any]]) -> list[str]:
    """Problems of the inventory's nodes: invalid names, and machines with two names."""
    problems = [
        f"{node['name']}: {fault}; a node's name in the inventory is its host name"
        for node in nodes
        for fault in [name_rules.node_fault(node["name"])]
        if fault
    ]
    for what, way_out in (
        ("name", "names are compared without upper and lower case; rename one"),
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
    """etcd survives the loss of a minority, so an even number of members survives no more than one less."""
    if count > 0 and count % 2:
        return []
    near = f"{count - 1} or {count + 1}" if count > 0 else "1 or 3"
    return [f"{option}: {count} etcd members; an odd number is needed: {near}"]
