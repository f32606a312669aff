"""Control groups of machines, on cgroup v1, v2 or both at once.

A machine has one group in every mounted hierarchy, `ec2lab.<lab>/<instance>` below its root, with all its processes,
including those of its containers. The host's other groups are left alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from ec2lab import names
from ec2lab.errors import LabError, Timeout

# The controllers that kubelet and container runtimes use. The root of a v2 hierarchy delegates these and no others.
NEEDED = frozenset({"cpu", "cpuset", "hugetlb", "io", "memory", "pids"})
MARK = Path("/run/ec2lab.controllers")  # lists those that it delegates only while there are labs


@dataclass(frozen=True)
class Hierarchy:
    """A mounted hierarchy. For v2, `controllers` are those that it can delegate."""

    mountpoint: Path
    version: int
    controllers: frozenset[str]


def hierarchies(mounts: str | None = None) -> list[Hierarchy]:
    """Every hierarchy of the host; `mounts` is the text of /proc/self/mounts."""
    text = Path("/proc/self/mounts").read_text() if mounts is None else mounts
    found: dict[Path, Hierarchy] = {}
    for line in text.splitlines():
        _, mountpoint, kind, options, *_ = line.split()
        path = Path(mountpoint)
        if kind == "cgroup":
            found[path] = Hierarchy(path, 1, frozenset(options.split(",")))
        elif kind == "cgroup2":
            offered = path / "cgroup.controllers"
            found[path] = Hierarchy(path, 2, frozenset(offered.read_text().split() if offered.exists() else ()))
    return list(found.values())


@dataclass(frozen=True)
class Places:
    """The groups in which a machine's processes start: the launcher's, and the node's own where it must be another.

    On v2 a group that delegates controllers cannot hold processes, so the launcher cannot be in the group that the
    node divides further.
    """

    launcher: tuple[Path, ...]
    node: tuple[Path, ...]


def create(
    lab: str, instance_id: str, memory_mib: int | None = None, cpus: int | None = None, own_share: bool = False
) -> Places:
    """Makes the machine's groups where they are missing. Limits hold for the node and all its containers together.

    `own_share`: on a busy host the lab gets time as if each of its machines were a process of the host, and not as if
    all together were one. A machine that computes all the time, as an emulated one does, would hardly run otherwise.
    """
    launcher, node = [], []
    for hierarchy in hierarchies():
        parent = hierarchy.mountpoint / names.cgroup(lab)
        group = parent / instance_id
        if hierarchy.version == 2:
            needed = hierarchy.controllers & NEEDED
            _note(_delegate(hierarchy.mountpoint, needed))
            for directory in (parent, group):
                directory.mkdir(exist_ok=True)
                _delegate(directory, needed)
            launcher.append(group / "launcher")
            node.append(group / "node")
            for directory in (launcher[-1], node[-1]):
                directory.mkdir(exist_ok=True)
        else:
            for directory in (parent, group):
                directory.mkdir(exist_ok=True)
                if "cpuset" in hierarchy.controllers:
                    _inherit_cpuset(directory)
            launcher.append(group)
        _limit(hierarchy, group, memory_mib, cpus)
        if own_share:
            _share(hierarchy, parent)
    if not launcher:
        raise LabError("no cgroup hierarchy is mounted below /sys/fs/cgroup: a machine cannot boot without one")
    return Places(tuple(launcher), tuple(node))


def _delegate(directory: Path, controllers: frozenset[str]) -> set[str]:
    """Makes a v2 group delegate controllers to its children; returns those that it did not delegate before."""
    handed = directory / "cgroup.subtree_control"
    added = set()
    for controller in sorted(controllers - frozenset(_read(handed).split())):
        with contextlib.suppress(OSError):  # not every host can delegate all; kubelet says which it misses
            _write(handed, f"+{controller}")
            added.add(controller)
    return added


def _read(path: Path) -> str:
    return path.read_text()


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def _note(added: set[str]) -> None:
    """Records the controllers that the root delegates because of labs."""
    if added:
        before = MARK.read_text().split() if MARK.exists() else []
        MARK.write_text(" ".join(sorted({*before, *added})))


def _take_back() -> None:
    """Once the last lab's groups are gone, makes the root delegate only what it did before the first."""
    if not MARK.exists():
        return
    for hierarchy in hierarchies():
        if hierarchy.version == 2:
            if any(hierarchy.mountpoint.glob("ec2lab.*")):
                return
            for controller in MARK.read_text().split():
                with contextlib.suppress(OSError):  # another group of the host may use it by now
                    _write(hierarchy.mountpoint / "cgroup.subtree_control", f"-{controller}")
    MARK.unlink()


