"""The host's interfaces, routes and settings. Only the `hold_*` functions change it; `release_*` undoes that."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from ec2lab import addresses, names
from ec2lab.shell import run

_MARK = Path("/run/ec2lab.netns-directory")  # exists while the mount at /run/netns is a lab's
# Nodes share this limit of the host although they have copies of its settings: a node cannot raise it.
_INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
INOTIFY_SETTINGS = ("fs/inotify/max_user_instances", "user/max_inotify_instances")  # two names of one limit
_INOTIFY_MARK = Path("/run/ec2lab.inotify-instances")  # holds the former value while a lab has raised the limit
INOTIFY_INSTANCES = 8192
MARKS = (_MARK, _INOTIFY_MARK)
# What an internet gateway cannot reach: it translates public addresses only, and there is no private one behind it.
# https://docs.aws.amazon.com/vpc/latest/userguide/VPC_Internet_Gateway.html
_NOT_PUBLIC = ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16")
_NETWORKS_LAST_S = 10.0
_networks: tuple[float, list[str]] = (0.0, [])


def compute_in_turns() -> None:
    """From now on this process and all that it starts wait for their turn instead of interrupting who computes.

    A cluster's programs wake up hundreds of times a second, each for next to nothing. On a host with a processor or two
    the switches between them take a good part of the time that the work does.
    https://man7.org/linux/man-pages/man7/sched.7.html, SCHED_BATCH
    """
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def interfaces() -> list[dict[str, Any]]:
    """Every interface of the host with its addresses, as `ip -json address show` has them."""
    found: list[dict[str, Any]] = json.loads(run(["ip", "-json", "-details", "address", "show"]))
    return found


def aliases() -> dict[str, str]:
    """{interface: alias} of the interfaces that have one; the alias of a lab's interface names the lab."""
    return {interface["ifname"]: interface["ifalias"] for interface in interfaces() if "ifalias" in interface}


def has_default_route() -> bool:
    """Whether the host has a default route."""
    return run(["ip", "-json", "-4", "route", "show", "default"]).strip() not in ("", "[]", "[ ]")


def networks() -> list[str]:
    """What nodes must not reach through the host: private networks, the host's addresses, every lab's public range.

    Read again every few seconds, since a host moves between networks.
    """
    global _networks
    read, known = _networks
    if not known or time.monotonic() - read > _NETWORKS_LAST_S:
        known = sorted({*_NOT_PUBLIC, str(addresses.POOL), *_own_addresses(), *_lab_ranges()})
        _networks = (time.monotonic(), known)
    return known


def _lab_ranges() -> set[str]:
    """Every lab's public range, also outside the pool: the host has an unreachable route to it with a lab's metric."""
    listed = json.loads(run(["ip", "-json", "-4", "route", "show", "type", "unreachable"]) or "[]")
    return {route["dst"] for route in listed if route.get("metric", 0) >= names.LEAST_RANGE_METRIC}


def _own_addresses() -> set[str]:
    return {
        f"{address['local']}/32"
        for interface in interfaces()
        for address in interface.get("addr_info", ())
        if address.get("family") == "inet"
    }


def unreachable_ranges(lab: str) -> list[str]:
    """The host's unreachable routes of this lab: its public range, once it is up."""
    listed = json.loads(run(["ip", "-json", "-4", "route", "show", "type", "unreachable"]) or "[]")
    return [route["dst"] for route in listed if route.get("metric") == names.range_metric(lab)]


def hold_netns_directory() -> None:
    """Records whether /run/netns was a mount before `ip netns add` makes it one."""
    if not _is_mount(names.NETNS_DIR) and not _MARK.exists():
        _MARK.touch()


def release_netns_directory() -> None:
    """Undoes the mount of the first `ip netns add`, once no namespace is left in it."""
    if _MARK.exists() and not (names.NETNS_DIR.is_dir() and any(names.NETNS_DIR.iterdir())):
        if _is_mount(names.NETNS_DIR):
            run(["umount", str(names.NETNS_DIR)], check=False)
        with contextlib.suppress(OSError):
            names.NETNS_DIR.rmdir()
        _MARK.unlink(missing_ok=True)


def hold_inotify_limit() -> None:
    """Raises the limit if it is lower than many busy nodes need; the first lab to come up does this."""
    present = int(_INOTIFY.read_text())
    if present < INOTIFY_INSTANCES:
        if not _INOTIFY_MARK.exists():
            _INOTIFY_MARK.write_text(f"{present}\n")
        _INOTIFY.write_text(f"{INOTIFY_INSTANCES}\n")


def original_inotify_limit() -> str:
    """The limit when no lab is up, as text."""
    return (_INOTIFY_MARK if _INOTIFY_MARK.exists() else _INOTIFY).read_text().strip()


def release_inotify_limit() -> None:
    """Restores the limit when the last lab is down, unless someone else has changed it meanwhile."""
    if _INOTIFY_MARK.exists():
        before = _INOTIFY_MARK.read_text()
        if before.strip() and int(_INOTIFY.read_text()) == INOTIFY_INSTANCES:
            _INOTIFY.write_text(before)
        _INOTIFY_MARK.unlink()


def _is_mount(path: Path) -> bool:
    return any(line.split()[4] == str(path) for line in Path("/proc/self/mountinfo").read_text().splitlines())
