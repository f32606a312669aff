# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's record of a component: fingerprints of its programs, and what its units were started with."""

# Paths are text here, as in the options and in results.
# ruff: noqa: PTH123

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, Iterator

from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import (
    RELOAD,
    RESTART,
    Component,
    ComponentError,
    Unit,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import atomic_write, ensure_directory, lock

DIRECTORY = "/var/lib/k8sgu/component"
LOCK = "/run/k8sgu-component.lock"
_SCHEMA = 1

# {name of an item, usually its path: digest of its content}
Items = Dict[str, str]


@dataclass
class Record:
    """Written when the component is healthy, so that it describes what runs, not what was attempted.

    binaries: {path: [size, mtime, ctime, inode, SHA-256]}; while the first four are unchanged, it is not hashed again.
    started_with, reloaded_with, commands_for: what units, reloads and on_change commands used last; a unit on demand
    uses what there is at the time.
    health: the check that succeeded then, which the former state must pass again after a rollback.
    """

    binaries: dict[str, list[object]] = field(default_factory=dict)
    started_with: dict[str, Items] = field(default_factory=dict)
    reloaded_with: Items = field(default_factory=dict)
    commands_for: Items = field(default_factory=dict)
    health: dict[str, Any] | None = None

    def copy(self) -> Record:
        return copy.deepcopy(self)


def path_of(name: str) -> str:
    return f"{DIRECTORY}/{name}.json"


def read(name: str) -> Record:
    """The record; an empty one if it is unreadable, so that everything is examined again."""
    try:
        with open(path_of(name), "rb") as stream:
            raw = json.load(stream)
        if raw.pop("schema") != _SCHEMA:
            return Record()
        return Record(**raw)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Record()


def write(name: str, record: Record) -> None:
    ensure_directory(DIRECTORY, mode=0o700)
    content = json.dumps({"schema": _SCHEMA, **asdict(record)}, indent=1, sort_keys=True).encode()
    atomic_write(path_of(name), content, mode=0o600)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def restart_items(component: Component, unit: Unit) -> Items:
    """What the unit is started with: a change of any item restarts it."""
    items = {a.path: a.sha256 for a in component.artifacts if a.effect == RESTART}
    items.update({x.dest: x.target or "absent" for x in component.links if x.effect == RESTART})
    items.update(_file_items(component, RESTART))
    items.update({x.dest: sha256(x.restart_on.encode()) for x in component.files if x.restart_on is not None})
    if unit.content is not None:
        items[unit.path] = sha256(unit.content)
    return items


def reload_items(component: Component) -> Items:
    return _file_items(component, RELOAD)


def command_items(component: Component) -> Items:
    """The items whose changes run the on_change commands; empty if there are no commands."""
    if not component.on_change:
        return {}
    items = {file.dest: "absent" if file.content is None else sha256(file.content) for file in component.files}
    items.update({link.dest: link.target or "absent" for link in component.links})
    items["commands"] = sha256(json.dumps(component.on_change).encode())
    return items


def _file_items(component: Component, effect: str) -> Items:
    return {
        file.dest: "absent" if file.content is None else sha256(file.content)
        for file in component.files
        if file.effect == effect
    }


@contextlib.contextmanager
def locked(timeout: int) -> Iterator[None]:
    """Allows one run at a time on a node: a run whose connection was lost may still be working."""
    handle = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not lock(handle, timeout):
            raise ComponentError(f"lock_timeout: another run is still working on the node after {timeout} s ({LOCK})")
        yield
    finally:
        os.close(handle)
