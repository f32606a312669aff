# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which members of etcd are defragmented, and how one that has used up its quota takes writes again. Pure.

A database never becomes smaller by itself: what is deleted and compacted leaves free pages, which the next writes use.
Defragmentation writes the file anew without them, and the member serves nobody meanwhile. The quota is compared with
the file, free pages included. https://etcd.io/docs/v3.6/op-guide/maintenance/
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.plan import Member, Plan
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.versions import NO_LEADER

COMPACT = "compact"
MOVE = "move"
DEFRAGMENT = "defragment"
DISARM = "disarm"
NOSPACE = "NOSPACE"
MIB = 1 << 20
# As much of the quota in use is worth saying.
SCARCE_PERCENT = 90
CURE = "playbooks/etcd_maintenance.yml"
QUOTA = "https://etcd.io/docs/v3.6/op-guide/maintenance/#space-quota"


@dataclass(frozen=True)
class Room:
    """A member's database in bytes: the file's size, what of it is in use, and the quota, all as the member says.

    `full`: the alarm NOSPACE is raised, by which every member refuses writes. `faults` are alarms of other kinds.
    """

    member: Member
    name: str
    size: int
    used: int
    quota: int
    revision: int = 0
    leads: bool = False
    full: bool = False
    faults: tuple[str, ...] = ()

    @property
    def free_percent(self) -> int:
        return 100 * (self.size - self.used) // self.size if self.size else 0

    @property
    def shown(self) -> str:
        return f"{self.name}: {mib(self.used)} of {mib(self.size)} MiB in use, quota {mib(self.quota)} MiB"


@dataclass(frozen=True)
class Step:
    """`kind` is COMPACT, MOVE, DEFRAGMENT or DISARM; `name` is the member's, of MOVE the next leader's."""

    kind: str
    reason: str
    name: str = ""

    @property
    def shown(self) -> str:
        words = {
            COMPACT: "compact etcd's history",
            MOVE: f"let {self.name} lead",
            DEFRAGMENT: f"defragment {self.name}",
            DISARM: f"clear the alarm {NOSPACE}",
        }
        return f"{words[self.kind]}: {self.reason}"


def parse(member: Member, name: str, status: Mapping[str, Any]) -> Room:
    """What `etcdctl endpoint status -w json` says of a member. Raises KeyError, TypeError, ValueError."""
    # Each member tells the alarms of all: `memberID:10501334649042878790 alarm:NOSPACE `.
    alarms = [str(error) for error in status.get("errors") or () if error != NO_LEADER]
    return Room(
        member=member,
        name=name,
        size=int(status["dbSize"]),
        used=int(status["dbSizeInUse"]),
        quota=int(status["dbSizeQuota"]),
        revision=int(status["header"]["revision"]),
        leads=int(status.get("leader") or 0) == member.id,
        full=any(NOSPACE in alarm for alarm in alarms),
        faults=tuple(alarm.strip() for alarm in alarms if NOSPACE not in alarm),
    )


def mib(size: int) -> str:
    return f"{size / MIB:.1f}"


def order(rooms: Iterable[Room]) -> list[Room]:
    """The leader last, so that it changes once and to a member that is done."""
    return sorted(rooms, key=lambda room: (room.leads, room.name))


def plan(rooms: Sequence[Room], silent: Sequence[str], percent: int, writable: bool) -> Plan[Step]:
    """What is done about members that answer (`rooms`) and those that do not (`silent`, names).

    Those are defragmented of whose file at least `percent` is free. With `writable` a cluster that has used up its
    quota is brought back: its history goes, every member is defragmented, and the alarm is cleared. So is one whose
    files are as large as the quota, as where it was lowered, before the next write raises the alarm.
    """
    problem = _unfit(rooms)
    if problem:
        return Plan((), problem)
    problem = _incomplete(rooms, silent)
    if problem:
        return Plan((), problem, passing=True)
    full = any(room.full or (writable and 0 < room.quota <= room.size) for room in rooms)
    if full and not writable:
        return Plan((), f"etcd has used up its quota ({_filled(rooms)}) and takes no writes; what cures that: {CURE}")
    steps = []
    if full:
        reason = "its quota is used up, and the API servers, which compact it else, would have to write for that"
        steps.append(Step(COMPACT, reason))
    # How much is free is known only when the history is gone.
    for room in order(room for room in rooms if full or (room.free_percent >= percent and room.size > room.used)):
        if room.leads:
            successor = next((other for other in order(rooms) if not other.leads and not other.member.learner), None)
            if successor:
                steps.append(Step(MOVE, f"{room.name} leads, and is next", successor.name))
        told = "it is free when the history is gone" if full else f"{room.free_percent} % of its file are free"
        steps.append(Step(DEFRAGMENT, f"{mib(room.used)} of {mib(room.size)} MiB are in use; {told}", room.name))
    if full:
        steps.append(Step(DISARM, "there is room again"))
    return Plan(tuple(steps))


def advice(rooms: Iterable[Room]) -> list[str]:
    """What to do about a quota that is nearly used up by what is in etcd; nothing if it is not."""
    most = max(rooms, key=lambda room: room.used, default=None)
    if most is None or not most.quota or 100 * most.used < SCARCE_PERCENT * most.quota:
        return []
    return [
        f"what is in etcd fills {100 * most.used // most.quota} % of its quota ({mib(most.used)} of {mib(most.quota)} "
        "MiB), and when that is used up it takes no writes: remove what is not needed, or raise k8sgu_etcd_quota_bytes "
        "(8 GiB at most) and run playbooks/etcd.yml"
    ]


def still_full(rooms: Iterable[Room]) -> str:
    """Why the alarm would be raised again at once; empty if it would not."""
    over = [room for room in rooms if room.size >= room.quota]
    if not over:
        return ""
    return (
        f"etcd is defragmented, and what is in it still fills its quota ({_filled(over)}): the alarm stays. Raise "
        f"k8sgu_etcd_quota_bytes (8 GiB at most), run playbooks/etcd.yml and then {CURE} again; see {QUOTA}"
    )


def _filled(rooms: Iterable[Room]) -> str:
    told = sorted(rooms, key=lambda room: room.name)
    return ", ".join(f"{room.name}: {mib(room.size)} MiB of {mib(room.quota)}" for room in told)


def _unfit(rooms: Sequence[Room]) -> str:
    faulty = [f"{room.name}: {'; '.join(room.faults)}" for room in rooms if room.faults]
    if faulty:
        return (
            f"etcd reports a fault that has nothing to do with space ({', '.join(faulty)}); see to it first: "
            "etcdctl alarm list"
        )
    return ""


def _incomplete(rooms: Sequence[Room], silent: Sequence[str]) -> str:
    """Why a member that is defragmented now could cost the quorum."""
    if silent:
        return (
            f"{len(rooms)} of {len(rooms) + len(silent)} members of etcd answer, and one that is defragmented does not "
            f"meanwhile; start it on {', '.join(silent)} first: systemctl start etcd; journalctl -u etcd"
        )
    if sum(room.leads for room in rooms) != 1:
        return "etcd has no leader now; wait for the members to agree on one: etcdctl endpoint status --cluster"
    return ""
