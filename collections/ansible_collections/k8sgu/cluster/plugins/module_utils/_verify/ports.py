# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares what listens on a node with the port table, both ways."""

from __future__ import annotations

from typing import Any, Iterable

from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.checks import Check
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.listeners import Listener

# Programs by the table's name for them, if it is not the program's own.
PROGRAMS = {
    # systemd opens the socket for sshd (Ubuntu since 22.10).
    "sshd": ("sshd", "systemd"),
    "container runtime": ("containerd", "cri-dockerd", "dockerd"),
    # A script, so what listens is its interpreter.
    "k8sgu-mirror": tuple(f"python3{minor}" for minor in ("", *(f".{number}" for number in range(8, 20)))),
    # The kernel sends and receives VXLAN; flannel only sets it up.
    "flannel": ("kernel", "flanneld"),
}
# From here on a bound UDP socket may be a client's, not a service's (net.ipv4.ip_local_port_range).
FIRST_EPHEMERAL_PORT = 32768


def serves(row: dict[str, Any], listener: Listener) -> bool:
    """Whether a row of the table describes a listener."""
    return (
        row["protocol"] == listener.protocol
        and int(row["first"]) <= listener.port <= int(row["last"])
        and listener.program in PROGRAMS.get(row["listener"], (row["listener"],))
        and (listener.loopback or row["bind"] != "loopback")
    )


def unknown(rows: Iterable[dict[str, Any]], found: Iterable[Listener]) -> list[Listener]:
    """The listeners that no row describes."""
    table = list(rows)
    services = [one for one in found if one.protocol == "tcp" or one.port < FIRST_EPHEMERAL_PORT]
    return [one for one in services if not any(serves(row, one) for row in table)]


def silent(rows: Iterable[dict[str, Any]], found: Iterable[Listener]) -> list[dict[str, Any]]:
    """The rows whose program does not listen."""
    listeners = list(found)
    return [row for row in rows if not any(serves(row, one) for one in listeners)]


def program_rows(table: Iterable[dict[str, Any]], role: str) -> list[dict[str, Any]]:
    """The rows for which a program of a node with `role` listens; pods' ports are packet rules instead."""
    return [row for row in table if role in row["nodes"] and row["protocol"] != "icmp" and row["encryption"] != "pods"]


def check_ports(
    table: list[dict[str, Any]], system: list[dict[str, Any]], role: str, found: list[Listener], where: str
) -> list[Check]:
    """`table` is the port table; `system` has rows of the operating system, which may listen but need not."""
    rows = program_rows(table, role)
    strangers, missing = unknown([*rows, *system], found), silent(rows, found)
    return [
        Check(
            "nothing listens that is not in the port table",
            not strangers and bool(found),
            f"{len(rows)} rows of the port table, and what the operating system may have",
            "; ".join(map(str, strangers)) or f"{len(found)} listening sockets, all of them known",
            where,
            "ss -tulnp; docs/ports.md; k8sgu_verify_system_listeners",
        ),
        Check(
            "everything in the port table listens",
            not missing,
            ", ".join(f"{row['name']} ({row['listener']} at {row['protocol']} {row['first']})" for row in rows),
            "not listening: " + ", ".join(row["name"] for row in missing) if missing else "all do",
            where,
            "ss -tulnp; docs/ports.md",
        ),
    ]
