# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks a node by what `probe.py` read from it."""

from __future__ import annotations

import json
from typing import Any, Dict, Iterable, Mapping, Tuple

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster.architectures import NAMES
from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster.versions import numbers
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import quota
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.ports import PROGRAMS
from ansible_collections.k8sgu.cluster.plugins.module_utils._volume import plan as volumes
from ansible_collections.k8sgu.cluster.plugins.module_utils._volume.disk import Disk, Place
from ansible_collections.k8sgu.cluster.plugins.module_utils._volume.options import ETCD_DATA

# The oldest release of each distribution that still gets updates and has what the components need.
DISTRIBUTIONS = {"ubuntu": (20, 4), "debian": (11,)}
FEATURES = {
    "br_netfilter": "answers of Services between pods on one node would get lost",
    "overlay": "the container runtime needs it for images",
    "nf_tables": "kube-proxy and the pod network write its rules",
}
# Programs of the port table that are not ours to place.
OTHERS = ("sshd", "pods", "load balancer", "kernel")

# MiB and inodes that every run needs free where it writes, by the most demanding directory of a file system: programs
# and their predecessors (kept until the new ones are healthy), images and databases; packages; files.
ROOM = {
    **dict.fromkeys(("/opt", "/var/lib", ETCD_DATA, "/var/lib/containerd", "/var/lib/docker"), (512, 2000)),
    **dict.fromkeys(("/usr", "/var/cache", "/var/log", "/var/lib/kubelet"), (64, 500)),
}
OTHER_ROOM = (16, 100)
# Errors of Python, mkdir and the kernel when a node's disk prevents a module from running.
UNWRITABLE = {
    "full": ("No space left on device", "No usable temporary directory"),
    "read-only": ("Read-only file system",),
}
NO_VOLUME = (
    "k8sgu_etcd_volume_size: {} GiB, and it has no volume for etcd (ec2_etcd_volume_id); put back 0, or make a new "
    "cluster (playbooks/infrastructure.yml attaches volumes at the launch), or name it in an inventory of your own"
)
SIZES = {"/": " (k8sgu_root_volume_size)", ETCD_DATA: " (k8sgu_etcd_volume_size)"}
MAKE_ROOM = "make room (du -xh %s | sort -h | tail -30 shows what takes it)"

Node = Mapping[str, Any]
Probe = Mapping[str, Any]
# Our programs, by the protocol and port that only they use on a node.
Ports = Dict[Tuple[str, int], str]


def check_node(node: Node, values: Mapping[str, Any], port_table: Iterable[Mapping[str, Any]]) -> list[str]:
    """Problems of one node. `node` has `name`, `control_plane` and `probe`, the result of preflight_node."""
    name, result = node["name"], node["probe"]
    if result.get("unreachable") or result.get("failed") or "node" not in result:
        said = [str(result[key]) for key in ("msg", "module_stderr", "module_stdout") if result.get(key)]
        reason = " ".join(" ".join(said[:1] or ["nothing was read"]).split())
        for state, words in UNWRITABLE.items():
            if any(word in text for word in words for text in said):
                return [
                    f"{name}: its disk is {state}, so that Ansible cannot run there: {reason[:500]}; log in, "
                    "check it (df -h; df -i; grep ' ro[, ]' /proc/mounts), and make room or repair it"
                ]
        return [f"{name}: could not be read: {reason[:500]}; check that it runs, ansible_host and the SSH key"]
    probe = result["node"]
    problems = [
        *check_system(probe),
        *check_memory(probe, values),
        *check_disks(probe, values),
        *check_clock(probe, result["clock"], float(values["k8sgu_preflight_max_clock_skew_seconds"])),
        *check_owner(probe, name, values["k8sgu_cluster_name"]),
        *check_cloud_init(probe),
        *check_kernel(probe),
        *check_proxy(probe),
        *check_volume(probe, node, values),
        *check_quota(probe, node, values),
        *check_ports(probe, bool(node["control_plane"]), port_table),
    ]
    return [f"{name}: {problem}" for problem in problems]


