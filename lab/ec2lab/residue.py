"""Snapshots of what a lab may leave on the host, to compare before and after."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable
from pathlib import Path

from ec2lab import cgroups, host, image, names
from ec2lab.lab import RUN_ROOT, STATE_ROOT
from ec2lab.shell import run

Snapshot = dict[str, frozenset[str]]
# Settings of the host's kernel that programs on nodes often change: those that a node has copies of, and this one.
SETTINGS = (*image.settings(), "net/ipv4/ip_forward")


def snapshot(directories: Iterable[Path] = (), *, lab: str | None = None) -> Snapshot:
    """By kind: processes, mounts, namespaces, interfaces, cgroups, loop devices, files; and what a lab must never
    change: the host's packet filter, routing rules, settings and the mounts that nodes have of their own.

    `directories` are the lab's own, for example its state. `lab` leaves out what does not belong to that lab, for a
    host that does other work at the same time.
    """
    own = tuple(str(directory) for directory in directories)
    marks = (names.prefix(lab), names.cgroup(lab) + "/", *own) if lab else ("",)

    def mine(text: str) -> bool:
        return any(mark in text for mark in marks)

    return {
        "process": frozenset(line for line in _processes() if mine(line) or (lab and _is_daemon(line, lab))),
        "mount": frozenset(line for line in Path("/proc/self/mounts").read_text().splitlines() if mine(line)),
        "host mount": frozenset(_host_mounts()),
        "namespace": frozenset(filter(mine, _children(names.NETNS_DIR))),
        "interface": frozenset(_interfaces(lab)),
        "route": frozenset(_routes(lab)),
        "rule": frozenset(run(["ip", "rule", "show"]).splitlines()),
        "cgroup": frozenset(_cgroups(lab)),
        "nftables": frozenset(run(["nft", "list", "ruleset"]).splitlines()),
        "loop device": frozenset(filter(mine, _loops())),
        "file": frozenset(_files(own)),
        "setting": frozenset(_settings()),
        "leftover": frozenset(_shared(lab)),
    }


def difference(before: Snapshot, after: Snapshot) -> list[str]:
    """One readable line for each entry that is in only one of the two."""
    lines = []
    for kind in sorted(before.keys() | after.keys()):
        earlier, later = before.get(kind, frozenset()), after.get(kind, frozenset())
        lines += [f"new {kind}: {entry}" for entry in sorted(later - earlier)]
        lines += [f"missing {kind}: {entry}" for entry in sorted(earlier - later)]
    return lines


def _processes() -> list[str]:
    """Every process but this one: id, arguments and cgroups, which show whether it is a lab's."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                arguments = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                groups = {line.split(":", 2)[2] for line in (entry / "cgroup").read_text().splitlines()}
                if arguments:  # the kernel's own threads have none
                    found.append(f"{entry.name} {arguments} {' '.join(sorted(groups - {'/'}))}")
    return found


def _is_daemon(process: str, lab: str) -> bool:
    """Whether it is the daemon of this lab, and not of one whose name merely starts the same."""
    return f" ec2lab.daemon {lab} " in f"{process} "


def _shared(lab: str | None) -> list[str]:
    """What all labs share and the last one removes; it does not count as left over while another lab is up."""
    others = {path.name for root in (STATE_ROOT, RUN_ROOT) for path in root.glob("[!.]*")} - {lab}
    spaces = [name for name in _children(names.NETNS_DIR) if name.startswith("ec2lab.")]
    others |= {name for name in spaces if lab is None or not name.startswith(names.prefix(lab))}
    if others or _is_held(RUN_ROOT / ".lock"):
        return []
    return [str(path) for path in (STATE_ROOT, RUN_ROOT, cgroups.MARK, *host.MARKS) if path.exists()]


def _is_held(lock: Path) -> bool:
    """Whether an `up` or `down` is running."""
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _host_mounts() -> list[str]:
    """The propagation of `/` and mounts over kernel settings: a node's programs change both, for the node only."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        _, _, _, _, mountpoint, options, *more = line.split()
        if mountpoint == "/":
            kinds = [word.partition(":")[0] for word in more[: more.index("-")]]
            found.append(f"/ is {', '.join(kinds) or 'private'}")
        elif f"{mountpoint}/".startswith("/proc/sys"):
            found.append(f"{mountpoint} {options}")
    return found


def _interfaces(lab: str | None) -> list[str]:
    return [
        f"{interface['ifname']} {interface.get('ifalias', '')}".strip()
        for interface in host.interfaces()
        if lab is None or interface.get("ifalias", "").startswith(names.prefix(lab))
    ]


def _routes(lab: str | None) -> list[str]:
    lines = run(["ip", "-4", "route", "show", "table", "all"]).splitlines()
    if lab is None:
        return lines
    devices = {name for name, alias in host.aliases().items() if alias.startswith(names.prefix(lab))}
    metric = f"metric {names.range_metric(lab)}"
    return [line for line in lines if devices & set(line.split()) or metric in line]


def _cgroups(lab: str | None) -> list[str]:
    found = []
    for hierarchy in cgroups.hierarchies():
        for name in _children(hierarchy.mountpoint):
            if name == names.cgroup(lab) if lab else name.startswith("ec2lab."):
                found += [directory for directory, _, _ in os.walk(hierarchy.mountpoint / name)]
    return found


def _loops() -> list[str]:
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            found.append(f"{backing.parts[3]} {backing.read_text().strip()}")
    return found


def _files(directories: Iterable[str]) -> list[str]:
    found = []
    for directory in (*directories, "/run/systemd/nspawn"):
        for path, subdirectories, files in os.walk(directory):
            found += [os.path.join(path, name) for name in (*subdirectories, *files)]  # noqa: PTH118 - as walk has it
    return found


def _settings() -> list[str]:
    found = {name: path.read_text().strip() for name in SETTINGS if (path := Path("/proc/sys", name)).exists()}
    # The last lab restores it; another lab may still be up.
    found |= {name: host.original_inotify_limit() for name in host.INOTIFY_SETTINGS if name in found}
    return [f"{name} = {value}" for name, value in found.items()]


def _children(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()] if directory.is_dir() else []
