# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads from a node the cluster that it belongs to: what that was made with, and the node's etcd member."""

from __future__ import annotations

import http.client
import json
import os
import re
from pathlib import Path
from typing import Any, Dict
from urllib.parse import urlsplit

OWNER = "etc/k8sgu/cluster.json"
UNITS = "etc/systemd/system"
API_SERVER = f"{UNITS}/kube-apiserver.service"
CONTROLLER_MANAGER = f"{UNITS}/kube-controller-manager.service"
ETCD = f"{UNITS}/etcd.service"
ETCD_DATA = "var/lib/etcd/member"
# etcd.service writes it once the member has had a quorum; outside the data directory, to detect when that is lost.
ETCD_JOINED = "var/lib/k8sgu/etcd-joined"
# What a member's first start needs: the members there are then.
ETCD_INITIAL = "etc/etcd/initial.env"
ETCD_PKI = "etc/etcd/pki"
# A restore that was begun with a snapshot on this node, and has not come to its end; the module etcd_restore writes it.
ETCD_RESTORE = "var/lib/k8sgu/etcd-restore.json"
# Where etcd's data is on a volume of its own, the unit that mounts it; the module data_volume writes it.
ETCD_MOUNT = f"{UNITS}/var-lib-etcd.mount"
KUBELET_CONFIG = "var/lib/kubelet/config.yaml"
PODS = "var/lib/kubelet/pods"
# Where a runtime is told the cgroup driver that it shares with the kubelet:
# https://kubernetes.io/docs/setup/production-environment/container-runtimes/#cgroup-drivers
CGROUP_DRIVERS = {
    "containerd": ("etc/containerd/config.toml", r"(?m)^\s*SystemdCgroup\s*=\s*(true|false)"),
    "docker": ("etc/docker/daemon.json", r"native\.cgroupdriver=(systemd|cgroupfs)"),
}
CNI_CONFIG = "etc/cni/net.d/10-k8sgu.conflist"
# Each shows that the API, and so etcd, existed when this node was set up.
BORN = (API_SERVER, KUBELET_CONFIG)
# Where a cluster without a record shows the value of an option.
FLAGS = (
    ("k8sgu_service_cidr", API_SERVER, r"--service-cluster-ip-range=(\S+)"),
    ("k8sgu_cluster_domain", API_SERVER, r"--service-account-issuer=https://kubernetes\.default\.svc\.(\S+)"),
    ("k8sgu_pod_cidr", CONTROLLER_MANAGER, r"--cluster-cidr=(\S+)"),
    ("k8sgu_cluster_domain", KUBELET_CONFIG, r"(?m)^clusterDomain: [\"']?([^\s\"']+)"),
    # Not the address of a cache on each node, which is link-local.
    ("k8sgu_cluster_dns_address", KUBELET_CONFIG, r"(?m)^clusterDNS:\s*\n\s*- [\"']?(?!169\.254\.)([\d.]+)"),
)
# Where components place their programs, by version, with a link to the one that runs.
PROGRAMS = "opt/k8sgu"
CURRENT = "current"
EMULATION = r"--emulated-version=(?:kube=)?(\d+\.\d+)"
# A member that does not answer its own node quickly will not answer.
MEMBERS_TIMEOUT_S = 3.0

Values = Dict[str, Any]


def text(path: Path) -> str:
    """The file's content; empty if it is missing or cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def exists(path: Path) -> bool:
    """Whether the path exists; False without permission to look."""
    return os.path.exists(path)  # noqa: PTH110


def entries(path: Path) -> list[str]:
    try:
        return os.listdir(path)  # noqa: PTH208
    except OSError:
        return []


def owner(content: str) -> Values:
    """The content of /etc/k8sgu/cluster.json, or of another record; {} if it is missing or damaged."""
    try:
        found = json.loads(content or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def options_in_use(root: Path) -> Values:
    """The options that the cluster was made with, as far as units and configuration files show them."""
    found: Values = {}
    for option, path, pattern in FLAGS:
        match = re.search(pattern, text(root / path))
        if match:
            found.setdefault(option, match.group(1))
    try:
        bridge = json.loads(text(root / CNI_CONFIG))["plugins"][0]
        found["k8sgu_pod_cidr_node_prefix"] = int(bridge["ipam"]["ranges"][0][0]["subnet"].partition("/")[2])
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        pass
    if exists(root / CNI_CONFIG):
        found["k8sgu_pod_network"] = "vxlan" if exists(root / UNITS / "flanneld.service") else "routed"
    return found


def fetch_members(address: str, pki: Path) -> str:
    """The list of members that the member at this peer address has, even without a quorum. Raises OSError."""
    import ssl  # takes 20 ms, which only nodes with etcd need

    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    context.load_cert_chain(str(pki / "peer.crt"), str(pki / "peer.key"))
    parts = urlsplit(address)
    connection = http.client.HTTPSConnection(
        parts.hostname or "", parts.port, timeout=MEMBERS_TIMEOUT_S, context=context
    )
    try:
        connection.request("GET", "/members")
        response = connection.getresponse()
        body = response.read(1 << 20).decode("utf-8", "replace")
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise OSError(f"HTTP {response.status}")
    return body


def members(body: str) -> list[Values]:
    """etcd's answer, with `started`: a member that never had a quorum has no client address."""
    return [
        {
            "name": str(one.get("name") or ""),
            "address": urlsplit((one.get("peerURLs") or [""])[0]).hostname or "",
            "started": bool(one.get("clientURLs")),
            "learner": bool(one.get("isLearner")),
        }
        for one in json.loads(body)
    ]