def check_system(probe: Probe) -> list[str]:
    problems = []
    distribution, version = probe["distribution"], probe["distribution_version"]
    oldest = DISTRIBUTIONS.get(distribution)
    # Debian testing has no version number.
    release = numbers(version)
    if oldest is None or (release and release < oldest) or (not release and distribution != "debian"):
        seen = f"{distribution} {version}".strip() or "unknown"
        problems.append(
            f"the operating system {seen} is not supported; use an image (k8sgu_image) of Ubuntu from 20.04 or Debian "
            "from 11"
        )
    if probe["architecture"] not in NAMES:
        problems.append(
            f"the architecture {probe['architecture']} is not supported; use an instance type with {' or '.join(NAMES)}"
        )
    return problems


def owner(probe: Probe) -> dict[str, Any] | None:
    """The node's owner; None if the file is damaged."""
    if not probe["owner"]:
        return {}
    try:
        found = json.loads(probe["owner"])
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.get("cluster") else None


def check_memory(probe: Probe, values: Mapping[str, Any]) -> list[str]:
    memory = int(values["k8sgu_preflight_min_memory_mb"])
    if probe["memory_mb"] >= memory:
        return []
    return [
        f"{probe['memory_mb']} MiB of memory, less than k8sgu_preflight_min_memory_mb {memory}; use a larger instance "
        "type"
    ]


def check_disks(probe: Probe, values: Mapping[str, Any]) -> list[str]:
    disk = float(values["k8sgu_preflight_min_disk_gb"])
    # On its own node, a cluster's data does not count as missing space, as long as a run has enough.
    ours = (owner(probe) or {}).get("cluster") == values["k8sgu_cluster_name"]
    kind, size = ("in all", probe["disk_total_gb"]) if ours else ("free", probe["disk_free_gb"])
    problems = []
    for each in probe["file_systems"]:
        small = "/var/lib" in each["directories"] and size < disk
        if small and not each["read_only"]:
            problems.append(
                f"{size:.1f} GiB {kind} at /var/lib, less than k8sgu_preflight_min_disk_gb {disk:g}; make room, or "
                "enlarge the disk (k8sgu_root_volume_size)"
            )
        # A disk can be both too small and full.
        problems += check_room(each, told=small and not ours)
    return problems


def check_room(each: Mapping[str, Any], told: bool) -> list[str]:
    """Problems of one file system; `told`: whether too little free space was reported already."""
    mount, rows = each["mount"], [ROOM.get(path, OTHER_ROOM) for path in each["directories"]]
    space, files = max(row[0] for row in rows), max(row[1] for row in rows)
    place = f"the file system at {mount}"
    if each["read_only"]:
        return [
            f"{place} is mounted read-only; find out why (dmesg | grep -i -e error -e remount; /etc/fstab), repair it, "
            f"and mount it again: mount -o remount,rw {mount}"
        ]
    problems = []
    if each["free_mb"] < space and not told:
        problems.append(
            f"{place} is full: {each['free_mb']} of {each['size_mb']} MiB are free, and a run needs {space}; "
            f"{MAKE_ROOM % mount}, or enlarge it{SIZES.get(mount, '')}"
        )
    if each["inodes"] and each["free_inodes"] < files:
        problems.append(
            f"{place} is full: {each['free_inodes']} of {each['inodes']} inodes are free, and a run needs {files}; "
            f"remove small files (du --inodes -x {mount} | sort -n | tail -30 shows where they are)"
        )
    return problems


def skew(there: float, before: float, after: float) -> float:
    """The least seconds by which a clock is ahead (negative: behind), if read between two readings of ours."""
    return min(0.0, there - before) if there < before else max(0.0, there - after)


def check_clock(probe: Probe, clock: Mapping[str, float], limit: float) -> list[str]:
    apart = skew(probe["time"], clock["before"], clock["after"])
    if abs(apart) <= limit:
        return []
    return [
        f"the clock is {abs(apart):.0f} s {'ahead of' if apart > 0 else 'behind'} the controller's, more than "
        f"k8sgu_preflight_max_clock_skew_seconds {limit:g}, and certificates would not be valid; set the time "
        "(timedatectl, k8sgu_ntp_servers), or the controller's"
    ]


