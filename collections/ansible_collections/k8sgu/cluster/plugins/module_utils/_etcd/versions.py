# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When members may be replaced by those of another version, as pure functions of what they say of themselves.

Forward: https://etcd.io/docs/v3.7/upgrades/upgrade_3_7/. Back: https://etcd.io/docs/v3.7/downgrades/downgrade_3_7/.
The version that the members speak among each other, the cluster version, is that of the oldest member's program, and
rises by itself when the last older one is replaced. It is lowered only on request. Every member then takes what the
older version does not know out of its data; only after that does a program of the older version start with it. So
etcd is at a version when every member's storage version is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterable, Mapping, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.plan import Member, Plan

CANCEL = "cancel"
RISE = "rise"
ENABLE = "enable"
# A member of this minor version joins only those that have at least this version.
LEAST = {(3, 7): (3, 6, 11)}
# Listed among a member's alarms, and none: https://github.com/etcd-io/etcd/blob/main/server/etcdserver/errors/errors.go
NO_LEADER = "etcdserver: no leader"
UPGRADES = "https://etcd.io/docs/v3.7/upgrades/"
DOWNGRADES = "https://etcd.io/docs/v3.7/downgrades/"


@dataclass(frozen=True)
class Running:
    """A member that answers.

    `version` is its program's, `storage` that of its data (empty before etcd 3.6), `target` that to which etcd is on
    its way back, if it is.
    """

    name: str
    version: str
    storage: str = ""
    target: str = ""
    leads: bool = False
    learner: bool = False
    alarms: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        back = f", on the way back to {shown(minor(self.target))}" if self.target else ""
        return (
            f"{self.name}: etcd {self.version}, data of {shown(minor(self.storage)) if self.storage else 'none'}{back}"
        )


@dataclass(frozen=True)
class Step:
    """`kind` is ENABLE, CANCEL, or RISE: to wait until etcd has risen to `version`, which it does by itself."""

    kind: str
    version: tuple[int, int]
    reason: str

    @property
    def shown(self) -> str:
        words = {
            ENABLE: f"let etcd go back to {shown(self.version)}",
            CANCEL: "end etcd's way back",
            RISE: f"wait until etcd is at {shown(self.version)}",
        }
        return f"{words[self.kind]}: {self.reason}"


def numbers(version: str) -> tuple[int, ...]:
    """3.7.3, or 3.7.3-rc.0, as numbers. Raises ValueError."""
    return tuple(int(part) for part in version.split("-")[0].split("."))


def minor(version: str) -> tuple[int, int]:
    """Raises ValueError."""
    major, second = numbers(version)[:2]
    return major, second


def shown(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)


def parse(member: Member, status: Mapping[str, Any]) -> Running:
    """What `etcdctl endpoint status -w json` says of a member."""
    back = status.get("downgradeInfo") or {}
    return Running(
        name=member.shown,
        version=str(status["version"]),
        storage=str(status.get("storageVersion") or ""),
        target=str(back.get("targetVersion") or "") if back.get("enabled") else "",
        leads=int(status.get("leader") or 0) == member.id,
        learner=member.learner,
        alarms=tuple(str(error) for error in status.get("errors") or () if error != NO_LEADER),
    )


def names(running: Iterable[Running]) -> str:
    return ", ".join(sorted(member.name for member in running))


def ready(running: Sequence[Running], silent: Sequence[str], version: str) -> Plan[Step]:
    """What has to be done before members may be replaced, one after another, by those of `version`."""
    wanted = minor(version)
    problem = _unfit(running) or _distance(running, wanted)
    if problem:
        return Plan((), problem)
    problem = _incomplete(running, silent)
    if problem:
        return Plan((), problem, passing=True)
    newest = max(minor(member.version) for member in running)
    back = next((minor(member.target) for member in running if member.target), None)
    if back is not None and back < wanted:
        return Plan((Step(CANCEL, wanted, f"it was on its way back to {shown(back)}, and goes on to {shown(wanted)}"),))
    if back is not None and back > wanted:
        return Plan(
            (), f"etcd is on its way back to {shown(back)}, which has to be over before it goes to {shown(wanted)}"
        )
    if wanted >= newest or back is not None:
        return Plan()
    if any(minor(member.version) == wanted for member in running):
        # The older one keeps the cluster version down.
        return Plan()
    steps = []
    # Its last older member was replaced a moment ago, or one has just started and reads from its log how etcd rose.
    rising = [member for member in running if minor(member.storage) < newest]
    if rising:
        reason = f"the data of {names(rising)} is of {shown(wanted)} still, and etcd goes back only from there"
        steps.append(Step(RISE, newest, reason))
    steps.append(Step(ENABLE, wanted, f"all {len(running)} members are at {shown(newest)}"))
    return Plan(tuple(steps))


