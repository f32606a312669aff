# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The port table: which program connects to which on which port, and why.

This is the only place where a port of the cluster is opened. Security groups are made from it (`_ec2/groups.py`),
docs/ports.md is generated from it, and the reachability checks compare it with what listens. Upstream's list:
https://kubernetes.io/docs/reference/networking/ports-and-protocols/
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Iterable

CONTROL_PLANE = "control_plane"
WORKER = "worker"
NODES = (CONTROL_PLANE, WORKER)
LOAD_BALANCER = "load_balancer"
BASTION = "bastion"

# Sources that are ranges, not groups: the options admin_cidrs and node_port_cidrs, and the pods' addresses.
ADMIN = "admin"
NODE_PORT_CLIENTS = "node_port_clients"
PODS = "pods"

ALWAYS = "always"
ROUTED = "routed"
VXLAN = "vxlan"
CONTAINERD = "containerd"
DOCKER = "docker"
MIRROR = "mirror"
OBSERVABILITY = "observability"

FIRST_PORT, LAST_PORT = 0, 65535


@dataclass(frozen=True)
class Port:
    """One row: on `nodes` the program `listener` accepts `protocol` on ports `first` to `last` from `sources`.

    `bind` is "loopback" if only the node itself can reach it; such a row has no sources and opens nothing.
    `encryption` is "tls", "ssh", "none" (only liveness crosses it) or "pods" (the pods decide). `when` is "always",
    the pod network or the container runtime that needs the row, "observability", which can be left out, or "mirror": on
    the first control-plane node, where it serves what no publisher has. For icmp the ports are 0 and mean every type.
    """

    name: str
    listener: str
    nodes: tuple[str, ...]
    protocol: str
    first: int
    last: int
    sources: tuple[str, ...]
    why: str
    bind: str = "any"
    encryption: str = "tls"
    when: str = ALWAYS


def _row(
    name: str, listener: str, nodes: Iterable[str], ports: str, sources: Iterable[str], why: str, **more: str
) -> Port:
    protocol, _slash, numbers = ports.partition("/")
    first, _dash, last = numbers.partition("-")
    return Port(name, listener, tuple(nodes), protocol, int(first), int(last or first), tuple(sources), why, **more)


_FIXED = (
    _row("ssh", "sshd", NODES, "tcp/22", [ADMIN, BASTION], "administration and the playbooks", encryption="ssh"),
    _row("ssh-bastion", "sshd", [BASTION], "tcp/22", [ADMIN], "the way to private nodes", encryption="ssh"),
    _row(
        "api",
        "kube-apiserver",
        [CONTROL_PLANE],
        "tcp/6443",
        [ADMIN, *NODES, LOAD_BALANCER, PODS],
        "the Kubernetes API; the load balancer forwards and checks it; pods reach it by its service address",
    ),
    _row(
        "api-balanced",
        "load balancer",
        [LOAD_BALANCER],
        "tcp/6443",
        [ADMIN, *NODES],
        "the Kubernetes API for all, whichever control-plane node is up",
    ),
    _row(
        "etcd-client",
        "etcd",
        [CONTROL_PLANE],
        "tcp/2379",
        [CONTROL_PLANE],
        "API servers and etcdctl; workers and pods never",
    ),
    _row("etcd-peer", "etcd", [CONTROL_PLANE], "tcp/2380", [CONTROL_PLANE], "etcd's members among themselves"),
    _row(
        "kubelet",
        "kubelet",
        NODES,
        "tcp/10250",
        [*NODES, PODS],
        "logs, exec and metrics for the API server; metrics-server and Prometheus run as pods",
    ),
    _row(
        "controller-manager",
        "kube-controller-manager",
        [CONTROL_PLANE],
        "tcp/10257",
        [],
        "metrics and health",
        bind="loopback",
    ),
    _row("scheduler", "kube-scheduler", [CONTROL_PLANE], "tcp/10259", [], "metrics and health", bind="loopback"),
    # Prometheus is a pod: its packets have its own address, or that of its node.
    _row(
        "node-exporter",
        "node_exporter",
        NODES,
        "tcp/9100",
        [*NODES, PODS],
        "metrics of the node, for the holder of the certificate prometheus",
        when=OBSERVABILITY,
    ),
    _row("kube-proxy-metrics", "kube-proxy", NODES, "tcp/10249", [], "metrics", bind="loopback", encryption="none"),
    # The kubelet requests a stream (exec, attach, port-forward) and gets an address with any free port.
    _row(
        "runtime-streams",
        "container runtime",
        NODES,
        "tcp/32768-60999",
        [],
        "exec, attach and port-forward, from the kubelet of the same node",
        bind="loopback",
        when=CONTAINERD,
    ),
    _row(
        "docker-streams",
        "container runtime",
        NODES,
        "tcp/10010",
        [],
        "the same with Docker Engine: cri-dockerd knows no TLS there, each stream has a token that serves once",
        bind="loopback",
        encryption="none",
        when=DOCKER,
    ),
    _row(
        "node-ports-tcp",
        "kube-proxy",
        NODES,
        "tcp/30000-32767",
        [NODE_PORT_CLIENTS, *NODES],
        "services of type NodePort",
        encryption="pods",
    ),
    _row(
        "node-ports-udp",
        "kube-proxy",
        NODES,
        "udp/30000-32767",
        [NODE_PORT_CLIENTS, *NODES],
        "services of type NodePort",
        encryption="pods",
    ),
    _row(
        "mirror",
        "k8sgu-mirror",
        [CONTROL_PLANE],
        "tcp/5443",
        NODES,
        "programs and images for the nodes, where the mirror has no address of its own",
        when=MIRROR,
    ),
    _row("vxlan", "flannel", NODES, "udp/8472", NODES, "pod traffic in its envelope", encryption="none", when=VXLAN),
    # Without path MTU discovery connections hang.
    _row("icmp", "kernel", NODES, "icmp/0", NODES, "path MTU discovery and ping", encryption="none"),
)

