# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a cluster cannot change once it lives: its description held against what it was made with.

A cluster lives from the first quorum of its etcd on. Before that nothing is in its database, and all may change.
"""

from __future__ import annotations

import ipaddress
from typing import Any, Mapping, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster.versions import numbers

# In the database, in every pod's resolv.conf, in the routes: none of it can be taken back from what runs.
FIXED = (
    "k8sgu_vpc_cidr",
    "k8sgu_pod_cidr",
    "k8sgu_pod_cidr_node_prefix",
    "k8sgu_pod_network",
    "k8sgu_service_cidr",
    "k8sgu_api_service_address",
    "k8sgu_cluster_dns_address",
    "k8sgu_cluster_domain",
)
BESIDE = "or make a new cluster with it beside this one (another k8sgu_cluster_name)"

Values = Mapping[str, Any]
# A node has `name`, `control_plane`, `etcd`, `address` and `membership` (of the module node_facts), None where unread.
Nodes = Sequence[Values]


def ours(nodes: Nodes, cluster: str) -> list[Values]:
    """The nodes that were read and are not another cluster's, which `check_owner` tells of; control plane first."""
    read = [node for node in nodes if node.get("membership") and node["membership"]["cluster"] in ("", cluster)]
    return sorted(read, key=lambda node: not node["control_plane"])


def lives(record: Values, nodes: Nodes) -> bool:
    """`record`: what the controller keeps since the birth. With no node left there is no cluster, whatever it says."""
    return bool(nodes) and (bool(record) or any(node["membership"]["born"] for node in nodes if node.get("membership")))


def made_with(record: Values, nodes: Nodes) -> dict[str, Any]:
    """By option, what the cluster was made with: as recorded, else as the first node shows it that does."""
    found: dict[str, Any] = {}
    for node in nodes:
        if node["membership"]["born"]:
            found = {**node["membership"]["fixed"], **found}
    found.update(record.get("fixed") or {})
    try:
        service = ipaddress.IPv4Network(found["k8sgu_service_cidr"])
        # https://kubernetes.io/docs/reference/using-api/: the API server takes the first address.
        found.setdefault("k8sgu_api_service_address", str(service.network_address + 1))
    except (KeyError, ValueError):
        pass
    return found


def members(record: Values, nodes: Nodes) -> list[str]:
    """Names of etcd's members: as recorded, else as a member tells, else as a unit has them beside data."""
    if record.get("members"):
        return list(record["members"])
    own = [node["membership"]["etcd"] for node in nodes if node["membership"]["etcd"]["data"]]
    # A member that was added and never started has no name yet.
    told = [[one["name"] or one["address"] for one in etcd["members"]] for etcd in own if etcd["members"]]
    return next(iter([*told, *(list(etcd["initial"]) for etcd in own if etcd["initial"])]), [])


def check_fixed(values: Values, made: Values) -> list[str]:
    return [
        f"{option}: {values[option]}, and this cluster was made with {made[option]}, which cannot change while it "
        f"lives; put back {made[option]}, {BESIDE}"
        for option in FIXED
        if made.get(option) not in (None, "")
        and str(values[option]) != str(made[option])
        # A VPC that was brought has its own range.
        and not (option == "k8sgu_vpc_cidr" and values.get("k8sgu_vpc_id"))
    ]


def check_count(count: int | None, names: Sequence[str], nodes: Nodes) -> list[str]:
    """`count`: the description's, None where it says none and the inventory is what there should be."""
    there = [node["name"] for node in nodes if node["etcd"]]
    if not names or (count is None and not there):
        return []
    if count is None:
        what, wanted = f"the inventory's group etcd: {len(there)} ({', '.join(there)})", len(there)
        back = f"put back {', '.join(name for name in names if name not in there) or 'those alone'}"
    else:
        what, wanted = f"k8sgu_control_plane_count: {count}", count
        back = f"put back {len(names)}"
    if wanted == len(names):
        return []
    return [
        f"{what}, and this cluster's etcd has {len(names)} member{'' if len(names) == 1 else 's'} "
        f"({', '.join(names)}); control-plane nodes cannot be added or removed while it lives; {back}, {BESIDE}"
    ]


def check_version(version: str, nodes: Nodes) -> list[str]:
    """By one minor forward at most: https://kubernetes.io/releases/version-skew-policy/#kube-apiserver.

    Backward, etcd of the older release would not open what the newer has written.
    """
    there = [str(node["membership"]["kubernetes"]) for node in nodes if numbers(str(node["membership"]["kubernetes"]))]
    wanted = numbers(version)
    if not there or len(wanted) < 2:
        return []
    newest, oldest = max(there, key=numbers), min(there, key=numbers)
    if wanted[:2] < numbers(newest)[:2]:
        return [
            f"k8sgu_kubernetes_version: {version}, and the API server is {newest}; a minor version cannot be gone "
            f"back; put back {newest}, {BESIDE}"
        ]
    if wanted[0] != numbers(oldest)[0] or wanted[1] > numbers(oldest)[1] + 1:
        return [
            f"k8sgu_kubernetes_version: {version}, and the API server is {oldest}; no minor version may be left out; "
            f"give the one after {oldest} first"
        ]
    return []


def check_runtime(runtime: str, nodes: Nodes) -> list[str]:
    return [
        f"{node['name']}: k8sgu_container_runtime: {runtime}, and the node runs {there['pods']} pods with "
        f"{there['runtime']}, which would be lost; put back {there['runtime']}; a node "
        "gets another runtime when it is made anew"
        for node in nodes
        for there in [node["membership"]]
        if there["runtime"] not in ("", runtime) and there["pods"]
    ]


def check_cluster(cluster: str, nodes: Nodes) -> list[str]:
    """Nodes of another cluster."""
    return [
        f"{node['name']}: belongs to the cluster {node['membership']['cluster']!r} (/etc/k8sgu/cluster.json), not to "
        f"{cluster!r}; put back the name (k8sgu_cluster_name), take another node, or install this one anew"
        for node in nodes
        if node.get("membership") and node["membership"]["cluster"] not in ("", cluster)
    ]


def check_living(values: Values, count: int | None, record: Values, nodes: Nodes) -> list[str]:
    """Every change that a living cluster cannot take, with both values and the way there is."""
    read = ours(nodes, str(values["k8sgu_cluster_name"]))
    alive = lives(record, nodes)
    problems = check_fixed(values, made_with(record, read)) if alive else []
    # A member keeps from its first start on who the others are.
    if alive or any(node["membership"]["etcd"]["data"] for node in read):
        problems += check_count(count, members(record, read), nodes)
    problems += check_version(str(values["k8sgu_kubernetes_version"]), read)
    problems += check_runtime(str(values["k8sgu_container_runtime"]), read)
    return problems
