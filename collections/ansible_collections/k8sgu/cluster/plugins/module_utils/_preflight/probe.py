# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads everything that preflight checks from a node. Writes nothing."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._node.facts import memory_bytes, os_release
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.listeners import listeners
from ansible_collections.k8sgu.cluster.plugins.module_utils._volume import disk as disks
from ansible_collections.k8sgu.cluster.plugins.module_utils._volume.options import ETCD_DATA
from ansible_collections.k8sgu.cluster.plugins.module_utils._volume.run import half_made

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call

# linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
NETLINK_NETFILTER = 12
NFNL_SUBSYS_NFTABLES, NFT_MSG_NEWGEN, NFT_MSG_GETGEN = 10, 15, 16
NLM_F_REQUEST = 1
NETLINK_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 5.0
VOLUME_TIMEOUT_S = 30.0
# Images, pods' files and etcd's database are below it.
DATA_DIRECTORY = "var/lib"
# As this process sees them, whatever `root` is.
MOUNTS = Path("/proc/self/mounts")
# Where roles, packages and Ansible write, and what often is a separate file system. A missing directory will be made on
# the file system of its parent.
WRITTEN = (
    "", "etc", "usr", "usr/local", "opt", "home", "root", "tmp", "var", "var/tmp", "var/cache", "var/log", "var/lib",
    ETCD_DATA.lstrip("/"), "var/lib/containerd", "var/lib/docker", "var/lib/kubelet",
)  # fmt: skip


def module_available(root: Path, release: str, module: str) -> bool:
    """Whether a kernel module is loaded, built in, or can be loaded."""
    if (root / "sys/module" / module).exists():
        return True
    directory = root / "lib/modules" / release
    wanted = f"/{module}.ko"
    for name in ("modules.builtin", "modules.dep"):
        path = directory / name
        # A line of modules.dep has the module first, then its dependencies.
        if path.exists() and any(wanted in line.partition(":")[0] for line in path.read_text().splitlines()):
            return True
    return False


def nf_tables_answers() -> bool:
    """Whether the kernel answers a request for nf_tables' generation; this needs none of the kernel's files."""
    # nlmsghdr, then nfgenmsg: family unspecified, version 0, resource 0.
    kind = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN
    request = struct.pack("=IHHIIBBH", 20, kind, NLM_F_REQUEST, 1, 0, 0, 0, 0)
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as connection:
            connection.settimeout(NETLINK_TIMEOUT_S)
            connection.bind((0, 0))
            connection.send(request)
            answer = connection.recv(4096)
    except OSError:
        return False
    return bool(struct.unpack_from("=H", answer, 4)[0] == NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWGEN)


def kernel_features(root: Path) -> dict[str, bool]:
    """{feature: whether the kernel has it}."""
    release = os.uname().release
    filesystems = (root / "proc/filesystems").read_text().split()
    return {
        "br_netfilter": (root / "proc/sys/net/bridge").exists() or module_available(root, release, "br_netfilter"),
        "overlay": "overlay" in filesystems or module_available(root, release, "overlay"),
        "nf_tables": module_available(root, release, "nf_tables") or nf_tables_answers(),
    }


def unreached(addresses: Sequence[str]) -> dict[str, str]:
    """{address: reason} of those addresses (host:port) that accept no TCP connection; all are tried at once."""
    if not addresses:
        return {}

    def reason(address: str) -> str:
        host, _colon, port = address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
        except OSError as error:
            return error.strerror or str(error)
        return ""

    with ThreadPoolExecutor(len(addresses)) as pool:
        return {address: why for address, why in zip(addresses, pool.map(reason, addresses)) if why}


def mount_points(mounts: str) -> set[Path]:
    """The mount points in /proc/mounts; os.path.ismount() misses a directory that is bound within its file system.

    https://man7.org/linux/man-pages/man5/proc_pid_mounts.5.html
    """
    fields = [line.split(" ")[1] for line in mounts.splitlines() if line.count(" ") > 1]
    return {Path(re.sub(r"\\([0-7]{3})", lambda found: chr(int(found.group(1), 8)), field)) for field in fields}


def mount_point(path: Path, known: set[Path]) -> str:
    """The mount point of a path's file system."""
    return str(next((above for above in (path, *path.parents) if above in known), Path("/")))


