# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides what is done with a volume for data: a pure function of what was read and what is wanted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._volume.disk import MARK, Disk, Place

FORMAT, UNIT, MOUNT, GROW = "format", "unit", "mount", "grow"
# A file system may end a little before its disk does.
SLACK_BYTES = 1 << 20
WAY_OUT = (
    "attach a new volume in its place, or, if nothing on it is needed any more, wipe it on the node (wipefs --all {0}; "
    "blkdiscard --zeroout {0}) and run again"
)


@dataclass(frozen=True)
class Wanted:
    """The volume, where its file system is to be, and to whom it belongs."""

    volume_id: str
    path: str
    cluster: str
    node: str


@dataclass
class Plan:
    steps: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def add(self, step: str, reason: str) -> None:
        self.steps.append(step)
        self.reasons.append(reason)


def mark(wanted: Wanted) -> dict[str, Any]:
    """What is written at the top of the file system, so that no other node ever takes it for its own."""
    return {"cluster": wanted.cluster, "node": wanted.node}


def problems(wanted: Wanted, disk: Disk, place: Place, half_made: bool = False) -> list[str]:
    """Why the volume must not be used. `half_made`: a run of ours was cut off while it formatted this very volume."""
    it = f"the volume {wanted.volume_id} ({disk.device})"
    way_out = WAY_OUT.format(disk.device)
    if place.source and not place.mounted:
        return [
            f"{wanted.path} is on {place.source}, which is not {it}; stop what uses it and unmount it, or attach the "
            "volume again that it is on"
        ]
    if not place.mounted and place.names:
        shown = ", ".join(place.names[:5])
        return [
            f"{wanted.path} has data on the root disk ({shown}), which {it} would hide; a living member cannot move: "
            "put back k8sgu_etcd_volume_size: 0, or, if the data is not needed any more, remove it"
        ]
    if disk.kind == "ext4":
        return _strange(wanted, disk, it, way_out)
    if disk.kind and not (half_made and disk.kind == "data"):
        what = (
            "data that is no file system" if disk.kind == "data" else f"a file system or partition table ({disk.kind})"
        )
        return [f"{it} has {what} on it and is not formatted; {way_out}"]
    return []


def _strange(wanted: Wanted, disk: Disk, it: str, way_out: str) -> list[str]:
    owner, node = disk.mark.get("cluster"), disk.mark.get("node")
    if owner == wanted.cluster and node == wanted.node:
        return []
    if not owner:
        holds = ", ".join(disk.names[:5]) or "no files"
        return [f"{it} has an ext4 file system that is not of this node's making ({holds}; no {MARK}); {way_out}"]
    if owner != wanted.cluster:
        return [f"{it} holds the data of the cluster {owner!r} (its node {node}), not of {wanted.cluster!r}; {way_out}"]
    return [f"{it} holds the data of this cluster's node {node}, not of {wanted.node}; attach it there, or {way_out}"]


def plan(wanted: Wanted, disk: Disk, place: Place, unit_differs: str, half_made: bool = False) -> Plan:
    """The steps. `unit_differs`: why the mount unit has to be written, empty if it need not."""
    made = Plan()
    name = f"{wanted.volume_id} ({disk.device})"
    if disk.kind != "ext4":
        made.add(FORMAT, f"{name}: {'a run was cut off while it formatted' if half_made else 'blank'}; ext4")
    if unit_differs:
        made.add(UNIT, unit_differs)
    if not place.mounted:
        made.add(MOUNT, f"{wanted.path}: not mounted; {name}")
    if disk.kind == "ext4" and disk.file_system_size + SLACK_BYTES < disk.size:
        made.add(GROW, f"{name}: file system {disk.file_system_size / 2**30:g} GiB -> {disk.size / 2**30:g} GiB")
    return made
