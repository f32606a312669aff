# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What etcd's capacity is, as a table and a document. Pure, on the controller."""

from __future__ import annotations

import datetime
import json
import math
from typing import Any, Mapping, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import capacity, quota, snapshots
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.capacity import Capacity, CapacityError, Load, Reading
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.drill_report import Report

_TIME = "%Y-%m-%dT%H:%M:%SZ"
# So many readings are kept for the growth, the oldest of the last 90 days among them.
_READINGS = 100
_READINGS_S = 90 * 86400
_SHOWN = 8


def report(
    expected: Any,
    metrics: Mapping[str, Any],
    told: Mapping[str, Mapping[str, Any]],
    earlier: str,
    given: int,
    defragment_percent: int,
    now: datetime.datetime,
) -> Report:
    """The capacity of what is `expected`, or, where that is empty, of what is there.

    metrics: the result of reading an API server's metrics, with `rc`, `stdout` and `stderr`. told: by member, what the
    module etcd_snapshot_info returned. earlier: the last document, as JSON. given: the quota. Raises CapacityError.
    """
    readings = _earlier(earlier, now)
    if expected or not isinstance(expected, Mapping):
        load = capacity.intended(expected)
    else:
        readings = _now(readings, told, now)
        load = capacity.found(capacity.resources(_text(metrics)), _fullest(told), _known(readings, told))
    made = capacity.calculate(load, given, defragment_percent)
    document = {
        "time": now.strftime(_TIME),
        "source": load.source,
        "kinds": [
            {
                "name": kind.name,
                "count": kind.count,
                "bytes": round(kind.bytes),
                "total": round(kind.total),
                "guess": kind.guess,
            }
            for kind in load.kinds
        ],
        "quota": given,
        "writes_per_second": round(load.writes, 2),
        "bytes": {
            "live": round(made.live),
            "history": round(made.history),
            "used": round(made.used),
            "file": round(made.file),
            "measured_used": load.used or None,
            "measured_file": load.file or None,
        },
        "growth_bytes_per_day": None if made.growth is None else round(made.growth),
        "quota_used_up_in_days": None if made.full_days is None else round(made.full_days, 1),
        "suggested_quota": made.suggested,
        "memory_bytes": round(made.memory),
        "disk": {
            "iops": math.ceil(made.iops),
            "written_bytes_per_second": round(made.written),
            "volume_gib": quota.volume_gib(made.suggested),
            "root_gib": quota.root_gib(made.suggested, own_volume=False),
        },
        "machine": made.machine,
        "guesses": list(load.guesses),
        "readings": [[round(one.time), one.revision, one.used] for one in readings],
        "problems": list(made.problems),
    }
    return Report(document, _lines(load, made, given), list(made.problems))


def _text(metrics: Mapping[str, Any]) -> str:
    if metrics.get("rc") == 0:
        return str(metrics.get("stdout") or "")
    said = " ".join(str(metrics.get("stderr") or metrics.get("msg") or "no answer").split())
    raise CapacityError(
        f"the API server's metrics cannot be read: {said[-300:]}; see playbooks/verify.yml, or say what you intend: "
        f"{capacity.OPTION}"
    )


def _fullest(told: Mapping[str, Mapping[str, Any]]) -> Mapping[str, int]:
    rooms = [one["database"] for one in told.values() if one.get("database")]
    if not rooms:
        raise CapacityError(
            "no member of etcd says how large its database is; start one (systemctl start etcd; journalctl -u etcd), "
            f"or say what you intend: {capacity.OPTION}"
        )
    return max(rooms, key=lambda room: (room["used"], room["size"]))


def _earlier(document: str, now: datetime.datetime) -> list[Reading]:
    """The readings of the last document, the oldest first; none if it is not one of ours."""
    try:
        found = [Reading(float(when), int(at), int(used)) for when, at, used in json.loads(document)["readings"]]
    except (ValueError, LookupError, TypeError):
        return []
    return [one for one in found if now.timestamp() - _READINGS_S <= one.time < now.timestamp()][-_READINGS:]


def _now(readings: Sequence[Reading], told: Mapping[str, Mapping[str, Any]], now: datetime.datetime) -> list[Reading]:
    revision = max((int(one.get("revision") or 0) for one in told.values()), default=0)
    return [*readings, Reading(now.timestamp(), revision, int(_fullest(told)["used"]))]


def _known(readings: Sequence[Reading], told: Mapping[str, Mapping[str, Any]]) -> list[Reading]:
    """The readings, and the revisions in the names of snapshots, in the order of their times."""
    listed = snapshots.listed(name for one in told.values() for name in one.get("snapshots") or ())
    return sorted(
        [*readings, *(Reading(one.taken.timestamp(), one.revision) for one in listed)], key=lambda one: one.time
    )


def _lines(load: Load, made: Capacity, given: int) -> list[str]:
    size = quota.shown
    largest = sorted(load.kinds, key=lambda kind: -kind.total)
    lines = [f"{load.source}: {load.nodes} nodes, {load.pods} pods, {load.keys:g} keys", ""]
    lines += [f"{'objects':<44}{'count':>9}{'bytes each':>12}{'in the file':>13}"]
    lines += [
        f"{kind.name:<44}{kind.count:>9g}{kind.bytes:>12.0f}{size(int(kind.total)):>13}" for kind in largest[:_SHOWN]
    ]
    rest = largest[_SHOWN:]
    if rest:
        total = size(int(sum(kind.total for kind in rest)))
        lines.append(f"{f'{len(rest)} other kinds':<44}{sum(kind.count for kind in rest):>9g}{'':>12}{total:>13}")
    full = "not known yet: read again in a day" if made.growth is None else "never, as it grows now"
    if made.full_days is not None:
        full = f"in {made.full_days:.0f} days"
    grows = "not known yet: read again in a day" if made.growth is None else f"{made.growth / quota.MIB:.2f} MiB a day"
    name, nodes, requests, megabytes, processors, memory, iops, throughput = next(
        row for row in capacity.MACHINES if row[0] == made.machine
    )
    measured = f"; etcd says {size(load.used)} in use, {size(load.file)} file" if load.file else ""
    rows = [
        ("writes", f"{load.writes:.1f} a second"),
        ("values that are current", size(int(made.live))),
        ("with ten minutes of history", f"{size(int(made.used))}{measured}"),
        ("file, at most, with free pages", size(int(made.file))),
        ("growth", grows),
        (f"quota of {size(given)} used up", full),
        (
            f"quota for {capacity.HORIZON_DAYS} days (k8sgu_etcd_quota_bytes)",
            f"{made.suggested}, which is {size(made.suggested)}",
        ),
        ("memory of a member, a guess", size(int(made.memory))),
        (
            "disk of a member, at most",
            f"{math.ceil(made.iops)} IOPS (gp3 has {capacity.GP3_IOPS}), {made.written / quota.MIB:.1f} MiB/s "
            f"({capacity.GP3_MIB_S})",
        ),
        (
            "etcd's volume, or the root volume alone",
            f"{quota.volume_gib(made.suggested)} GiB, or {quota.root_gib(made.suggested, own_volume=False)}",
        ),
        (
            f"etcd's own table: {name}",
            f"{processors} vCPUs, {memory} GB, {iops} IOPS, {throughput} MB/s: up to {nodes} nodes"
            + (f", {requests:g} requests/s, {megabytes:g} MB" if math.isfinite(requests) else " and more"),
        ),
    ]
    return [*lines, "", *(f"{what:<56}{value}" for what, value in rows), f"guesses: {'; '.join(load.guesses)}"]
