# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which snapshot is restored on which member, what is lost by it, and which snapshots do not serve. Pure.

One member gets the data, alone. The others join it as they join any etcd, with what it has by then: so the snapshot
needs to be on one node only, and all members have the same data whatever happens between. A snapshot that is on none
is brought to one, from the controller's state directory or from the bucket for backups.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass, field
from typing import Any, Collection, Iterable, Mapping, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster.versions import numbers
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import snapshots
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.contents import Contents
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.snapshots import Snapshot

LATEST = "latest"
# Revisions that are left out, so that none is given a second time: more than are written between two snapshots.
# https://etcd.io/docs/v3.6/op-guide/recovery/#restoring-with-revision-bump
BUMP = 1_000_000_000
_SHOWN = 20
_ENCRYPTED = re.compile(r"k8s:enc:([a-z]+):v\d+:([^:]+):")


STATE_DIR, BUCKET = "state_dir", "bucket"


@dataclass(frozen=True)
class Place:
    """Where snapshots are that is no member.

    `kind` is STATE_DIR or BUCKET, and `title` how it is named to the user. `sizes` has bytes by name. `problem` says
    why they are not known.
    """

    kind: str
    title: str
    sizes: Mapping[str, int] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True)
class Way:
    """`source` is the node that has the snapshot, or gets it. `lost` says what is lost, in words.

    `goes_on`: an earlier run was cut off, which is completed. `brought`: the kind of the place from which `source` gets
    the snapshot; empty where it has it. `spare`: the controller need not keep its copy, since the bucket has it too.
    `left_out`: nodes that never were members, such as new machines of members that are gone; they join afterwards.
    """

    problem: str = ""
    source: str = ""
    snapshot: str = ""
    id: str = ""
    bump: int = BUMP
    lost: str = ""
    goes_on: bool = False
    brought: str = ""
    spare: bool = False
    left_out: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Row:
    """A snapshot that is on the member `node`, or in `place`."""

    snapshot: Snapshot
    node: str = ""
    place: Place | None = None

    @property
    def where(self) -> str:
        return self.place.title if self.place else self.node


def way(
    nodes: Sequence[Mapping[str, Any]],
    wanted: str,
    now: datetime.datetime,
    places: Sequence[Place] = (),
    opened: datetime.datetime | None = None,
) -> Way:
    """What a restore does.

    nodes: each with `name`, and `found` of the module etcd_snapshot_info; None where that could not be asked.
    wanted: a snapshot's name, or "latest".
    places: beside the members, the preferred one first.
    opened: when the state directory came out of a backup, if no restore was completed since. What was taken later is of
        the empty cluster that was made with it, and never the latest.
    """
    silent = sorted(str(node["name"]) for node in nodes if not node.get("found"))
    if silent:
        return Way(
            f"{', '.join(silent)} could not be asked, and could come back with the data that is replaced; start what "
            "is stopped, or terminate the instance and run playbooks/infrastructure.yml, which makes it anew"
        )
    left_out = sorted(str(node["name"]) for node in nodes if _is_new_machine(node["found"]))
    gone = {identity for node in nodes for identity in node["found"]["set_aside"]}
    begun = sorted(
        (str(node["found"]["restoring"]["id"]), str(node["name"]), str(node["found"]["restoring"]["snapshot"]))
        for node in nodes
        # One that was only prepared has changed nothing, and need not be completed.
        if node["found"]["restoring"] and node["found"]["restoring"]["id"] in gone
    )
    there = _there(nodes, places)
    row: _Row | None = None
    if begun:
        identity, source, name = begun[-1]
        if wanted not in ("", LATEST, name):
            return Way(
                f"k8sgu_restore_snapshot: {wanted}, and a restore from {name} was begun on {source} and has not come "
                f"to its end; complete it first (k8sgu_restore_snapshot={name}), then restore the other one"
            )
    else:
        row, problem = _chosen(there, wanted, now, places, opened)
        if row is None:
            return Way(problem)
        source, problem = _getting(row, nodes)
        if problem:
            return Way(problem)
        identity, name = now.strftime(snapshots.TIME), row.snapshot.name
    snapshot = snapshots.parse(name)
    if snapshot is None:
        return Way(f"k8sgu_restore_snapshot: {name} has no name such as etcd_snapshot gives")
    lost = _lost(snapshot, nodes, now)
    place = row.place if row else None
    return Way(
        source=source,
        snapshot=name,
        id=identity,
        bump=BUMP + max(0, _highest(nodes, there) - snapshot.revision),
        lost=lost,
        goes_on=bool(begun),
        brought=place.kind if place else "",
        spare=place is not None and any(one.kind == BUCKET and name in one.sizes for one in places),
        left_out=left_out,
        lines=[
            *_unlisted(places),
            *([f"A restore that was begun at {identity} goes on."] if begun else []),
            *(_bringing(place, source, name) if place else []),
            *_lines([node for node in nodes if node["name"] not in left_out], source, name, identity, lost, left_out),
        ],
    )


