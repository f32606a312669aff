# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Refuses changes that a living cluster cannot make: compares its description with what it was made with.

A cluster lives from the first quorum of its etcd on. Before that its database is empty and everything can change.
"""

from __future__ import annotations

import ipaddress
from typing import Any, Mapping, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster.versions import numbers

# These are in the database, in every pod's resolv.conf, in the routes, and cannot be changed for what runs.
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
# What has the version of the release itself.
KUBERNETES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
BESIDE = "or make a new cluster with it beside this one (another k8sgu_cluster_name)"

Values = Mapping[str, Any]
# A node has `name`, `control_plane`, `etcd`, `address` and `membership` (of the module node_facts; None if unread).
Nodes = Sequence[Values]


def ours(nodes: Nodes, cluster: str) -> list[Values]:
    """The nodes that were read and are not another cluster's (`check_owner` reports those); control plane first."""
    read = [node for node in nodes if node.get("membership") and node["membership"]["cluster"] in ("", cluster)]
    return sorted(read, key=lambda node: not node["control_plane"])


def lives(record: Values, nodes: Nodes) -> bool:
    """Whether the cluster lives. `record`: the controller's, kept since the cluster's birth. Without nodes, no."""
    return bool(nodes) and (bool(record) or any(node["membership"]["born"] for node in nodes if node.get("membership")))


def made_with(record: Values, nodes: Nodes) -> dict[str, Any]:
    """{option: value that the cluster was made with}: from the record, or else from the first node that shows it."""
    found: dict[str, Any] = {}
    for node in nodes:
        if node["membership"]["born"]:
            found = {**node["membership"]["fixed"], **found}
    found.update(record.get("fixed") or {})
    try:
        service = ipaddress.IPv4Network(found["k8sgu_service_cidr"])
        # https://kubernetes.io/docs/reference/using-api/: the API server uses the first address.
        found.setdefault("k8sgu_api_service_address", str(service.network_address + 1))
    except (KeyError, ValueError):
        pass
    return found


def members(record: Values, nodes: Nodes) -> list[str]:
    """Names of etcd's members: as a member lists them, or else from the record, or else from a node's first start."""
    own = [node["membership"]["etcd"] for node in nodes if node["membership"]["etcd"]["data"]]
    # A member that was added but never started has no name yet.
    told = [[one["name"] or one["address"] for one in etcd["members"]] for etcd in own if etcd["members"]]
    recorded = [list(record["members"])] if record.get("members") else []
    return next(iter([*told, *recorded, *(list(etcd["initial"]) for etcd in own if etcd["initial"])]), [])


def check_fixed(values: Values, made: Values) -> list[str]:
    return [
        f"{option}: {values[option]}, and this cluster was made with {made[option]}, which cannot change while it "
        f"lives; put back {made[option]}, {BESIDE}"
        for option in FIXED
        if made.get(option) not in (None, "")
        and str(values[option]) != str(made[option])
        # An existing VPC of the user's has its own range.
        and not (option == "k8sgu_vpc_cidr" and values.get("k8sgu_vpc_id"))
    ]


def check_count(count: int | None, names: Sequence[str], nodes: Nodes, alive: bool) -> list[str]:
    """Problems of the number of members. `count`: the description's, None if the inventory decides.

    A cluster that lives may get more of them, and fewer if EC2 has the machines. One that was never born has the
    members of its first start.
    """
    there = [node["name"] for node in nodes if node["etcd"]]
    if not names or (count is None and not there):
        return []
    if count is None:
        what, wanted = f"the inventory's group etcd: {len(there)} ({', '.join(there)})", len(there)
        back = f"put back {', '.join(name for name in names if name not in there) or 'those alone'}"
    else:
        what, wanted = f"k8sgu_control_plane_count: {count}", count
        back = f"put back {len(names)}"
    # Fewer of them: the infrastructure removes members before their machines end.
    if wanted == len(names) or (alive and wanted % 2 and (wanted > len(names) or count is not None)):
        return []
    has = f"{len(names)} member{'' if len(names) == 1 else 's'} ({', '.join(names)})"
    if alive and wanted % 2 == 0 and (wanted > len(names) or count is not None):
        # https://etcd.io/docs/v3.6/faq/#why-an-odd-number-of-cluster-members
        return [
            f"{what}, and this cluster's etcd has {has}; with an even number it survives no more failures than "
            f"with one less; make it {wanted + 1 if wanted > len(names) else wanted - 1}, or {back}"
        ]
    cannot = (
        "machines of your own cannot be removed from it by site.yml"
        if alive
        else "it was started with these and waits for them"
    )
    return [f"{what}, and this cluster's etcd has {has}; {cannot}; {back}, {BESIDE}"]