def file_systems(root: Path) -> list[dict[str, Any]]:
    """The room on every file system that is written to; `directories` are those of `WRITTEN` on it.

    Sizes are in MiB. `inodes` is 0 for a file system without a fixed number of inodes (Btrfs).
    """
    known = mount_points(MOUNTS.read_text())
    found: list[dict[str, Any]] = []
    for name in WRITTEN:
        path = (root / name).resolve()
        path = next(above for above in (path, *path.parents) if above.is_dir())
        here = os.statvfs(path)
        entry: dict[str, Any] = {
            "mount": mount_point(path, known),
            "size_mb": here.f_blocks * here.f_frsize // 2**20,
            "free_mb": here.f_bavail * here.f_frsize // 2**20,
            "inodes": here.f_files,
            "free_inodes": here.f_favail,
            "read_only": bool(here.f_flag & os.ST_RDONLY),
        }
        same = next((other for other in found if same_storage(other, entry)), None)
        if same is None:
            found.append({**entry, "directories": [f"/{name}"]})
        else:
            same["directories"].append(f"/{name}")
    return found


def same_storage(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two directories share their room: on one mount, or on two mounts of one storage.

    A bind mount, an overlay or a subvolume is a separate mount with the numbers of the storage below it, to which
    others may be writing. Read-only is a property of the mount.
    """
    if one["mount"] == other["mount"]:
        return True
    if one["read_only"] or other["read_only"]:
        return False
    alike = all(one[key] == other[key] for key in ("size_mb", "inodes"))
    return (
        alike and abs(one["free_mb"] - other["free_mb"]) <= 1 and abs(one["free_inodes"] - other["free_inodes"]) < 100
    )


def cloud_init(root: Path) -> dict[str, Any]:
    """Whether cloud-init ran at this boot (`enabled`) and has `finished`, its `stage` until then, and its `errors`.

    https://docs.cloud-init.io/en/latest/explanation/boot.html; `errors` are those that broke a stage or a script, for
    which `cloud-init status` ends with 1. It forgives others (status 2), such as a deprecated key, and so do we.
    """
    directory = root / "run/cloud-init"
    said: dict[str, dict[str, Any]] = {}
    for name in ("status", "result"):
        try:
            said[name] = json.loads((directory / f"{name}.json").read_text())["v1"]
        except (OSError, ValueError, KeyError, TypeError):
            said[name] = {}
    return {
        "enabled": (directory / "enabled").exists(),
        "finished": (directory / "result.json").exists(),
        "stage": str(said["status"].get("stage") or ""),
        "errors": [str(error) for error in said["result"].get("errors") or []],
    }


def volume(volume_id: str) -> dict[str, Any]:
    """The volume for etcd's data as it was found; {} without one."""
    if not volume_id:
        return {}
    missing = disks.missing_tools()
    if missing:
        return {"error": disks.TOOLS_MISSING.format(", ".join(missing))}
    try:
        found = disks.read(disks.wait(volume_id, VOLUME_TIMEOUT_S))
    except (disks.VolumeError, OSError) as error:
        return {"error": str(error)}
    return {
        "id": volume_id,
        "disk": asdict(found),
        "place": asdict(disks.place(ETCD_DATA, found)),
        "half_made": half_made(volume_id),
    }


def probe(root: Path = Path("/"), reach: Sequence[str] = (), volume_id: str = "") -> dict[str, Any]:
    """What `node.py` checks. `root`: where the machine's file system is mounted; `reach`: addresses to try."""
    release = os_release((root / "etc/os-release").read_text())
    disk = os.statvfs(root / DATA_DIRECTORY)
    owner = root / "etc/k8sgu/cluster.json"
    return {
        "distribution": release.get("ID", ""),
        "distribution_version": release.get("VERSION_ID", ""),
        "architecture": os.uname().machine,
        "memory_mb": memory_bytes((root / "proc/meminfo").read_text(), "MemTotal") // 2**20,
        "disk_total_gb": disk.f_blocks * disk.f_frsize / 2**30,
        "disk_free_gb": disk.f_bavail * disk.f_frsize / 2**30,
        "file_systems": file_systems(root),
        "owner": owner.read_text(errors="replace") if owner.exists() else "",
        "kernel": kernel_features(root),
        "listeners": [asdict(found) for found in listeners(root / "proc", ("tcp", "udp"))],
        "unreached": unreached(reach),
        "cloud_init": cloud_init(root),
        "volume": volume(volume_id),
        "time": time.time(),
    }


def run(call: Call) -> dict[str, Any]:
    """The result of the module preflight_node."""
    return {"changed": False, "node": probe(reach=call.options["reach"], volume_id=call.options["volume"])}
