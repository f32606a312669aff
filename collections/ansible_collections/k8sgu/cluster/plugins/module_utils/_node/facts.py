# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the facts of a node that roles need, from /proc, /sys and /etc."""

from __future__ import annotations

import ipaddress
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster.versions import numbers
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import INSTALL_ROOT
from ansible_collections.k8sgu.cluster.plugins.module_utils._node.membership import membership

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call

# Units that must not be restarted on all nodes at once if they run already.
REPLICATED_UNITS = ("etcd.service", "kube-apiserver.service")
MIRROR_UNIT = "k8sgu-mirror.service"
SYSTEMCTL_TIMEOUT_S = 30
# Each shows that an API server was set up here, with keys for encryption at rest.
ENCRYPTION = ("etc/kubernetes/encryption.yml", "etc/systemd/system/kube-apiserver.service")
# kube-proxy's nftables mode needs this kernel, and nft 1.0.1, which is in these releases and later ones:
# https://kubernetes.io/docs/reference/networking/virtual-ips/#proxy-mode-nftables
NFTABLES_KERNEL = (5, 13)
NFTABLES_DISTRIBUTIONS = {"debian": (12,), "ubuntu": (22, 4)}
# linux/capability.h
CAP_SYS_RESOURCE = 24


def os_release(text: str) -> dict[str, str]:
    """The fields of os-release(5), unquoted."""
    fields = {}
    for line in text.splitlines():
        name, separator, value = line.strip().partition("=")
        if separator and not name.startswith("#"):
            fields[name] = value.strip("\"'")
    return fields


def memory_bytes(meminfo: str, field: str) -> int:
    """A field of /proc/meminfo (KiB there) in bytes; 0 if it is not listed."""
    for line in meminfo.splitlines():
        name, _colon, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    return 0


def effective_capability(status: str, bit: int) -> bool:
    """Whether a process with this /proc/PID/status has a capability."""
    for line in status.splitlines():
        name, _colon, value = line.partition(":")
        if name == "CapEff":
            return bool(int(value.strip(), 16) >> bit & 1)
    return False


def default_route_interface(routes: str) -> str:
    """The interface of the default route with the lowest metric in /proc/net/route; empty if there is none."""
    found = [
        (int(fields[6]), fields[0])
        for fields in (line.split() for line in routes.splitlines()[1:])
        if len(fields) > 7 and fields[1] == fields[7] == "00000000"
    ]
    return min(found)[1] if found else ""


def mtu(root: Path) -> int:
    """The MTU in bytes of the default route's interface; 1500 if it cannot be read."""
    interface = default_route_interface((root / "proc/net/route").read_text())
    file = root / "sys/class/net" / interface / "mtu"
    return int(file.read_text()) if interface and file.exists() else 1500


def name_servers(resolver_file: str) -> list[str]:
    """The IPv4 name servers of a resolv.conf(5) that something else than this machine answers for."""
    found = []
    for line in resolver_file.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            address = ipaddress.IPv4Address(words[1])
        except ValueError:
            continue
        if not address.is_loopback:
            found.append(str(address))
    return found


def resolver_path(root: Path) -> Path:
    """The resolv.conf(5) for pods.

    In a pod the address of systemd-resolved's stub is the pod's own, and CoreDNS would ask itself; resolved's list of
    real servers takes its place (systemd-resolved.service(8)). Where resolved runs beside a file that names servers of
    its own, it may know none.
    """
    usual, resolved = root / "etc/resolv.conf", root / "run/systemd/resolve/resolv.conf"
    usable = [path for path in (usual, resolved) if path.exists() and name_servers(path.read_text())]
    return usable[0] if usable else usual


def domain_name(hostname: str, resolver_file: str) -> str:
    """The machine's name with the first domain that it searches, such as ip-10-240-0-10.ec2.internal; empty without."""
    for line in resolver_file.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] in ("search", "domain") and words[1].strip("."):
            return "{}.{}".format(hostname.partition(".")[0], words[1].strip("."))
    return ""


def kube_proxy_mode(kernel: str, distribution: str, version: str) -> str:
    """The mode of kube-proxy that the node can run: `nftables`, or `iptables` if nft or the kernel is too old."""
    oldest = NFTABLES_DISTRIBUTIONS.get(distribution, ())
    release = numbers(version)
    old = numbers(kernel)[:2] < NFTABLES_KERNEL or bool(release and release < oldest)
    return "iptables" if old else "nftables"


def systemctl_is_active(units: tuple[str, ...]) -> str:
    """systemctl's output: one state per line, in the units' order; `inactive` for an unknown unit."""
    command = ["systemctl", "is-active", *units]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=SYSTEMCTL_TIMEOUT_S).stdout


def active_units(units: tuple[str, ...], ask: Callable[[tuple[str, ...]], str]) -> list[str]:
    """The units that have started. `activating` does not count: an etcd member may still wait for others."""
    return [unit for unit, state in zip(units, ask(units).splitlines()) if state == "active"]


def programs(root: Path) -> list[str]:
    """The programs that the project installed, as component/version/file."""
    directory = root / INSTALL_ROOT.lstrip("/")
    # `current` is a link to a version.
    return sorted(
        str(path.relative_to(directory)) for path in directory.glob("*/*/[!.]*") if not path.parent.is_symlink()
    )


def node_facts(root: Path = Path("/"), ask: Callable[[tuple[str, ...]], str] = systemctl_is_active) -> dict[str, Any]:
    """Facts of the running machine; `root` is where its file system is mounted."""
    release = os_release((root / "etc/os-release").read_text())
    meminfo = (root / "proc/meminfo").read_text()
    cgroup = root / "sys/fs/cgroup"
    resolver = resolver_path(root)
    resolver_file = resolver.read_text() if resolver.exists() else ""
    machine = os.uname()
    distribution, version = release.get("ID", "unknown"), release.get("VERSION_ID", "")
    active = active_units((*REPLICATED_UNITS, MIRROR_UNIT), ask)
    return {
        "cgroup_version": 2 if (cgroup / "cgroup.controllers").exists() else 1,
        # Without CAP_SYS_RESOURCE a runtime cannot lower a process's oom_score_adj.
        "can_lower_oom_score": effective_capability((root / "proc/self/status").read_text(), CAP_SYS_RESOURCE),
        "max_open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "architecture": machine.machine,
        "kernel": machine.release,
        "hostname": machine.nodename,
        "distribution": distribution,
        "distribution_version": version,
        "kube_proxy_mode": kube_proxy_mode(machine.release, distribution, version),
        "cpus": os.cpu_count() or 1,
        "memory_bytes": memory_bytes(meminfo, "MemTotal"),
        "swap_bytes": memory_bytes(meminfo, "SwapTotal"),
        "resolv_conf": str(Path("/") / resolver.relative_to(root)),
        "name_servers": name_servers(resolver_file),
        "domain_name": domain_name(machine.nodename, resolver_file),
        "mtu": mtu(root),
        # os.path.exists, which returns False without permission to look.
        "encrypts": any(os.path.exists(root / path) for path in ENCRYPTION),  # noqa: PTH110
        "active_units": active,
        "programs": programs(root),
        "membership": membership(root, "etcd.service" in active),
        "python": ".".join(map(str, sys.version_info[:3])),
    }


def run(_call: Call) -> dict[str, Any]:
    """The result of the module node_facts."""
    return {"changed": False, "ansible_facts": {"k8sgu_node": node_facts()}}