def check_owner(probe: Probe, name: str, cluster: str) -> list[str]:
    found = owner(probe)
    if found is None:
        return ["/etc/k8sgu/cluster.json is damaged and names no owner; remove it if the node is this cluster's"]
    if found and found["cluster"] != cluster:
        return [
            f"belongs to the cluster {found['cluster']!r} (/etc/k8sgu/cluster.json), not to {cluster!r}; use another "
            "node, or reinstall this one"
        ]
    if found and found.get("node") not in (None, name):
        return [f"is the node {found['node']!r} of this cluster (/etc/k8sgu/cluster.json); name it so in the inventory"]
    return []


def check_cloud_init(probe: Probe) -> list[str]:
    """A machine must be set up before its first change; a later boot of a node with an owner may end as it likes."""
    found = probe["cloud_init"]
    if not found["enabled"] or owner(probe):
        return []
    if not found["finished"]:
        at = f" (stage {found['stage']})" if found["stage"] else ""
        return [f"cloud-init is still at work{at}; run again when `cloud-init status --wait` has ended there"]
    if found["errors"]:
        return [
            f"cloud-init failed, so that the machine is not what image and user data make of it: "
            f"{'; '.join(found['errors'])[:500]}; see /var/log/cloud-init-output.log there, correct the user data and "
            "replace the node, or mend it and run `cloud-init clean` and reboot"
        ]
    return []


def check_kernel(probe: Probe) -> list[str]:
    return [
        f"the kernel has no {feature}: {why}; use a kernel of the distribution, or install its linux-modules-extra "
        "package"
        for feature, why in FEATURES.items()
        if not probe["kernel"].get(feature)
    ]


def check_proxy(probe: Probe) -> list[str]:
    return [
        f"the proxy {address} of k8sgu_proxy cannot be reached from the node ({reason}); correct the address, or let "
        "the node's subnet and security group reach it"
        for address, reason in sorted(probe["unreached"].items())
    ]


def check_volume(probe: Probe, node: Node, values: Mapping[str, Any]) -> list[str]:
    """The volume for etcd's data, which must be there if it is wanted, and blank or this node's own."""
    found = probe.get("volume") or {}
    size = int(values.get("k8sgu_etcd_volume_size") or 0)
    if size and node.get("etcd") and not node.get("volume"):
        return [NO_VOLUME.format(size)]
    if not found or found.get("error"):
        return [found["error"]] if found else []
    wanted = volumes.Wanted(found["id"], ETCD_DATA, str(values["k8sgu_cluster_name"]), node["name"])
    return volumes.problems(wanted, Disk(**found["disk"]), Place(**found["place"]), found["half_made"])


def check_quota(probe: Probe, node: Node, values: Mapping[str, Any]) -> list[str]:
    """Whether a member's disk, whatever is on it now, holds a database that fills etcd's quota."""
    given = quota.number(values.get(quota.OPTION))
    # A quota that cannot be is reported once, and not for each node.
    if not node.get("etcd") or given is None or quota.fault(given):
        return []
    volume = probe.get("volume") or {}
    if volume:
        return [] if volume.get("error") else quota.node_faults(given, int(volume["disk"]["size"]), True)
    here = max(
        (each for each in probe["file_systems"] if ETCD_DATA in each["directories"]),
        key=lambda each: len(each["mount"]),
        default=None,
    )
    return quota.node_faults(given, int(here["size_mb"]) * quota.MIB, here["mount"] == ETCD_DATA) if here else []


def our_ports(control_plane: bool, port_table: Iterable[Mapping[str, Any]]) -> Ports:
    role = "control_plane" if control_plane else "worker"
    return {
        (row["protocol"], row["first"]): row["listener"]
        for row in port_table
        if role in row["nodes"]
        and row["protocol"] in ("tcp", "udp")
        and row["first"] == row["last"]
        and row["listener"] not in OTHERS
    }


def check_ports(probe: Probe, control_plane: bool, port_table: Iterable[Mapping[str, Any]]) -> list[str]:
    ours = our_ports(control_plane, port_table)
    taken = {}
    for found in probe["listeners"]:
        # The file of a running program was replaced.
        program = found["program"].replace(" (deleted)", "")
        place = (found["protocol"], found["port"])
        if place in ours and program not in PROGRAMS.get(ours[place], (ours[place],)):
            taken[place] = program
    return [
        f"{place[0].upper()} port {place[1]} of {ours[place]} is taken by {program}; stop it, or give it another port"
        for place, program in sorted(taken.items())
    ]