def lacks_ready(running: Sequence[Running], silent: Sequence[str], version: str) -> str:
    """What is still in the way of the first replacement, after the steps of the plan were taken; empty if nothing."""
    wanted = minor(version)
    if silent:
        return f"{', '.join(silent)} to answer"
    above = [member for member in running if minor(member.storage) > wanted]
    if above and all(minor(member.version) > wanted for member in running):
        return f"the data of {names(above)} to be of {shown(wanted)}"
    other = [member for member in running if member.target and minor(member.target) < wanted]
    if other:
        return f"{names(other)} to know that etcd does not go back"
    return _leaderless(running)


def settled(running: Sequence[Running], version: str) -> str:
    """Why waiting is in vain: a program of another version, or a way back beyond it. Empty if it is not."""
    wanted = minor(version)
    beyond = [member for member in running if member.target and minor(member.target) < wanted]
    if beyond:
        back = shown(minor(beyond[0].target))
        return f"etcd is on its way back to {back}, and comes to {shown(wanted)} only when that is ended (state: ready)"
    others = [member for member in running if minor(member.version) != wanted]
    if not others:
        return ""
    told = ", ".join(f"{member.name} ({member.version})" for member in others)
    return (
        f"{len(running) - len(others)} of {len(running)} members run etcd {shown(wanted)}, and etcd is there only when "
        f"all do; still to be replaced: {told}"
    )


def lacks_settled(running: Sequence[Running], silent: Sequence[str], version: str) -> str:
    """What is still missing until etcd is at `version` as a whole; empty if nothing."""
    wanted = minor(version)
    if silent:
        return f"{', '.join(silent)} to answer"
    behind = [member for member in running if not member.storage or minor(member.storage) != wanted]
    if behind:
        return f"the data of {names(behind)} to be of {shown(wanted)}"
    under_way = [member for member in running if member.target]
    if under_way:
        return f"the way back to {shown(minor(under_way[0].target))} to be over"
    return _leaderless(running)


def order(running: Sequence[Running]) -> list[str]:
    """The members' names in the order in which they should be replaced: the leader last, so that it changes once."""
    return [member.name for member in sorted(running, key=lambda member: (member.leads, member.name))]


def _leaderless(running: Sequence[Running]) -> str:
    return "" if sum(member.leads for member in running) == 1 else "the members to agree on a leader"


def _incomplete(running: Sequence[Running], silent: Sequence[str]) -> str:
    """Which member does not answer, or that none leads."""
    total = len(running) + len(silent)
    if silent:
        return (
            f"{len(running)} of {total} members of etcd answer, and its version changes only while all do; start it on "
            f"{', '.join(silent)} first: systemctl start etcd; journalctl -u etcd"
        )
    leader = _leaderless(running)
    return f"etcd has no leader now; wait for {leader}: etcdctl endpoint status --cluster" if leader else ""


def _unfit(running: Sequence[Running]) -> str:
    """Why the version of this etcd cannot be changed, whatever it is."""
    learners = [member for member in running if member.learner]
    if learners:
        return f"{names(learners)}: this member of etcd has no vote yet; let it join first: playbooks/etcd.yml"
    alarmed = [f"{member.name}: {'; '.join(member.alarms)}" for member in running if member.alarms]
    if alarmed:
        return (
            f"etcd reports a fault ({', '.join(alarmed)}); clear it first: etcdctl alarm list, "
            "https://etcd.io/docs/v3.6/op-guide/maintenance/#space-quota"
        )
    unknown = [member for member in running if not member.storage]
    if unknown:
        told = ", ".join(f"{member.name} ({member.version})" for member in unknown)
        return f"{told} does not say which version its data has; etcd before 3.6 has no way back, see {DOWNGRADES}"
    return ""


def _distance(running: Sequence[Running], wanted: tuple[int, int]) -> str:
    """Why etcd cannot go from the members' versions to `wanted`."""
    far = [member for member in running if abs(_steps(minor(member.version), wanted)) > 1]
    if far:
        told = ", ".join(f"{member.name} has {member.version}" for member in far)
        way = abs(_steps(minor(far[0].version), wanted))
        return f"etcd goes one minor version at a time, and to {shown(wanted)} it is {way}: {told}; see {UPGRADES}"
    least = LEAST.get(wanted)
    early = [
        member for member in running if least and minor(member.version) < wanted and numbers(member.version) < least
    ]
    if least and early:
        told = ", ".join(f"{member.name} has {member.version}" for member in early)
        return (
            f"members of etcd {shown(wanted)} join only those of {shown(least)} or later, and {told}; go to the newest "
            f"{shown(least[:2])} first, see {UPGRADES}"
        )
    return ""


def _steps(one: tuple[int, int], other: tuple[int, int]) -> int:
    """Minor versions between two, and many between two major ones."""
    return (other[0] - one[0]) * 100 + other[1] - one[1]
