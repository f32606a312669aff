# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rollback data: a component's files, links and units before a change, kept until the changed component is healthy."""

# Paths are text here, as in the options and in results.
# ruff: noqa: PTH105, PTH118, PTH123, PTH211

from __future__ import annotations

import json
import os
import stat
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import (
    ComponentError,
    bytes_to_json,
    json_to_bytes,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.record import DIRECTORY
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import (
    FileError,
    atomic_write,
    ensure_directory,
    remove_file,
)

ABSENT, FILE, LINK, OTHER, DIRECTORY_KIND = "absent", "file", "link", "other", "directory"


@dataclass(frozen=True)
class PathState:
    """What is at a path; `mode` has its permission bits."""

    kind: str = ABSENT
    uid: int = 0
    gid: int = 0
    mode: int = 0
    content: bytes = b""
    target: str = ""


@dataclass
class Undo:
    """paths: {path: its state before}; units: {unit: (whether it was running, whether it was enabled)}."""

    paths: dict[str, PathState] = field(default_factory=dict)
    units: dict[str, dict[str, bool]] = field(default_factory=dict)


def examine(path: str) -> PathState:
    """What is at `path`; does not follow a link."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return PathState()
    mode = stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        return PathState(LINK, status.st_uid, status.st_gid, mode, target=os.readlink(path))
    if stat.S_ISDIR(status.st_mode):
        return PathState(DIRECTORY_KIND, status.st_uid, status.st_gid, mode)
    if not stat.S_ISREG(status.st_mode):
        return PathState(OTHER, status.st_uid, status.st_gid, mode)
    with open(path, "rb") as stream:
        return PathState(FILE, status.st_uid, status.st_gid, mode, content=stream.read())


def replace_link(path: str, target: str) -> None:
    """Points the link `path` to `target` atomically."""
    directory, name = os.path.split(path)
    ensure_directory(directory, mode=0o755)
    # A fixed name is safe, since the lock keeps other runs away; it replaces what a killed run left.
    temporary = os.path.join(directory, f".{name}.link.k8sgu")
    try:
        remove_file(temporary)
        os.symlink(target, temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise FileError(path, f"cannot be made a link: {error.strerror}") from error


def restore(path: str, state: PathState) -> None:
    """Restores what was at `path`."""
    if state.kind == ABSENT:
        remove_file(path)
    elif state.kind == LINK:
        replace_link(path, state.target)
    elif state.kind == FILE:
        atomic_write(path, state.content, state.mode, state.uid, state.gid)
    else:
        raise ComponentError(f"{path}: a {state.kind} cannot be restored")


def path_of(name: str) -> str:
    return f"{DIRECTORY}/{name}.undo.json"


def read(name: str) -> Undo | None:
    """The data that an interrupted run left; None if the last run finished."""
    try:
        with open(path_of(name), "rb") as stream:
            raw = json.load(stream)
        paths = {
            path: PathState(**dict(state, content=json_to_bytes(state["content"])))
            for path, state in raw["paths"].items()
        }
        return Undo(paths, raw["units"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Undo()  # a run was interrupted, but the state before it is not known


def write(name: str, undo: Undo) -> None:
    """Writes the data, readable by root only, since it may contain secret files."""
    ensure_directory(DIRECTORY, mode=0o700)
    raw: dict[str, Any] = {"paths": {}, "units": undo.units}
    for path, state in undo.paths.items():
        raw["paths"][path] = dict(asdict(state), content=bytes_to_json(state.content))
    atomic_write(path_of(name), json.dumps(raw).encode(), mode=0o600)


def forget(name: str) -> None:
    remove_file(path_of(name))