def running(nodes: Nodes) -> dict[str, list[str]]:
    """{version of Kubernetes: names of the nodes that have programs of it}, the oldest first."""
    found: dict[str, list[str]] = {}
    for node in nodes:
        programs = node["membership"]["programs"]
        for version in sorted({programs[name] for name in KUBERNETES if name in programs}, key=numbers):
            found.setdefault(version, []).append(node["name"])
    return dict(sorted(found.items(), key=lambda item: numbers(item[0])))


def check_version(version: str, nodes: Nodes) -> list[str]:
    """Another release takes one node after the other, drained and proven, which only upgrade.yml does."""
    there = running(nodes)
    if set(there) <= {version}:
        return []
    if len(there) == 1:
        (only,) = there
        return [
            f"k8sgu_kubernetes_version: {version}, and this cluster runs {only}; this playbook does not change the "
            f"release of a cluster that lives; run playbooks/upgrade.yml, or put back {only}"
        ]
    told = "; ".join(f"{one} on {', '.join(names)}" for one, names in there.items())
    return [
        f"k8sgu_kubernetes_version: {version}, and an upgrade of this cluster has not come to its end ({told}); run "
        "playbooks/upgrade.yml with the version that it went to, or with k8sgu_upgrade_back: true to go back"
    ]


def check_runtime(runtime: str, nodes: Nodes) -> list[str]:
    return [
        f"{node['name']}: k8sgu_container_runtime: {runtime}, and the node runs {there['pods']} pods with "
        f"{there['runtime']}, which would be lost; put back {there['runtime']}; a node "
        "can only change its runtime when it is reinstalled"
        for node in nodes
        for there in [node["membership"]]
        if there["runtime"] not in ("", runtime) and there["pods"]
    ]


def check_volume(nodes: Nodes) -> list[str]:
    """Members whose data would have to move; `volume` of a node is the id of the volume that it has for etcd."""
    problems = []
    for node in nodes:
        etcd, volume = node["membership"]["etcd"], node.get("volume")
        if not node["etcd"] or not (etcd["data"] or etcd["joined"]):
            continue
        if volume and not etcd.get("volume"):
            problems.append(
                f"{node['name']}: has the volume {volume} for etcd (k8sgu_etcd_volume_size), and its etcd lives on the "
                f"root disk; a living member's data cannot move; detach the volume and put back 0, {BESIDE}"
            )
        if etcd.get("volume") and not volume:
            problems.append(
                f"{node['name']}: its etcd lives on a volume (var-lib-etcd.mount), and the instance has none for etcd "
                "any more; attach it again as /dev/sdf and put back k8sgu_etcd_volume_size (in an inventory of "
                "your own ec2_etcd_volume_id)"
            )
    return problems


def check_cluster(cluster: str, nodes: Nodes) -> list[str]:
    """Problems of nodes that belong to another cluster."""
    return [
        f"{node['name']}: belongs to the cluster {node['membership']['cluster']!r} (/etc/k8sgu/cluster.json), not to "
        f"{cluster!r}; put back the name (k8sgu_cluster_name), use another node, or reinstall this one"
        for node in nodes
        if node.get("membership") and node["membership"]["cluster"] not in ("", cluster)
    ]


def check_living(values: Values, count: int | None, record: Values, nodes: Nodes, upgrading: bool = False) -> list[str]:
    """Every change that a living cluster cannot make, with both values and what to do.

    upgrading: the version is changed as it has to be, and has checks of its own.
    """
    read = ours(nodes, str(values["k8sgu_cluster_name"]))
    alive = lives(record, nodes)
    problems = check_fixed(values, made_with(record, read)) if alive else []
    # A member keeps the list of members from its first start on.
    if alive or any(node["membership"]["etcd"]["data"] for node in read):
        problems += check_count(count, members(record, read), nodes, alive)
    problems += check_volume(read)
    problems += check_version(str(values["k8sgu_kubernetes_version"]), read) if alive and not upgrading else []
    problems += check_runtime(str(values["k8sgu_container_runtime"]), read)
    return problems
