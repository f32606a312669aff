# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether there is room for what a plan will write, known before the first of its minutes is spent."""

# Paths come and go as text here.
# ruff: noqa: PTH100, PTH112, PTH116, PTH118, PTH120
from __future__ import annotations

import os
import shutil
from typing import Iterable, Mapping, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.gobuild import Order

# MiB, somewhat below what a release has been seen to take, so that nobody is sent away who has enough: what a build
# leaves in Go's caches of compiled packages and of sources, in ours, and in the mirror. What is not built is there
# within minutes, and whoever runs out of room then has lost nothing.
_KUBERNETES = {"GOCACHE": 2500, "GOMODCACHE": 900, "cache_dir": 600, "mirror_dir": 400}
_OTHER = {"GOCACHE": 300, "GOMODCACHE": 200, "cache_dir": 40}
_ENOUGH_WHEN_WARM = 4
WAY_OUT = {
    "GOCACHE": "GOCACHE",
    "GOMODCACHE": "GOMODCACHE",
    "cache_dir": "cache_dir (XDG_CACHE_HOME)",
    "mirror_dir": "mirror_dir (k8sgu_mirror_dir)",
}


def needs(builds: Iterable[Order]) -> dict[str, int]:
    """MiB by what they are for, of the builds that are yet to be made."""
    total: dict[str, int] = {}
    for order in builds:
        for name, size in (_KUBERNETES if order.module.startswith("kubernetes/") else _OTHER).items():
            total[name] = total.get(name, 0) + size
    return total


def lacking(wanted: Mapping[str, int], places: Mapping[str, tuple[str, int, int]]) -> list[str]:
    """A sentence for each file system that has too little room. Pure.

    wanted: of `needs`. places: by the same names, a directory, a number that tells its file system from others, and
    the MiB that are free there.
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
                f"{', '.join(WAY_OUT[name] for name in names)} at a larger file system"
            )
    return faults


def existing(path: str) -> str:
    """A directory, or the nearest one above it that is there."""
    path = os.path.abspath(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def place(path: str) -> tuple[str, int, int]:
    """A directory as `lacking` takes it."""
    here = existing(path)
    return path, os.stat(here).st_dev, shutil.disk_usage(here).free // 2**20


def check(builds: Sequence[Order], directories: Mapping[str, str]) -> list[str]:
    """What lacks room; `directories` by the names of `WAY_OUT`. What Go's caches hold already is not needed again."""
    wanted = {name: size for name, size in needs(builds).items() if name in directories}
    places = {name: place(directories[name]) for name in wanted}
    if lacking(wanted, places):
        for name in ("GOCACHE", "GOMODCACHE"):
            if name in wanted:
                wanted[name] = max(wanted[name] // _ENOUGH_WHEN_WARM, wanted[name] - _size(directories[name]))
    return lacking(wanted, places)


def _size(directory: str) -> int:
    """MiB of the files below a directory."""
    total = 0
    for parent, _directories, names in os.walk(directory):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_blocks * 512
            except OSError:  # gone meanwhile
                continue
    return total // 2**20