def _inherit_cpuset(directory: Path) -> None:
    """Fills a new v1 cpuset from its parent: it starts empty, and no process could enter it."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not (directory / name).read_text().strip():
            (directory / name).write_text((directory.parent / name).read_text())


def _limit(hierarchy: Hierarchy, group: Path, memory_mib: int | None, cpus: int | None) -> None:
    period = 100_000  # microseconds, the kernel's own default
    wanted: dict[str, str] = {}
    if memory_mib is not None:
        wanted["memory.limit_in_bytes" if hierarchy.version == 1 else "memory.max"] = str(memory_mib << 20)
    if cpus is not None and cpus < (os.cpu_count() or 1):
        quota = cpus * period
        wanted |= {"cpu.cfs_quota_us": str(quota)} if hierarchy.version == 1 else {"cpu.max": f"{quota} {period}"}
    for name, value in wanted.items():
        if (group / name).exists():  # each controller is in one hierarchy only
            (group / name).write_text(value)


def _share(hierarchy: Hierarchy, parent: Path) -> None:
    """Gives a lab's group the kernel's default weight once for each machine."""
    name, default = ("cpu.shares", 1024) if hierarchy.version == 1 else ("cpu.weight", 100)
    if (parent / name).exists():
        machines = sum(1 for child in parent.iterdir() if child.is_dir())
        (parent / name).write_text(str(default * max(1, machines)))


def groups(lab: str, instance_id: str | None = None) -> list[Path]:
    """The existing groups of a machine, or of the whole lab."""
    below = Path(names.cgroup(lab)) / (instance_id or "")
    return [path for hierarchy in hierarchies() if (path := hierarchy.mountpoint / below).is_dir()]


def instances(lab: str) -> set[str]:
    """The ids of instances that have a group, whether anything runs in it or not."""
    return {child.name for group in groups(lab) for child in group.iterdir() if child.is_dir()}


def processes(lab: str, instance_id: str) -> set[int]:
    """The ids of a machine's processes, containers included."""
    found: set[int] = set()
    for group in groups(lab, instance_id):
        for directory, _, _ in os.walk(group):
            with contextlib.suppress(OSError):
                found.update(int(pid) for pid in (Path(directory) / "cgroup.procs").read_text().split())
    return found - {0}


def kill(lab: str, instance_id: str, timeout: float = 20.0) -> None:
    """Kills every process of a machine and waits until none is left; Timeout after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    pause = 0.002
    while pids := processes(lab, instance_id):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _reap(pids)
        if time.monotonic() > deadline:
            raise Timeout(f"processes {sorted(pids)} of {instance_id} did not end within {timeout:.0f} s of SIGKILL")
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


def _reap(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def remove(lab: str, instance_id: str | None = None, timeout: float = 10.0) -> None:
    """Removes the groups of a machine or of the whole lab; they must have no processes."""
    deadline = time.monotonic() + timeout
    for group in groups(lab, instance_id):
        for directory, _, _ in os.walk(group, topdown=False):
            # The kernel answers "busy" for a moment after the last process has ended.
            while True:
                try:
                    Path(directory).rmdir()
                except FileNotFoundError:
                    pass
                except OSError as error:
                    if time.monotonic() > deadline:
                        raise LabError(f"cannot remove the cgroup {directory}: {error.strerror}") from error
                    time.sleep(0.01)
                    continue
                break
    if instance_id is None:
        _take_back()