def etcd(root: Path, fetch: Any = fetch_members) -> Values:
    """The node's member. `members` is None if it does not answer; `initial` has the names of its first start.

    `refused`: it runs, but has a certificate that is not accepted, or accepts ours no more, as when they have expired.
    """
    initial = re.search(r"(?m)^ETCD_INITIAL_CLUSTER=(\S+)", text(root / ETCD_INITIAL))
    listening = re.search(r"--listen-peer-urls=([^\s,]+)", text(root / ETCD))
    data = bool(entries(root / ETCD_DATA))
    found: list[Values] | None = None
    unaccepted = False
    if data and listening:
        try:
            found = members(fetch(listening.group(1), root / ETCD_PKI))
        except (OSError, ValueError, AttributeError, TypeError) as error:
            # OpenSSL's names for what it found itself and for what the other side tells: a member that is about to
            # stop, or too slow, is none of these.
            reason = str(getattr(error, "reason", None) or "")
            unaccepted = "CERTIFICATE" in reason or reason.endswith("UNKNOWN_CA")
    return {
        "data": data,
        "joined": exists(root / ETCD_JOINED),
        "volume": exists(root / ETCD_MOUNT),
        "mounted": os.path.ismount(root / "var/lib/etcd"),
        "initial": [part.partition("=")[0] for part in initial.group(1).split(",")] if initial else [],
        "members": found,
        "refused": unaccepted,
        "restoring": restoring(root),
    }


def restoring(root: Path) -> str:
    """The snapshot of a restore that has not come to its end; empty also if etcd's data is still in its place."""
    said = owner(text(root / ETCD_RESTORE))
    aside = f"{ETCD_DATA}-before-{said.get('id')}"
    return str(said.get("snapshot") or "") if said.get("id") and exists(root / aside) else ""


def programs(root: Path) -> dict[str, str]:
    """{component: version that its link leads to}."""
    links = {name: root / PROGRAMS / name / CURRENT for name in entries(root / PROGRAMS)}
    return {name: os.readlink(link) for name, link in sorted(links.items()) if os.path.islink(link)}  # noqa: PTH114


def kept(root: Path) -> dict[str, list[str]]:
    """All versions of each component that are on the node, those included that only have been fetched."""
    return {
        component: sorted(name for name in entries(root / PROGRAMS / component) if name != CURRENT)
        for component in sorted(entries(root / PROGRAMS))
    }


def emulated(root: Path) -> str:
    """The minor version as which the API server behaves, where that is not its own."""
    found = re.search(EMULATION, text(root / API_SERVER))
    return found.group(1) if found else ""


def cgroup_driver(root: Path, runtime: str) -> str:
    """`systemd` or `cgroupfs`, as the node's runtime is configured; empty if its configuration does not say."""
    path, pattern = CGROUP_DRIVERS.get(runtime, ("", ""))
    found = re.search(pattern, text(root / path)) if path else None
    said = found.group(1) if found else ""
    return {"true": "systemd", "false": "cgroupfs"}.get(said, said)


def membership(root: Path, active: bool, fetch: Any = fetch_members) -> Values:
    """What the node shows; `active`: its etcd runs and has joined."""
    said = owner(text(root / OWNER))
    kubelet = text(root / KUBELET_CONFIG)
    member = etcd(root, fetch)
    member["joined"] = member["joined"] or active
    runtime = ("docker" if "cri-dockerd" in kubelet else "containerd") if kubelet else ""
    return {
        "cluster": str(said.get("cluster") or ""),
        # The record counts, not the user's own flags.
        "fixed": {**options_in_use(root), **(said.get("fixed") or {})},
        "born": member["joined"] or any(exists(root / path) for path in BORN),
        "etcd": member,
        "programs": programs(root),
        "kept": kept(root),
        "emulates": emulated(root),
        "runtime": runtime,
        "cgroup_driver": cgroup_driver(root, runtime),
        "pods": len(entries(root / PODS)),
    }
