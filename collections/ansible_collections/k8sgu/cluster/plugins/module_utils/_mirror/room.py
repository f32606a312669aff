# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks before the first build whether there is room for what a plan will write."""

# Paths come and go as text here.
# ruff: noqa: PTH100, PTH112, PTH116, PTH118, PTH120
from __future__ import annotations

import os
import shutil
from typing import Iterable, Mapping, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.gobuild import Order

# MiB that a build leaves in Go's caches of compiled packages and of sources, in ours, and in the mirror. Somewhat below
# what a release was measured to take, so that nobody with enough room is refused. Downloads are not counted: they take
# minutes, so that little is lost when they run out of room.
_KUBERNETES = {"GOCACHE": 2500, "GOMODCACHE": 900, "cache_dir": 600, "mirror_dir": 400}
_OTHER = {"GOCACHE": 300, "GOMODCACHE": 200, "cache_dir": 40}
_ENOUGH_WHEN_WARM = 4
SETTINGS = {
    "GOCACHE": "GOCACHE",
    "GOMODCACHE": "GOMODCACHE",
    "cache_dir": "cache_dir (XDG_CACHE_HOME)",
    "mirror_dir": "mirror_dir (k8sgu_mirror_dir)",
}


def needs(builds: Iterable[Order]) -> dict[str, int]:
    """MiB that the pending builds need, by purpose."""
    total: dict[str, int] = {}
    for order in builds:
        for name, size in (_KUBERNETES if order.module.startswith("kubernetes/") else _OTHER).items():
            total[name] = total.get(name, 0) + size
    return total


def shortages(wanted: Mapping[str, int], places: Mapping[str, tuple[str, int, int]]) -> list[str]:
    """One sentence for each file system that has too little room. Pure.

    wanted: the result of `needs`. places: by the same names (directory, number of its file system, free MiB).
    """
    by_system: dict[int, list[str]] = {}
    for name in wanted:
        by_system.setdefault(places[name][1], []).append(name)
    faults = []
    for names in by_system.values():
        need, free = sum(wanted[name] for name in names), places[names[0]][2]
        if free < need:
            where = ", ".join(sorted({places[name][0] for name in names}))
            faults.append(
                f"{where}: {free} MiB are free, and what is missing takes about {need}; free some, or point "
                f"{', '.join(SETTINGS[name] for name in names)} at a larger file system"
            )
    return faults


def nearest_existing(path: str) -> str:
    """A directory, or its nearest parent that exists."""
    path = os.path.abspath(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def place(path: str) -> tuple[str, int, int]:
    """(directory, number of its file system, free MiB), as `shortages` needs it."""
    here = nearest_existing(path)
    return path, os.stat(here).st_dev, shutil.disk_usage(here).free // 2**20


def check(builds: Sequence[Order], directories: Mapping[str, str]) -> list[str]:
    """One sentence for each file system with too little room. Subtracts what Go's caches already have.

    directories: by the names of `SETTINGS`.
    """
    wanted = {name: size for name, size in needs(builds).items() if name in directories}
    places = {name: place(directories[name]) for name in wanted}
    if shortages(wanted, places):
        for name in ("GOCACHE", "GOMODCACHE"):
            if name in wanted:
                wanted[name] = max(wanted[name] // _ENOUGH_WHEN_WARM, wanted[name] - _size(directories[name]))
    return shortages(wanted, places)


def _size(directory: str) -> int:
    """MiB of the files below a directory."""
    total = 0
    for parent, _directories, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
            except OSError:  # it was removed meanwhile
                continue
    return total // 2**20
