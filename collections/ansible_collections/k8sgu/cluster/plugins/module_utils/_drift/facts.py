# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads from a node what may be left or added there: files, units, links and records, by their names alone.

What each component knows of it, the component itself says in check mode. Standard library only: it runs on nodes.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator

from ansible_collections.k8sgu.cluster.plugins.module_utils._component import record as records
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import INSTALL_ROOT, UNIT_DIRECTORY

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call

# Directories in which everything is ours.
TREES = ("/etc/kubernetes", "/etc/etcd", "/etc/k8sgu", "/etc/cni/net.d")
# Where systemd looks for what changes a unit, beside the unit's own file (systemd.unit(5)).
UNIT_PLACES = (UNIT_DIRECTORY, "/run/systemd/system", "/etc/systemd/system.control", "/run/systemd/system.control")
PROGRAMS = "/usr/local/bin"
# A unit with one of these in its text starts something of ours.
OURS = (f"{INSTALL_ROOT}/", "/var/lib/k8sgu/", "/etc/k8sgu/")


def run(_call: Call) -> dict[str, Any]:
    """The result of the module drift_facts."""
    return {"changed": False, "shown": show(Path("/"))}


def show(root: Path) -> dict[str, Any]:
    """Everything that is there, as absolute paths."""
    return {
        "files": [_name(root, path) for tree in TREES for path in _files(_below(root, tree))],
        "units": [_name(root, path) for path in _units(_below(root, UNIT_DIRECTORY))],
        "dropins": [
            _name(root, path) for place in UNIT_PLACES for path in sorted(_below(root, place).glob("*.d/*.conf"))
        ],
        "links": [_name(root, path) for path in _links(_below(root, PROGRAMS))],
        "records": [path.stem for path in sorted(_below(root, records.DIRECTORY).glob("*.json")) if _installed(path)],
    }


def _below(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _name(root: Path, path: Path) -> str:
    return f"/{path.relative_to(root)}"


def _files(tree: Path) -> Iterator[Path]:
    for directory, below, names in os.walk(tree):
        below.sort()
        for name in sorted(names):
            yield Path(directory, name)


def _units(directory: Path) -> Iterator[Path]:
    """Unit files that start something of ours. Links to units elsewhere are how systemd enables them."""
    for path in sorted(directory.glob("*.*")):
        if path.is_file() and not path.is_symlink():
            try:
                text = path.read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue  # it ended meanwhile
            if any(place in text for place in OURS):
                yield path


def _installed(record: Path) -> bool:
    """Whether a component's record has anything in it; that of one which was made absent has not."""
    try:
        found = json.loads(record.read_bytes())
        return bool(found["binaries"] or found["started_with"])
    except (OSError, ValueError, KeyError, TypeError):
        return True


def _links(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.glob("*")):
        if path.is_symlink() and os.readlink(path).startswith(f"{INSTALL_ROOT}/"):
            yield path
