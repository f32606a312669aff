# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the node's present state of a component; nothing else reads the node's state."""

# Paths are text here, as in the options and in results.
# ruff: noqa: PTH112, PTH113, PTH116

from __future__ import annotations

import grp
import os
from dataclasses import dataclass, field

from ansible_collections.k8sgu.cluster.plugins.module_utils._component import accounts, health, systemd, undo
from ansible_collections.k8sgu.cluster.plugins.module_utils._component import record as records
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import Artifact, Component, Directory, File
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.packages import package_states
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.record import Record
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.systemd import UnitState
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.undo import PathState, Undo
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import sha256_of

ROOT_ONLY_EXECUTABLE = 0o755


@dataclass(frozen=True)
class Current:
    """`paths` has files, links, units and directories; `binaries` the SHA-256 of each program, empty if missing.

    `healthy` is asked, which may take its patience, only where there is something to reload and it could be reloaded.
    """

    paths: dict[str, PathState] = field(default_factory=dict)
    binaries: dict[str, str] = field(default_factory=dict)
    account: accounts.Account | None = None
    groups: frozenset[str] = frozenset()
    uids: dict[str, int | None] = field(default_factory=dict)
    gids: dict[str, int | None] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    units: dict[str, UnitState] = field(default_factory=dict)
    record: Record = field(default_factory=Record)
    interrupted: Undo | None = None
    healthy: bool = True


def examine(component: Component, binaries: dict[str, str], record: Record, units: dict[str, UnitState]) -> Current:
    """The present state. `binaries` (of examine_binaries) and `units` (of systemd) are read once for all components."""
    paths = {file.dest: undo.examine(file.dest) for file in component.files}
    paths.update({link.dest: undo.examine(link.dest) for link in component.links})
    paths.update(
        {unit.path: undo.examine(unit.path) for unit in component.units if unit.content or unit.state == "absent"}
    )
    paths.update({directory.path: _followed(directory.path) for directory in component.directories})
    owned: list[File | Directory] = [*component.files, *component.directories]
    user = component.user
    return Current(
        paths=paths,
        binaries=binaries,
        account=accounts.account(user.name) if user else None,
        groups=frozenset(g.gr_name for g in grp.getgrall()) if user else frozenset(),
        uids={name: accounts.user_id(name) for name in {item.owner for item in owned}},
        gids={name: accounts.group_id(name) for name in {item.group for item in owned}},
        packages=package_states(component.packages),
        units={unit.name: units[unit.name] for unit in component.units},
        record=record,
        interrupted=undo.read(component.name),
        healthy=records.reload_items(component) == record.reloaded_with
        or component.health is None
        or not any(units[unit.name].up for unit in component.units)
        or health.works(component.health),
    )


def unit_states(components: list[Component]) -> dict[str, UnitState]:
    return systemd.show(list(dict.fromkeys(unit.name for component in components for unit in component.units)))


def examine_binaries(artifacts: list[Artifact], record: Record) -> dict[str, str]:
    """{path: SHA-256} of the programs; hashes only those with a new fingerprint. Stores fingerprints in `record`."""
    found = {}
    for artifact in artifacts:
        before = fingerprint(artifact.path)
        if not before:
            record.binaries.pop(artifact.path, None)
            found[artifact.path] = ""
            continue
        known = record.binaries.get(artifact.path)
        if known is None or known[:-1] != before:
            digest = sha256_of(artifact.path)
            known = [*before, digest]
            record.binaries[artifact.path] = known
        found[artifact.path] = str(known[-1]) if _safe(artifact.path) else "permissions"
    return found


def fingerprint(path: str) -> list[object]:
    """A value that changes with the file, since ctime cannot be set back. Empty if it is not a regular file."""
    try:
        status = os.stat(path, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return []
    if not os.path.isfile(path):
        return []
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def remember_binaries(artifacts: list[Artifact], record: Record) -> None:
    """Records the fingerprints of programs that were just installed, without hashing them."""
    for artifact in artifacts:
        record.binaries[artifact.path] = [*fingerprint(artifact.path), artifact.sha256]


def forget_started_with(artifacts: list[Artifact], record: Record) -> bool:
    """Forgets, before programs are replaced in place, what units were started with: if this run is interrupted, the
    next one must still restart them. Returns whether there was anything to forget."""
    changed = False
    for items in record.started_with.values():
        for artifact in artifacts:
            changed = items.pop(artifact.path, None) is not None or changed
    return changed


def read_record(component: Component) -> Record:
    record = records.read(component.name)
    wanted = {artifact.path for artifact in component.artifacts}
    record.binaries = {path: known for path, known in record.binaries.items() if path in wanted}
    return record


def _safe(path: str) -> bool:
    """Whether the path is owned by root and not writable by others."""
    status = os.stat(path)
    return status.st_uid == 0 and status.st_gid == 0 and status.st_mode & 0o7777 == ROOT_ONLY_EXECUTABLE


def _followed(path: str) -> PathState:
    """The state of a directory, through a link if it is one: directories may be linked to another disk."""
    return undo.examine(os.path.realpath(path) if os.path.isdir(path) else path)