def _is_new_machine(found: Mapping[str, Any]) -> bool:
    """Whether etcd was never there: neither a program that could start, nor data that somebody could miss."""
    return not (found["installed"] or found["snapshots"] or found["set_aside"] or found["restoring"])


def _there(nodes: Sequence[Mapping[str, Any]], places: Sequence[Place]) -> list[_Row]:
    """Every snapshot with where it is, the newest first; of one that is in several places, the preferred one first."""
    found = [
        _Row(one, node=str(node["name"])) for node in nodes for one in snapshots.listed(node["found"]["snapshots"])
    ]
    found += [_Row(one, place=place) for place in places for one in snapshots.listed(place.sizes)]
    # Of equals, Python keeps the order.
    return sorted(found, key=lambda row: (row.snapshot.taken, row.snapshot.revision), reverse=True)


def _chosen(
    there: Sequence[_Row],
    wanted: str,
    now: datetime.datetime,
    places: Sequence[Place],
    opened: datetime.datetime | None,
) -> tuple[_Row | None, str]:
    """The snapshot with its place, or why there is none."""
    unlisted = _unlisted(places)
    if not there:
        also = "".join(f", and none is in the {place.title}" for place in places if not place.problem)
        return None, "; ".join(
            [
                *unlisted,
                f"no member has a snapshot in {snapshots.DIRECTORY}{also}; put one into `snapshots` of the state "
                "directory, under a name such as 20261129T180210Z_etcd-3.6.14_rev-51234_manual.db (when it was taken, "
                "etcd's version, the revision)",
            ]
        )
    if wanted == LATEST:
        # Which is the latest is not known while one of the places is not.
        found = [] if unlisted else [row for row in there if not _is_new(row.snapshot, opened)]
        why = f"{wanted}, and which that is is not known" if unlisted else f"{wanted}, and each is of the new cluster"
    else:
        found = [row for row in there if wanted == row.snapshot.name]
        why = f"{wanted} is nowhere" if wanted else "empty"
    if found:
        return found[0], ""
    listed = "".join(
        f"\n  {row.snapshot.name}  ({row.where}, {snapshots.age(now - row.snapshot.taken)} old"
        f"{'; of the new cluster, made after the backup was opened' if _is_new(row.snapshot, opened) else ''})"
        for row in there[:_SHOWN]
    )
    more = f"\n  and {len(there) - _SHOWN} older ones" if len(there) > _SHOWN else ""
    last = "" if wanted == LATEST else f", or {LATEST}"
    return None, "\n".join([f"k8sgu_restore_snapshot: {why}; give one of these{last}:{listed}{more}", *unlisted])


def _is_new(snapshot: Snapshot, opened: datetime.datetime | None) -> bool:
    return opened is not None and snapshot.taken >= opened


def _unlisted(places: Sequence[Place]) -> list[str]:
    return [f"The {place.title} is left out: {place.problem}" for place in places if place.problem]


