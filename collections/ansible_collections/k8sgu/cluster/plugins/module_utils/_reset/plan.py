# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares what a node was before us with what it is now; gives the steps back, each with its reason. Pure."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field
from typing import Iterable

from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import UNIT_DIRECTORY
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.origin import (
    HOME,
    UNKNOWN,
    Origin,
    leaves_of,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.systemd import UnitState
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.undo import (
    ABSENT,
    DIRECTORY_KIND,
    FILE,
    LINK,
    PathState,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._volume.disk import MARK

# The kinds of steps, in the order in which they are taken.
STOP = "stop"
END = "end the processes of"
EMPTY = "empty the volume at"
UNMOUNT = "unmount"
INTERFACE = "remove interface"
TABLE = "remove nftables table"
CHAIN = "remove iptables chain"
RULE = "remove iptables rule"
SET = "remove ipset"
PURGE = "purge package"
DISABLE = "disable"
REMOVE = "remove"
PATH_BACK = "put back"
COMMAND = "run"
START = "start"
SETTING = "set"
SWAP = "turn on swap"
USER = "remove user"
GROUP = "remove group"
# What says whose the node is, and what is still to be done.
LAST_REMOVE = "at last remove"
KINDS = (
    *(STOP, END, EMPTY, UNMOUNT, INTERFACE, TABLE, CHAIN, RULE, SET, DISABLE, PURGE, REMOVE, PATH_BACK, COMMAND, START),
    *(SETTING, SWAP, USER, GROUP, LAST_REMOVE),
)
# Of these a node cannot do without, so they stay if it is not known what they held.
NEEDED = ("/etc/hosts",)
LAST = ("/etc/k8sgu", HOME)


@dataclass(frozen=True)
class Step:
    kind: str
    target: str
    reason: str

    def __str__(self) -> str:
        return f"{self.kind} {self.target}  # {self.reason}"


@dataclass(frozen=True)
class Now:
    """What there is now. `below`: what directories hold; `chains`: (program, table, chain); `rules`: those
    with a comment, (program, table, rule, comment); `tables`: "family name".

    `ours`: chains' and empty tables' names are only told by patterns, so all of them are here.
    """

    units: dict[str, UnitState] = field(default_factory=dict)
    paths: dict[str, PathState] = field(default_factory=dict)
    below: dict[str, list[str]] = field(default_factory=dict)
    mounts: list[str] = field(default_factory=list)
    volumes: dict[str, str] = field(default_factory=dict)
    interfaces: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    empty_tables: list[str] = field(default_factory=list)
    chains: list[tuple[str, str, str]] = field(default_factory=list)
    rules: list[tuple[str, str, str, str]] = field(default_factory=list)
    sets: list[str] = field(default_factory=list)
    cgroups: dict[str, int] = field(default_factory=dict)
    packages: list[str] = field(default_factory=list)
    needed: dict[str, str] = field(default_factory=dict)
    users: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    sysctls: dict[str, str] = field(default_factory=dict)
    swap: list[str] = field(default_factory=list)


@dataclass
class Plan:
    """The steps, and what stays with the reason why."""

    steps: list[Step] = field(default_factory=list)
    stays: list[str] = field(default_factory=list)

    def of(self, kind: str) -> list[Step]:
        return [step for step in self.steps if step.kind == kind]


def plan(origin: Origin, now: Now) -> Plan:
    return _Planner(origin, now).plan()


def matching(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    wanted = list(patterns)
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted)]


class _Planner:
    def __init__(self, origin: Origin, now: Now) -> None:
        self.origin, self.now = origin, now
        self.leaves = leaves_of(origin)
        self.result = Plan()

    def plan(self) -> Plan:
        if self.origin.incomplete:
            self.result.stays.append(
                "packages, and what files held: this node was built before k8sgu recorded what was there before it "
                f"({', '.join(self.origin.incomplete)}), so packages stay"
            )
        self._units()
        self._processes()
        self._mounts()
        self._network()
        self._packages()
        self._paths()
        self._commands()
        self._settings()
        self._accounts()
        self.result.steps.sort(key=lambda step: KINDS.index(step.kind))
        return self.result

    def _add(self, kind: str, target: str, reason: str) -> None:
        self.result.steps.append(Step(kind, target, reason))

    def _units(self) -> None:
        # What was started last depends on what was started first.
        for name in reversed(list(self.origin.units)):
            was, state = self.origin.units[name], self.now.units.get(name, UnitState())
            ours = f"{UNIT_DIRECTORY}/{name}" in self.origin.paths
            fallen = state.active in ("failed", "deactivating")
            # What is mounted is unmounted by itself, when it has been emptied.
            if (
                not name.endswith(".mount")
                and (state.running or fallen)
                and (ours or not was["running"] or self._disturbed())
            ):
                self._add(STOP, name, "ours" if ours else "it uses our files")
            if state.enabled in ("enabled", "enabled-runtime") and not was["enabled"]:
                self._add(DISABLE, name, "it was not started with the node")
            if was["running"] and (self._disturbed() or not state.running):
                self._add(START, name, "it ran before")

    def _disturbed(self) -> bool:
        """Whether a path of ours is still there, or was when a reset began that has not ended."""
        return self.origin.resetting or any(
            self._differs(path) for path in self.origin.paths if not path.startswith(LAST)
        )

    def _processes(self) -> None:
        # Not those of units that were there before and go on.
        names = [step.target for step in self.result.of(STOP)]
        names += [name for name in self.origin.units if not self.now.units.get(name, UnitState()).running]
        names += [name for leaves in self.leaves for name in leaves.cgroups]
        for group in matching(self.now.cgroups, names):
            self._add(END, group, f"processes in a control group of ours: {self.now.cgroups[group]}")

    def _gone(self) -> list[str]:
        """Directories that go with all that is in them."""
        return [path for path in self.origin.whole if self._was_absent(path)]

    def _was_absent(self, path: str) -> bool:
        state = self.origin.paths.get(path)
        return state is not None and state.kind in (ABSENT, UNKNOWN)

    def _mounts(self) -> None:
        gone, named = self._gone(), [name for leaves in self.leaves for name in leaves.mounts]
        for mount in sorted(self.now.mounts, reverse=True):
            if not any(mount == path or mount.startswith(path + "/") for path in gone) and not matching([mount], named):
                continue
            volume = self.now.volumes.get(mount)
            held = [name for name in self.now.below.get(mount, []) if name not in (MARK, "lost+found")]
            if volume is not None and held:
                self._add(EMPTY, mount, f"the cluster's data; {volume} itself belongs to the infrastructure")
            self._add(UNMOUNT, mount, "it came with our programs")

    def _network(self) -> None:
        now = self.now
        for name in matching(now.interfaces, (name for leaves in self.leaves for name in leaves.interfaces)):
            self._add(INTERFACE, name, "of the pod network, with its addresses and routes")
        for name in matching(now.tables, (name for leaves in self.leaves for name in leaves.tables)):
            self._add(TABLE, name, "rules of ours")
        patterns = [name for leaves in self.leaves for name in leaves.chains]
        for program, table, chain in now.chains:
            if matching([chain], patterns):
                self._add(CHAIN, f"{program} {table} {chain}", "rules of ours")
        comments = [name for leaves in self.leaves for name in leaves.comments]
        for program, table, rule, comment in now.rules:
            if matching([comment], comments):
                self._add(RULE, f"{program} {table} {rule}", "its comment is ours")
        if patterns:
            for name in now.empty_tables:
                self._add(TABLE, name, "iptables made it, and it has no rules")
        for name in matching(now.sets, (name for leaves in self.leaves for name in leaves.sets)):
            self._add(SET, name, "addresses for rules of ours")

    def _packages(self) -> None:
        for name in self.origin.packages:
            if name not in self.now.packages:
                continue
            if name in self.now.needed:
                self.result.stays.append(f"package {name}: {self.now.needed[name]} needs it, which is not ours")
            else:
                self._add(PURGE, name, "it came with us")

    def _differs(self, path: str) -> str:
        """Why the path has to change; empty if it is as it was."""
        was, is_ = self.origin.paths[path], self.now.paths.get(path, PathState())
        if was.kind in (ABSENT, UNKNOWN):
            if was.kind == UNKNOWN and path in NEEDED:
                return ""
            return "it was not there" if is_.kind != ABSENT else ""
        if was.kind == DIRECTORY_KIND:
            changed = is_.kind == DIRECTORY_KIND and (was.mode, was.uid, was.gid) != (is_.mode, is_.uid, is_.gid)
            return "it had another mode or owner" if changed else ""
        if was.kind in (FILE, LINK):
            return "it held something else" if was != is_ else ""
        return ""

    def _paths(self) -> None:
        gone = self._gone()
        later = []
        for path in sorted(self.origin.paths, reverse=True):
            was = self.origin.paths[path]
            if path in NEEDED and was.kind == UNKNOWN:
                self.result.stays.append(f"{path}: what it held before is not known; correct it by hand")
            reason = self._differs(path)
            # What is in a directory that goes needs no step of its own.
            if not reason or any(path.startswith(whole + "/") for whole in gone if self._differs(whole)):
                continue
            foreign = self._foreign(path)
            if foreign:
                self.result.stays.append(f"{path}: holds {foreign}, which is not ours")
            elif path.startswith(LAST):
                later.append(Step(LAST_REMOVE, path, reason))
            else:
                self._add(REMOVE if self._was_absent(path) else PATH_BACK, path, reason)
        # Before the record, without which a run that is killed here would find a node of unknown make.
        self.result.steps += reversed(later)

    def _foreign(self, path: str) -> str:
        """What is in a directory that we made on the way to a file, and did not put there."""
        if self.now.paths.get(path, PathState()).kind != DIRECTORY_KIND or path in self.origin.whole:
            return ""
        if not self._was_absent(path):
            return ""
        mounts = [name for leaves in self.leaves for name in leaves.mounts]
        left = [f"{path}/{name}" for name in self.now.below.get(path, [])]
        left = [name for name in left if not matching([name], mounts)]
        return ", ".join(name for name in left if not self._was_absent(name) or self._foreign(name))

    def _commands(self) -> None:
        """What read our files reads once more, now without them."""
        for name in reversed(list(self.origin.components)):
            for command in self.origin.components[name]["on_change"]:
                if self._disturbed() and not any(
                    word in self.origin.paths or word.startswith(LAST) for word in command
                ):
                    self._add(COMMAND, " ".join(command), f"{name} changed")

    def _settings(self) -> None:
        for name, value in self.origin.sysctls.items():
            current = self.now.sysctls.get(name, "")
            if value and current and current.split() != value.split():
                self._add(SETTING, f"{name}={value}", f"it is {current}")
        for area in self.origin.swap:
            if area not in self.now.swap:
                self._add(SWAP, area, "it was on")

    def _accounts(self) -> None:
        for name in self.origin.users:
            if name in self.now.users:
                self._add(USER, name, "it was not there")
        for name in self.origin.groups:
            if name in self.now.groups:
                self._add(GROUP, name, "it was not there")


def still_there(origin: Origin, now: Now) -> list[str]:
    """Units with a name of ours that are there from elsewhere: for those who look for what may still run."""
    return [
        f"unit {name}: from elsewhere, and left as it is"
        for name, state in now.units.items()
        if f"{UNIT_DIRECTORY}/{name}" in origin.paths and state.load == "loaded"
    ]
