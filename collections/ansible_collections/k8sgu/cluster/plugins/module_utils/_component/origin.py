# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the node was before us: kept from before its first change until node_reset has taken everything back.

The first that is seen of a path, an account, a setting or a package counts, and is written before it changes. So the
record is right whenever a run is killed, and whatever later versions of a role add is in it without a list of its own.
"""

# Paths are text here, as in the options and in results.
# ruff: noqa: PTH110, PTH119, PTH120, PTH123

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, field
from typing import Any, Iterable

from ansible_collections.k8sgu.cluster.plugins.module_utils._component import accounts, packages, systemd, undo
from ansible_collections.k8sgu.cluster.plugins.module_utils._component import record as records
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import (
    INSTALL_ROOT,
    Component,
    ComponentError,
    Leaves,
    bytes_to_json,
    json_to_bytes,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.undo import ABSENT, PathState
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import atomic_write, ensure_directory

HOME = "/var/lib/k8sgu"
PATH = f"{HOME}/origin.json"
# The kind of a path of ours on a node that was built before there was this record.
UNKNOWN = "unknown"
_SCHEMA = 1
_AUTOMATIC = "/var/lib/apt/extended_states"


@dataclass
class Origin:
    """paths: {path: what was there}; whole: those of which everything below is ours too, if nothing was there.

    units: {unit: what it was}, in the order of their start. users, groups and packages: those that were not there.
    installing: packages and accounts before an installation that has not ended yet; asked: the packages that it is for.
    sysctls: {name: value}, "" if it is not known. components: {name: what is to be done once it is gone}.
    incomplete: components that were there before this record, so what was before them is not known.
    resetting: whether a reset has begun that has not ended.
    """

    paths: dict[str, PathState] = field(default_factory=dict)
    whole: list[str] = field(default_factory=list)
    units: dict[str, dict[str, bool]] = field(default_factory=dict)
    users: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    known_accounts: list[str] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)
    installing: dict[str, list[str]] | None = None
    asked: list[str] = field(default_factory=list)
    sysctls: dict[str, str] = field(default_factory=dict)
    swap: list[str] = field(default_factory=list)
    components: dict[str, dict[str, Any]] = field(default_factory=dict)
    incomplete: list[str] = field(default_factory=list)
    resetting: bool = False


def read() -> Origin | None:
    """The record; None if there is none. Raises ComponentError if it cannot be read: what it held cannot be guessed."""
    try:
        with open(PATH, "rb") as stream:
            raw = json.load(stream)
        if raw.pop("schema") != _SCHEMA:
            raise ValueError("another version of k8sgu wrote it")
        paths = {
            path: PathState(**dict(state, content=json_to_bytes(state["content"])))
            for path, state in raw.pop("paths").items()
        }
        return Origin(paths=paths, **raw)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ComponentError(
            f"{PATH}: what the node was before k8sgu cannot be read ({error}); restore the file, or move it away, and "
            "give the node's instance up when it is to be a bare machine again"
        ) from error


def write(origin: Origin) -> None:
    """Readable by root only, since it holds what files held before."""
    ensure_directory(HOME, mode=0o755)
    raw = asdict(origin)
    raw["paths"] = {
        path: dict(asdict(state), content=bytes_to_json(state.content)) for path, state in origin.paths.items()
    }
    content = json.dumps({"schema": _SCHEMA, **raw}, indent=1).encode()
    atomic_write(PATH, content, mode=0o600)


def remember(components: list[Component], states: dict[str, systemd.UnitState]) -> None:
    """Records what there is of the components' before they are changed. Call it under the lock."""
    found = read()
    origin = found or Origin(swap=swap_areas())
    before = asdict(origin)
    origin.resetting = False
    end_installation(origin)
    for component in components:
        _component(origin, component, states)
    if found is None or asdict(origin) != before:
        write(origin)


def remember_mount(path: str, unit_path: str) -> None:
    """The same for a volume that is mounted by a unit of ours."""
    origin = read() or Origin(swap=swap_areas())
    before = asdict(origin)
    for place in (path, unit_path):
        _path(origin, place, known=not os.path.ismount(path))
    _add(origin.whole, [path])
    origin.units.setdefault(os.path.basename(unit_path), {"running": False, "enabled": False})
    if asdict(origin) != before:
        write(origin)


def install(names: list[str]) -> None:
    """Installs packages, and records those that came with it, also when it is cut off. Raises ComponentError."""
    origin = read() or Origin(swap=swap_areas())
    origin.installing, origin.asked = _installed(), names
    write(origin)
    try:
        packages.install(names)
    finally:
        end_installation(origin)
        write(origin)


