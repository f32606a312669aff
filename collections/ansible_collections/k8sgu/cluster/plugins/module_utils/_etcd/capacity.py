# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What etcd's database needs: size, growth, quota, memory and disk. Pure; docs/tasks/etcd-capacity.md has the formulas.

A load is either what a user intends (`intended`) or what is there (`found`), and both are calculated in one way.
Sizes are in bytes, rates in writes a second. What is a guess is called one, here and there.
"""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import pages, quota

OPTION = "k8sgu_etcd_expected"
EXAMPLE = "{nodes: 100, pods: 3000, secrets: {count: 500, bytes: 2048}}"
# The API servers compact every five minutes what was overwritten before the last time: up to ten minutes of history.
# https://kubernetes.io/docs/reference/command-line-tools-reference/kube-apiserver/ (--etcd-compaction-interval)
HISTORY_S = 600
# An event is kept for an hour: --event-ttl.
EVENT_TTL_H = 1
# etcd's --max-request-bytes, which also Kubernetes cannot exceed.
REQUEST = 1536 * 1024
# Kubernetes' own limits: https://kubernetes.io/docs/setup/best-practices/cluster-large/
MOST_NODES, MOST_PODS, MOST_PODS_PER_NODE = 5000, 150_000, 110
# The suggested quota is for that long, and has a quarter to spare: guesses of what an administrator wants.
HORIZON_DAYS = 180
SPARE = 1.25
SMALLEST_SUGGESTED = 1 << 30
# gp3 without paying for more: https://docs.aws.amazon.com/ebs/latest/userguide/general-purpose.html
GP3_IOPS, GP3_MIB_S = 3000, 125

# A key is /registry/GROUP/RESOURCE/NAMESPACE/NAME: a guess.
KEY = 70
# Bytes of what is stored of one of these, as the API servers of a new cluster of the lab measured it
# (apiserver_resource_size_estimate_bytes); larger where objects have many labels, containers or conditions.
POD, NODE, LEASE, CSINODE, EVENT = 5200, 3700, 520, 700, 800
REPLICASET_SHARE = 700
# Of a Secret or a ConfigMap what is stored beside its data: name, manager of fields, and the encryption's own.
METADATA = 420
# A new cluster's own objects without its nodes: roles, flow schemas, CRDs of none. Measured in the lab.
BASE = 540 * 1024
BASE_KEYS = 300
# Leases of the controller manager and the scheduler, each every 2 s, and of the API server, two every 10 s.
# https://kubernetes.io/docs/concepts/architecture/leases/
CONTROL_PLANE_WRITES = 1.2
# A kubelet renews its Lease every 10 s and writes its Node every 5 min if nothing changes.
NODE_WRITES = 1 / 10 + 1 / 300
# What a pod's life writes: create, bind, three of its status, two of its deletion, and its EndpointSlices: a guess.
WRITES_PER_POD = 9
# What a write without a size of its own stores: a guess, since leases are most of them in a quiet cluster.
WRITE = 800
# etcd keeps the last entries of its log in memory: SnapshotCount and SnapshotCatchUpEntries of etcd 3.6,
# https://github.com/etcd-io/etcd/blob/main/server/etcdserver/server.go
LOG_ENTRIES = 10_000 + 5_000
# A program with its caches and buffers for clients, and a key's place in the index: guesses.
PROGRAM = 150 << 20
INDEX_PER_KEY = 350
# etcd collects its backend's writes for 100 ms: --backend-batch-interval. Each such commit writes its meta page too.
COMMITS = 10
# Pages that a commit writes beside those of values, for each value: branches, the free list, the index: a guess.
DIRTY = 3 * 4096

# etcd's own table of machines, https://etcd.io/docs/v3.6/op-guide/hardware/: nodes of Kubernetes, requests a second, MB
# of data, vCPUs, GB of memory, IOPS, MB/s.
MACHINES = (
    ("small", 50, 200, 100, 2, 8, 3600, 56),
    ("medium", 250, 1000, 500, 4, 16, 6000, 94),
    ("large", 1000, 10_000, 1000, 8, 32, 8000, 125),
    ("xLarge", 3000, math.inf, math.inf, 16, 64, 16_000, 250),
)


class CapacityError(Exception):
    """What is given, or was read, cannot be calculated with; the message says why, and the way out."""


@dataclass(frozen=True)
class Kind:
    """Objects of one kind: how many there are, what is stored of one, how many a day are added and not removed.

    `guess`: what in it is one.
    """

    name: str
    count: float
    bytes: float
    per_day: float = 0
    guess: str = ""

    @property
    def each(self) -> float:
        """Bytes of the file for one of them."""
        return pages.each(pages.message(KEY, round(self.bytes)))

    @property
    def total(self) -> float:
        return self.count * self.each


@dataclass(frozen=True)
class Load:
    """`writes` are a second, and `write` is what one of them stores. `growth`: bytes a day; None where it is not known.

    `base` is what is there beside `kinds`. `used` and `file`: what etcd says of itself; 0 for one that is intended.
    """

    source: str
    nodes: int
    pods: int
    kinds: tuple[Kind, ...]
    writes: float
    write: float
    growth: float | None
    base: float = 0
    base_keys: float = 0
    used: int = 0
    file: int = 0
    guesses: tuple[str, ...] = ()

    @property
    def live(self) -> float:
        return self.base + sum(kind.total for kind in self.kinds)

    @property
    def keys(self) -> float:
        return self.base_keys + sum(kind.count for kind in self.kinds)


@dataclass(frozen=True)
class Capacity:
    """What a load needs. `full_days`: days until the quota is used up; None if that is never, or not known."""

    live: float
    history: float
    used: float
    file: float
    growth: float | None
    full_days: float | None
    suggested: int
    memory: float
    iops: float
    written: float
    machine: str
    problems: tuple[str, ...] = field(default=())


def calculate(load: Load, given: int, defragment_percent: int) -> Capacity:
    """`given`: the quota. `defragment_percent`: how much of a file is free before it is defragmented; 0 for never."""
    one = pages.each(pages.message(KEY, round(load.write)))
    history = load.writes * HISTORY_S * one
    used = max(load.live + history, load.used)
    # Free pages of which less than that is in a file stay in it. Without defragmentation: a guess.
    fragments = 1 - (defragment_percent or 50) / 100
    file = max(used / fragments, load.file)
    then = file + (load.growth or 0) * HORIZON_DAYS / fragments
    suggested = _suggested(then)
    left = given - file
    full = None
    if left <= 0:
        full = 0.0
    elif load.growth and load.growth > 0:
        full = left * fragments / load.growth
    problems = _problems(load, given, file, full, then)
    return Capacity(
        live=load.live,
        history=history,
        used=used,
        file=file,
        growth=load.growth,
        full_days=full,
        suggested=suggested,
        memory=PROGRAM + file + load.keys * INDEX_PER_KEY + LOG_ENTRIES * load.write * 2,
        # Each write is one entry of the log, which is synchronized, at worst alone; a commit is one write and one sync.
        iops=load.writes * 2 + min(load.writes, COMMITS) * 4,
        written=load.writes * (2 * load.write + one + DIRTY),
        machine=_machine(load, used),
        problems=tuple(problems),
    )


def _suggested(needed: float) -> int:
    whole = max(SMALLEST_SUGGESTED, math.ceil(needed * SPARE / quota.GIB) * quota.GIB)
    return min(whole, quota.MOST)


def _problems(load: Load, given: int, file: float, full: float | None, then: float) -> list[str]:
    problems = []
    if then * SPARE > quota.MOST:
        problems.append(
            f"the database needs {quota.shown(int(then))} in {HORIZON_DAYS} days, which with a quarter to spare is "
            "above etcd's limit of 8 GiB: keep less (fewer or smaller objects, fewer events), or make a second cluster"
        )
    if full is not None and full < HORIZON_DAYS:
        when = f"in {full:.0f} days" if full >= 1 else "today"
        enough = _suggested(then)
        way = f"raise {quota.OPTION} to {enough} ({quota.shown(enough)})" if enough > given else "keep less"
        problems.append(
            f"the quota ({quota.shown(given)}) may be used up {when}: the file has up to {quota.shown(int(file))}; "
            f"{way}"
        )
    for what, count, most in (
        ("nodes", load.nodes, MOST_NODES),
        ("pods", load.pods, MOST_PODS),
        ("pods a node", load.pods / max(load.nodes, 1), MOST_PODS_PER_NODE),
    ):
        if count > most:
            problems.append(
                f"{count:g} {what} are more than Kubernetes is made for, {most} "
                "(https://kubernetes.io/docs/setup/best-practices/cluster-large/)"
            )
    return problems


def _machine(load: Load, used: float) -> str:
    for name, nodes, requests, megabytes, *_rest in MACHINES:
        if load.nodes <= nodes and load.writes <= requests and used / 1e6 <= megabytes:
            return name
    return MACHINES[-1][0]


# What is intended

_SIZED = ("count", "bytes", "per_day", "writes_per_hour")
_NUMBERS = ("nodes", "control_plane_nodes", "pods", "events_per_hour", "pod_changes_per_hour")
_SIZES = ("secrets", "configmaps")
_OTHERS = "others"
_KNOWN = (*_NUMBERS, *_SIZES, _OTHERS)


def intended(given: Any) -> Load:
    """The load that a user describes. Raises CapacityError with every problem."""
    problems: list[str] = []
    if not isinstance(given, Mapping):
        raise CapacityError(f"{OPTION}: {given!r} is no dictionary; give one such as {EXAMPLE}")
    _check_names(given, _KNOWN, OPTION, problems)
    numbers = {name: _number(given.get(name, 0), f"{OPTION}.{name}", problems) for name in _NUMBERS}
    if "nodes" not in given or (numbers["nodes"] == 0 and not problems):
        problems.append(f"{OPTION}.nodes: {'0' if 'nodes' in given else 'missing'}; how many nodes? {EXAMPLE}")
    rows = [(name, given[name], f"{OPTION}.{name}") for name in _SIZES if name in given]
    others = given.get(_OTHERS, [])
    if not isinstance(others, (list, tuple)):
        problems.append(f"{OPTION}.{_OTHERS}: {others!r} is no list; give [{{name: widgets, count: 100, bytes: 2000}}]")
        others = []
    for number, row in enumerate(others):
        where = f"{OPTION}.{_OTHERS}[{number}]"
        name = row.get("name") if isinstance(row, Mapping) else None
        if not name:
            problems.append(f"{where}: {row!r} has no name; give {{name: widgets, count: 100, bytes: 2000}}")
            continue
        rows.append((str(name), {key: value for key, value in row.items() if key != "name"}, where))
    sized = [_sized(*row, problems) for row in rows]
    if problems:
        raise CapacityError("; ".join(problems))
    return _described(numbers, sized)


def _check_names(given: Mapping[str, Any], known: Sequence[str], where: str, problems: list[str]) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            problems.append(f"{where}.{name}: there is no such key; {hint}")


def _number(given: Any, where: str, problems: list[str]) -> float:
    try:
        found = math.nan if isinstance(given, bool) else float(given)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found) or found < 0:
        problems.append(f"{where}: {given!r}; give a number that is 0 or more")
        return 0
    return found


def _sized(name: str, given: Any, where: str, problems: list[str]) -> tuple[Kind, float]:
    """The objects, and their writes in an hour."""
    if not isinstance(given, Mapping):
        problems.append(f"{where}: {given!r} is no dictionary; give {{count: 500, bytes: 2048}}")
        return Kind(name, 0, 0), 0
    _check_names(given, _SIZED, where, problems)
    problems += [f"{where}.{key}: missing; give a number" for key in ("count", "bytes") if key not in given]
    count, size, day, hour = (_number(given.get(key, 0), f"{where}.{key}", problems) for key in _SIZED)
    if size > REQUEST:
        problems.append(
            f"{where}.bytes: {size:g} is more than etcd takes in one request, {REQUEST} "
            "(https://etcd.io/docs/v3.6/dev-guide/limit/); is it the size of all of them? Give that of one"
        )
    return Kind(name, count, size + METADATA, day, "what is stored beside the data"), hour


def _described(numbers: Mapping[str, float], sized: Sequence[tuple[Kind, float]]) -> Load:
    nodes, pods = int(numbers["nodes"]), int(numbers["pods"])
    control_plane = numbers["control_plane_nodes"] or min(3, nodes)
    events, changes = numbers["events_per_hour"], numbers["pod_changes_per_hour"]
    kinds = [
        Kind("nodes", nodes, NODE, guess="its size"),
        Kind("leases of nodes", nodes, LEASE),
        Kind("csinodes", nodes, CSINODE),
        Kind("pods", pods, POD + REPLICASET_SHARE, guess="its size, with a share of ReplicaSets and EndpointSlices"),
        *([Kind("events", events * EVENT_TTL_H, EVENT, guess="its size")] if events else []),
        *(kind for kind, _hour in sized),
    ]
    # Bytes and writes a second, by what writes.
    written = [
        (CONTROL_PLANE_WRITES + 0.2 * (control_plane - 1), LEASE),
        (nodes * NODE_WRITES, LEASE),
        # Each is written once and removed once.
        (2 * events / 3600, EVENT / 2),
        (changes * WRITES_PER_POD / 3600, POD),
        *((hour / 3600 + kind.per_day / 86400, kind.bytes) for kind, hour in sized),
    ]
    writes = sum(rate for rate, _size in written)
    return Load(
        source="what is intended",
        nodes=nodes,
        pods=pods,
        kinds=tuple(kinds),
        writes=writes,
        write=sum(rate * size for rate, size in written) / writes,
        growth=sum(kind.per_day * kind.each for kind, _hour in sized),
        base=BASE,
        base_keys=BASE_KEYS,
        guesses=("sizes of pods, nodes and events, and what a pod's life writes",),
    )


# What is there

# 1.34 and newer, and before. https://kubernetes.io/docs/reference/instrumentation/metrics/
_COUNTS = ("apiserver_resource_objects", "apiserver_storage_objects")
_BYTES = "apiserver_resource_size_estimate_bytes"
_LINE = re.compile(r"(?m)^(\w+)\{([^}]*)\} (\S+)$")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
# Resources of which the API servers do not know the size (-1), by the guess.
_UNSIZED = {"events": EVENT}
_OTHER_SIZE = 1500


@dataclass(frozen=True)
class Reading:
    """What etcd said at a time, in seconds since 1970. `used`: -1 where only the revision is known."""

    time: float
    revision: int
    used: int = -1


def resources(metrics: str) -> list[Kind]:
    """What an API server counts, by resource. Raises CapacityError where it tells nothing."""
    counts: dict[str, float] = {}
    sizes: dict[str, float] = {}
    for name, labels, value in _LINE.findall(metrics):
        if name not in (*_COUNTS, _BYTES):
            continue
        told = dict(_LABEL.findall(labels))
        resource = ".".join(part for part in (told.get("resource", ""), told.get("group", "")) if part)
        (sizes if name == _BYTES else counts)[resource] = float(value)
    if not any(count > 0 for count in counts.values()):
        raise CapacityError(
            f"the API server's metrics have no {' and no '.join(_COUNTS)}, so that nothing is known of what is in "
            "etcd; wait a minute if it has just started, see that /metrics is that of an API server (kubectl get --raw "
            f"/metrics), or say what you intend: {OPTION}"
        )
    kinds = []
    for resource, count in sorted(counts.items()):
        if count <= 0:
            # -1: the API server could not count.
            continue
        size = sizes.get(resource, -1)
        if size > 0:
            kinds.append(Kind(resource, count, size / count))
        else:
            kinds.append(Kind(resource, count, _UNSIZED.get(resource, _OTHER_SIZE), guess="its size"))
    return kinds


def found(kinds: Sequence[Kind], status: Mapping[str, Any], readings: Sequence[Reading]) -> Load:
    """The load that is there. `status`: `used` and `size` as the fullest member says. `readings`: the last is now.

    Raises CapacityError.
    """
    by_name = {kind.name: kind for kind in kinds}
    nodes, pods = (int(by_name[name].count) if name in by_name else 0 for name in ("nodes", "pods"))
    writes = _rate(readings)
    growth = _growth(readings)
    guesses = [f"the size of {kind.name}" for kind in kinds if kind.guess]
    guesses.append(f"what a write stores, {WRITE} bytes")
    if writes is None:
        writes = CONTROL_PLANE_WRITES + nodes * NODE_WRITES
        guesses.append(
            "writes a second, since there is neither a snapshot nor an earlier reading that is older than ten minutes"
        )
    return Load(
        source="what is there",
        nodes=nodes,
        pods=pods,
        kinds=tuple(kinds),
        writes=writes,
        write=WRITE,
        growth=growth,
        used=int(status["used"]),
        file=int(status["size"]),
        guesses=tuple(guesses),
    )


def _rate(readings: Sequence[Reading]) -> float | None:
    """Revisions a second, over ten minutes to a week. A restore puts them up by far more, and is left out."""
    if not readings:
        return None
    last = readings[-1]
    for one in readings:
        passed = last.time - one.time
        gained = last.revision - one.revision
        if HISTORY_S <= passed <= 7 * 86400 and 0 <= gained < 100_000 * passed / 60:
            return gained / passed
    return None


def _growth(readings: Sequence[Reading]) -> float | None:
    """Bytes a day, between the first and the last reading of what is in use, a day apart or more."""
    sized = [one for one in readings if one.used >= 0]
    if len(sized) < 2 or sized[-1].time - sized[0].time < 86400:
        return None
    return (sized[-1].used - sized[0].used) / (sized[-1].time - sized[0].time) * 86400
