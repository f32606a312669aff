# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which quotas etcd can have, and the disk that a database needs that fills its quota. Pure.

The quota is what keeps a database from filling the disk: etcd ends where it cannot write its log, and needs room to be
brought back. So the disk has to hold more than the quota, whatever is in etcd today.
"""

from __future__ import annotations

import re
from typing import Any, Callable

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import snapshots

OPTION = "k8sgu_etcd_quota_bytes"
VOLUME, ROOT = "k8sgu_etcd_volume_size", "k8sgu_root_volume_size"
MIB, GIB = 1 << 20, 1 << 30
# maxQuotaSize in https://github.com/etcd-io/etcd/blob/main/server/storage/quota.go: etcd starts with more, and warns.
MOST = 8 * GIB
# Measured: the file of an empty cluster of two nodes ends at 2 to 3 MiB, history included. This leaves room beside it
# for twenty of the largest requests that etcd takes, 1.5 MiB each, which stay until their history is compacted.
LEAST = 32 * MIB
LIMIT = "https://etcd.io/docs/v3.6/dev-guide/limit/"
# etcd keeps five files of its write-ahead log (max-wals), and makes the next one beforehand:
# SegmentSizeBytes in https://github.com/etcd-io/etcd/blob/main/server/storage/wal/wal.go
WAL = 6 * 64 * MIB
# bbolt lets a file grow in steps: https://pkg.go.dev/go.etcd.io/bbolt#pkg-variables
GROWTH = 16 * MIB
# A guess: the operating system, its logs, programs with their predecessors, and images on a control-plane node.
SYSTEM = 5 * GIB
# ext4's own tables and journal, in percent: 1.6 for inodes, and 64 MiB of 4 GiB or 16 of 1 for the journal.
FILE_SYSTEM_PERCENT = 4


def shown(size: int) -> str:
    """A size in bytes as people say it: 4 GiB, 512 MiB."""
    unit, name = (MIB, "MiB") if abs(size) < GIB else (GIB, "GiB")
    return f"{round(size / unit, 1):g} {name}"


def number(given: Any) -> int | None:
    """The bytes of a quota that is given as a whole number, or as text on the command line; None otherwise."""
    if isinstance(given, bool) or not isinstance(given, (int, str)):
        return None
    return int(given) if re.fullmatch(r"\s*-?[0-9]+\s*", str(given)) else None


def fault(given: Any) -> str:
    """Why a quota cannot be; empty if it can."""
    quota = number(given)
    if quota is None:
        return f"{OPTION}: {given!r} is no whole number of bytes; give one such as {4 * GIB}, which is 4 GiB"
    if quota > MOST:
        return (
            f"{OPTION}: {quota} ({shown(quota)}) is above etcd's own limit of 8 GiB, of which it warns when it starts: "
            "a member takes too long to start, to be defragmented, and to catch up by a snapshot of that size, and may "
            f"never do so ({LIMIT}); give {MOST} at most. playbooks/etcd_capacity.yml says what the database needs"
        )
    if quota < LEAST:
        what = (
            f"({shown(quota)}) is less than a cluster needs: an empty one fills 2 to 3 MiB, and a single request may "
            "have 1.5"
        )
        if quota <= 0:
            what = f"is no quota: etcd takes {'0 as 2 GiB' if quota == 0 else 'a negative number as none at all'}"
        return f"{OPTION}: {quota} {what}; give {LEAST} ({shown(LEAST)}) at least, or leave it out for 4 GiB"
    return ""


def data(quota: int) -> int:
    """Bytes of disk for a database that fills its quota: itself, its copy while it is defragmented, and the log."""
    return 2 * (quota + GROWTH) + WAL


def kept(quota: int) -> int:
    """Bytes of disk for its snapshots: the newest one, and the next with what has to be free for it."""
    return quota + snapshots.with_spare(quota)


def volume_gib(quota: int) -> int:
    """GiB of a volume that has etcd's data alone."""
    return _gib(data(quota))


def root_gib(quota: int, own_volume: bool) -> int:
    """GiB of the root volume of a control-plane node; `own_volume`: whether etcd's data is on another one.

    A member is not defragmented while the next snapshot is taken, so that one of the two copies counts.
    """
    if own_volume:
        return _gib(SYSTEM + kept(quota))
    copy = quota + GROWTH
    return _gib(SYSTEM + data(quota) + kept(quota) - copy)


def _gib(size: int) -> int:
    """Whole GiB of a disk whose file system has room for that much."""
    return -(-size * 100 // ((100 - FILE_SYSTEM_PERCENT) * GIB))


def disk_faults(quota: int, volume: int, root: int) -> list[str]:
    """Why volumes of that many GiB cannot hold a database that fills its quota. `volume`: 0 for none of its own."""
    faults = []
    if volume and volume < volume_gib(quota):
        faults.append(
            f"{VOLUME}: {volume} GiB, and a database that fills its quota ({OPTION}, {shown(quota)}) needs "
            f"{volume_gib(quota)}: {shown(quota)} for itself, {shown(quota)} for its copy while it is defragmented, "
            f"without which a quota that is used up cannot be cured, and {shown(WAL)} for its log; give "
            f"{volume_gib(quota)} or more{_smaller(volume, volume_gib)}"
        )
    needed = root_gib(quota, bool(volume))
    if root < needed:
        own = f"{shown(quota)} for itself, " if not volume else ""
        log = f", {shown(WAL)} for its log" if not volume else ""
        beside = f", or etcd a volume of its own ({VOLUME}: {volume_gib(quota)})" if not volume else ""
        faults.append(
            f"{ROOT}: {root} GiB, and a control-plane node whose database fills its quota ({OPTION}, {shown(quota)}) "
            f"needs {needed}: {own}{shown(kept(quota))} for two snapshots{log}, and {shown(SYSTEM)} for the system; "
            f"give {needed} or more{beside}{_smaller(root, lambda size: root_gib(size, bool(volume)))}"
        )
    return faults


def node_faults(quota: int, size: int, own_volume: bool) -> list[str]:
    """The same of the disk that a node has for etcd's data, in bytes, whoever made it."""
    needed = data(quota) + (0 if own_volume else SYSTEM)
    if size >= needed:
        return []
    way = VOLUME if own_volume else ROOT
    return [
        f"{shown(size)} of disk for etcd's data, and a database that fills its quota ({OPTION}, {shown(quota)}) needs "
        f"{shown(needed)}: twice its size, since it is copied when it is defragmented, {shown(WAL)} for its log"
        f"{'' if own_volume else f', and {shown(SYSTEM)} for the system'}; enlarge the disk ({way}), or give a smaller "
        f"{OPTION}"
    ]


def _smaller(gib: int, needs: Callable[[int], int]) -> str:
    """The way out by a smaller quota, a round one; empty if none fits."""
    round_ones = (*range(MOST, 0, -256 * MIB), *range(256 * MIB, 0, -LEAST))
    fits = next((size for size in round_ones if needs(size) <= gib), 0)
    return f", or {OPTION}: {fits} ({shown(fits)})" if fits else ""