def _getting(row: _Row, nodes: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """The member that gets the data, or why none can."""
    if row.place is None:
        return row.node, ""
    fit = sorted((str(node["name"]), node["found"]) for node in nodes if node["found"]["installed"])
    if not fit:
        return "", f"{row.snapshot.name} is in the {row.where}, and etcd is installed nowhere; run site.yml first"
    name, found = fit[0]
    size, free = row.place.sizes[row.snapshot.name], int(found["free"])
    needed = snapshots.with_spare(size)
    if free < needed:
        return "", (
            f"{row.snapshot.name} has {-(-size // snapshots.MIB)} MiB, so that {name} needs "
            f"{-(-needed // snapshots.MIB)} MiB for it with room to spare, and {snapshots.DIRECTORY} has "
            f"{free // snapshots.MIB} MiB free; make room there"
        )
    return name, ""


def _bringing(place: Place, source: str, name: str) -> list[str]:
    got = [f"controller: get {name} from the {place.title}, and decrypt it"] if place.kind == BUCKET else []
    return [*got, f"{source}: get {name} from the {'controller' if got else place.title}"]


def _highest(nodes: Sequence[Mapping[str, Any]], there: Iterable[_Row]) -> int:
    """The highest revision that is known to have been given."""
    return max(
        [*(int(node["found"]["revision"]) for node in nodes), *(row.snapshot.revision for row in there)], default=0
    )


def _lost(snapshot: Snapshot, nodes: Sequence[Mapping[str, Any]], now: datetime.datetime) -> str:
    now_at = max((int(node["found"]["revision"]) for node in nodes), default=0)
    taken = snapshot.taken.strftime("%Y-%m-%d %H:%M:%S UTC")
    # A revision may have several changes.
    count = f"{now_at - snapshot.revision} revisions" if now_at else "how many is not known, since etcd does not answer"
    return f"what was written since {taken} is lost ({snapshots.age(now - snapshot.taken)}; {count})"


def _lines(
    nodes: Sequence[Mapping[str, Any]], source: str, name: str, identity: str, lost: str, left_out: Sequence[str]
) -> list[str]:
    """`nodes` are those that the restore changes."""
    others = sorted(str(node["name"]) for node in nodes if node["name"] != source)
    members = ", ".join(sorted([source, *others]))
    return [
        f"{source}: check {name}, and prepare its data beside etcd's",
        "every control-plane node: stop the API server; pods go on",
        f"{members}: stop etcd and move its data aside, to /var/lib/etcd/member-before-{identity}",
        f"{source}: start etcd with the snapshot's data; {lost}",
        "every control-plane node: start the API server",
        "every node: a kubelet that the snapshot does not know registers anew",
        *([f"{', '.join(others)}: join etcd, one after another, with its data"] if others else []),
        # Checks ask for every node of the inventory.
        *(
            [f"{', '.join(left_out)}: not touched, since etcd was never there; site.yml has them join"]
            if left_out
            else []
        ),
        *(["verify"] if not left_out else []),
    ]


def unfit(
    name: str,
    found: Contents,
    version: str,
    nodes: Collection[str],
    authority: Collection[str],
    prefixes: Collection[str],
    quota: int = 0,
) -> list[str]:
    """Why a snapshot cannot be restored here, all reasons.

    version: of the etcd that is installed. nodes: names of the cluster's members. authority: its CA's certificates.
    prefixes: how values begin that the API servers can decrypt. quota: etcd's, in bytes; 0 if it is not to be judged.
    """
    problems = []
    snapshot = snapshots.parse(name)
    if snapshot and numbers(snapshot.version)[:2] > numbers(version)[:2]:
        problems.append(
            f"{name} was taken by etcd {snapshot.version}, and {version} is installed, which cannot read it; bring the "
            "cluster to the release that it was taken with first (playbooks/upgrade.yml)"
        )
    strange = not set(found.members) & set(nodes)
    if strange or (found.authority and not found.authority & set(authority)):
        shown = ", ".join(found.members) or "none"
        why = (
            f"its members are {shown}, and this cluster's {', '.join(sorted(nodes))}"
            if strange
            else "it has another CA"
        )
        problems.append(f"{name} is of another cluster: {why}")
    for prefix, count in found.encrypted.items():
        if prefix in prefixes:
            continue
        parts = _ENCRYPTED.match(prefix)
        provider, key = parts.groups() if parts else ("", prefix)
        problems.append(
            f"{count} {'value' if count == 1 else 'values'} in {name} can be read only with the encryption key {key} "
            f"({provider}), which this cluster does not have; put it back into secrets/encryption-keys.json of the "
            "state directory from a backup of it, and run playbooks/control_plane.yml first"
        )
    if quota and found.bytes >= quota:
        problems.append(
            f"what is in {name} takes {-(-found.bytes // snapshots.MIB)} MiB without its history, and fills etcd's "
            f"quota of {quota // snapshots.MIB} MiB by itself, so that no write would be taken. Raise "
            "k8sgu_etcd_quota_bytes (8 GiB at most), run playbooks/etcd.yml and then this again"
        )
    return problems


def room(size: int, free: int, directory: str, asides: Sequence[str]) -> list[str]:
    """Why the data of a snapshot of `size` bytes does not fit where `free` bytes are free."""
    needed = snapshots.with_spare(size)
    if free >= needed:
        return []
    old = f", for instance by removing what earlier restores kept ({', '.join(asides)})" if asides else ""
    return [
        f"the snapshot's data needs {-(-needed // snapshots.MIB)} MiB with room to spare, and {directory} has "
        f"{free // snapshots.MIB} MiB free; make room{old}"
    ]