def swap_areas() -> list[str]:
    try:
        with open("/proc/swaps", encoding="utf-8") as stream:
            return [line.split()[0] for line in stream.read().splitlines()[1:]]
    except OSError:
        return []


def sysctl_path(name: str) -> str:
    return "/proc/sys/" + name.replace(".", "/")


def sysctl(name: str) -> str:
    """The kernel's value; empty if it has no such setting now."""
    try:
        with open(sysctl_path(name), encoding="utf-8") as stream:
            return stream.read().strip()
    except OSError:
        return ""


def end_installation(origin: Origin) -> None:
    """What an installation has brought, if one was begun. Only what was asked for, and what APT took for that."""
    if origin.installing is None:
        return
    came = {kind: set(names) - set(origin.installing[kind]) for kind, names in _installed().items()}
    _add(origin.packages, sorted(came["packages"] & ({*origin.asked} | _automatic())))
    # Made by the packages' own scripts, which leave them there.
    _add(origin.users, sorted(came["users"]))
    _add(origin.groups, sorted(came["groups"]))
    origin.installing, origin.asked = None, []


def _installed() -> dict[str, list[str]]:
    return {"packages": packages.installed(), **accounts.of_system()}


def _automatic() -> set[str]:
    """Packages that APT installed because another one needs them."""
    try:
        with open(_AUTOMATIC, encoding="utf-8", errors="replace") as stream:
            return set(re.findall(r"^Package: (\S+)$", stream.read(), re.MULTILINE))
    except OSError:
        return set()


def _component(origin: Origin, component: Component, states: dict[str, systemd.UnitState]) -> None:
    name, leaves = component.name, component.leaves
    # A component that has run here without this record: what was before it is not known any more.
    known = name in origin.components or not any(
        os.path.exists(path) for path in (records.path_of(name), undo.path_of(name))
    )
    if not known:
        _add(origin.incomplete, [name])
    known = name not in origin.incomplete
    for directory in component.directories:
        _path(origin, directory.path, known)
    for dest in [*(file.dest for file in component.files), *(link.dest for link in component.links)]:
        _path(origin, dest, known)
    for unit in component.units:
        if unit.content is not None or unit.state == "absent":
            _path(origin, unit.path, known)
        state = states[unit.name]
        was = {"running": state.running and known, "enabled": state.enabled.startswith("enabled") and known}
        origin.units.setdefault(unit.name, was)
    for path in [*leaves.paths, *(os.path.dirname(mount) for mount in leaves.mounts)]:
        _path(origin, path, known)
    _add(origin.whole, [*(directory.path for directory in component.directories), *leaves.paths])
    if any(artifact.path.startswith(INSTALL_ROOT + "/") for artifact in component.artifacts):
        _path(origin, INSTALL_ROOT, known)
        _add(origin.whole, [INSTALL_ROOT])
    for setting in leaves.sysctls:
        origin.sysctls.setdefault(setting, sysctl(setting) if known else "")
    _accounts(origin, component, known)
    origin.components[name] = {"on_change": component.on_change, "leaves": asdict(leaves)}


def _accounts(origin: Origin, component: Component, known: bool) -> None:
    user = component.user
    if not user:
        return
    # An account is judged once: later it is there, because we made it.
    for kind, name, number, made in (
        ("user", user.name, accounts.user_id(user.name), origin.users),
        ("group", user.group, accounts.group_id(user.group), origin.groups),
    ):
        seen = f"{kind} {name}"
        if seen not in origin.known_accounts:
            origin.known_accounts.append(seen)
            if number is None or not known:
                made.append(name)


def _path(origin: Origin, path: str, known: bool) -> None:
    """Records the path, and the directories above it that are missing."""
    if path in origin.paths:
        return
    state = undo.examine(path)
    if not known and state.kind != ABSENT:
        state = PathState(UNKNOWN)
    above = os.path.dirname(path)
    missing = []
    while state.kind == ABSENT and above != "/" and above not in origin.paths and not os.path.lexists(above):
        missing.append(above)
        above = os.path.dirname(above)
    for directory in missing:
        origin.paths[directory] = PathState()
    origin.paths[path] = state


def _add(known: list[str], names: Iterable[str]) -> None:
    known += [name for name in dict.fromkeys(names) if name not in known]


def leaves_of(origin: Origin) -> list[Leaves]:
    """What the components' programs leave, the newest component's first."""
    return [Leaves(**entry["leaves"]) for entry in reversed(list(origin.components.values()))]