# In a routed network a packet to a pod comes from a pod's address or, from kube-proxy or a host-network pod, a node's.
# Security groups match the interface's own addresses and never those of pods, so pods need a rule by range:
# https://docs.aws.amazon.com/vpc/latest/userguide/security-group-rules.html
# A group cannot distinguish a packet for a pod from one for its node either, so on workers, where every program
# authenticates its clients, all ports are open.
_WHY_PODS = "pod traffic, routed: any port may be a pod's, and pods are not members of a group"


def _gaps(taken: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """The port ranges between the `taken` ones, in order."""
    gaps, start = [], FIRST_PORT
    for first, last in sorted(taken):
        if first > start:
            gaps.append((start, first - 1))
        start = max(start, last + 1)
    if start <= LAST_PORT:
        gaps.append((start, LAST_PORT))
    return gaps


def _routed() -> list[Port]:
    """Rows for pod traffic that the VPC routes: all ports of workers, and those ports of the control plane that none of
    its own programs uses.
    """
    sources = [*NODES, PODS]
    rows = [
        _row(
            "pods-tcp",
            "pods",
            [WORKER],
            f"tcp/{FIRST_PORT}-{LAST_PORT}",
            sources,
            _WHY_PODS,
            encryption="pods",
            when=ROUTED,
        )
    ]
    # SSH, etcd, the controller manager and the scheduler stay closed to workers and pods: the last two listen only on
    # loopback, and a rule for their ports would open them if that changed.
    private = [
        (row.first, row.last)
        for row in _FIXED
        if CONTROL_PLANE in row.nodes
        and row.protocol == "tcp"
        and (row.bind == "any" or row.nodes == (CONTROL_PLANE,))
        and PODS not in row.sources
        and row.when != MIRROR
        and row.encryption != "pods"
    ]
    rows += [
        _row(
            f"pods-tcp-{first}",
            "pods",
            [CONTROL_PLANE],
            f"tcp/{first}-{last}",
            sources,
            _WHY_PODS,
            encryption="pods",
            when=ROUTED,
        )
        for first, last in _gaps(private)
    ]
    rows += [
        _row(
            "pods-udp",
            "pods",
            NODES,
            f"udp/{FIRST_PORT}-{LAST_PORT}",
            sources,
            _WHY_PODS,
            encryption="pods",
            when=ROUTED,
        ),
        _row(
            "pods-icmp",
            "pods",
            NODES,
            "icmp/0",
            [PODS],
            "ping and path MTU discovery between pods",
            encryption="pods",
            when=ROUTED,
        ),
    ]
    return rows


PORTS: tuple[Port, ...] = (*_FIXED, *_routed())


def ports(
    pod_network: str, container_runtime: str = CONTAINERD, mirror: bool = True, observability: bool = True
) -> list[Port]:
    """The rows for a pod network ("routed" or "vxlan") and a container runtime ("containerd" or "docker"), with those
    of the mirror and of observability or without."""
    chosen = {ALWAYS, pod_network, container_runtime}
    chosen |= ({MIRROR} if mirror else set()) | ({OBSERVABILITY} if observability else set())
    return [row for row in PORTS if row.when in chosen]


def as_dictionaries(
    pod_network: str | None = None, container_runtime: str = CONTAINERD, observability: bool = True
) -> list[dict[str, Any]]:
    """The table as plain data, for templates and checks; the whole table if no pod network is given.

    The mirror is only on one node, so its row is only in the whole table.
    """
    rows = (
        ports(pod_network, container_runtime, mirror=False, observability=observability) if pod_network else list(PORTS)
    )
    return [{**asdict(row), "nodes": list(row.nodes), "sources": list(row.sources)} for row in rows]


def as_markdown() -> str:
    """The table in the form of docs/ports.md."""
    lines = [
        "| name | listens on | program | port | from | encryption | when | why |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in PORTS:
        numbers = (
            "" if row.protocol == "icmp" else f" {row.first}" if row.first == row.last else f" {row.first}-{row.last}"
        )
        source = ", ".join(row.sources) or "the node itself"
        lines.append(
            f"| `{row.name}` | {', '.join(row.nodes)} | {row.listener} | {row.protocol}{numbers} | {source} "
            f"| {row.encryption} | {row.when} | {row.why} |"
        )
    return "\n".join(lines) + "\n"
