# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which changes let a node join etcd or leave it, as pure functions of the members that etcd lists.

A new member is added as a learner, which has no vote until it has the data, so that it never costs a quorum:
https://etcd.io/docs/v3.6/learning/design-learner/. A member whose data is lost is removed first, since it must not come
back without: https://etcd.io/docs/v3.6/op-guide/runtime-configuration/#replace-a-failed-machine
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Collection, Generic, Iterable, Mapping, TypeVar
from urllib.parse import urlsplit

RECOVERY = "https://etcd.io/docs/v3.6/op-guide/recovery/"
Kind = TypeVar("Kind")
RESTORE = "restore the database from a snapshot: playbooks/restore.yml"


@dataclass(frozen=True)
class Member:
    """A member as etcd lists it. `name` and `clients` are empty until it has started."""

    id: int
    name: str
    peers: tuple[str, ...]
    clients: tuple[str, ...]
    learner: bool

    @property
    def started(self) -> bool:
        return bool(self.name)

    @property
    def shown(self) -> str:
        return self.name or host(next(iter(self.peers), "")) or f"{self.id:x}"

    def is_node(self, name: str, address: str) -> bool:
        """Whether it is this node's: by its name, or before it has started by its address."""
        return self.name == name if self.name else any(host(peer) == address for peer in self.peers)


@dataclass(frozen=True)
class Step:
    """One change: a member to remove, or, without one, the node to add as a learner."""

    reason: str
    remove: Member | None = None


@dataclass(frozen=True)
class Plan(Generic[Kind]):
    """The steps, or the problem in their way, which may be over in a moment if it is `passing`, as an election is."""

    steps: tuple[Kind, ...] = ()
    problem: str = ""
    passing: bool = False


def host(url: str) -> str:
    return urlsplit(url).hostname or ""


def quorum(voters: int) -> int:
    return voters // 2 + 1


def parse(document: Mapping[str, Any]) -> list[Member]:
    """The members in the output of `etcdctl member list -w json`."""
    return [
        Member(
            int(one["ID"]),
            str(one.get("name") or ""),
            tuple(one.get("peerURLs") or ()),
            tuple(one.get("clientURLs") or ()),
            bool(one.get("isLearner")),
        )
        for one in document.get("members") or ()
    ]


def names(members: Iterable[Member]) -> str:
    return ", ".join(sorted(member.shown for member in members)) or "none"


def join(
    members: list[Member],
    healthy: Collection[int],
    name: str,
    nodes: Mapping[str, str],
    without_data: Collection[str],
) -> Plan[Step]:
    """What makes the node `name`, which has no data, a learner.

    `healthy`: ids of the members that answer. `nodes`: {name: address} of every node that should be a member.
    `without_data`: those of them that have none and will join too.
    """
    own = [member for member in members if member.is_node(name, nodes[name])]
    # Added by a run that was cut off before the node started.
    waiting = [member for member in own if member.learner and not member.started]
    steps = [
        Step(f"{member.shown} has lost its data or was replaced", member) for member in own if member not in waiting
    ]
    for member in members:
        if member in own or member.id in healthy:
            continue
        node = next((each for each, address in nodes.items() if member.is_node(each, address)), None)
        if node is None:
            steps.append(Step(f"{member.shown} is no node of this cluster and does not answer", member))
        elif member.learner and node in without_data:
            steps.append(Step(f"{member.shown} was added and never started; it joins later", member))
    removed = {step.remove.id for step in steps if step.remove}
    if not waiting:
        steps.append(Step(f"{name} has no data and is no member yet"))
    left = [member for member in members if member.id not in removed and member not in waiting]
    problem = _lost(members, healthy) or _obstacle(left, healthy, name, nodes, without_data)
    return Plan((), problem) if problem else Plan(tuple(steps))


@dataclass(frozen=True)
class Departure:
    """A member to remove. `successor`: who leads first, if it is the leader."""

    member: Member
    reason: str
    successor: Member | None = None

    @property
    def shown(self) -> str:
        return f"{self.reason}; {self.successor.shown} leads from then on" if self.successor else self.reason


@dataclass(frozen=True)
class Leaving:
    """What is removed, in this order."""

    steps: tuple[Departure, ...] = ()
    problem: str = ""


def leave(
    members: list[Member],
    healthy: Collection[int],
    leader: int,
    leaving: Mapping[str, str],
    nodes: Mapping[str, str],
    retired: Collection[int] = (),
) -> Leaving:
    """How the nodes of `leaving` cease to be members, {name: address} as `nodes`, which has those that stay.

    A member that does not answer goes first, since it costs no vote, and the leader last. `retired`: ids of those that
    leave, have a vote and serve no client any more, not even whoever asks for their health. A member that serves says
    that there is a quorum, and they are part of it, since each has joined it at its start.
    """
    going = [member for member in members if any(member.is_node(*node) for node in leaving.items())]
    if not going:
        return Leaving()
    if healthy:
        healthy = {*healthy, *retired}
    problem = _lost(members, healthy) or _costs(members, healthy, going, nodes)
    if problem:
        return Leaving((), problem)
    staying = [member for member in members if member not in going]
    going.sort(key=lambda member: (member.id in healthy, member.id == leader, member.shown))
    successor = next(member for member in sorted(staying, key=lambda member: member.shown) if not member.learner)
    return Leaving(
        tuple(
            Departure(
                member,
                "it leaves the cluster" if member.id in healthy else "it leaves the cluster, and does not answer",
                # Who serves no client takes no order to let another lead; its removal is an election then.
                successor if member.id == leader and member.id not in retired else None,
            )
            for member in going
        )
    )


def retiring(members: list[Member], healthy: Collection[int], steps: Iterable[Departure]) -> list[Member]:
    """Those of the members to remove that can serve no client any more from before they go on.

    None where a quorum would miss them while they start again. The leader among them has to follow another first.
    """
    voters = [member for member in members if not member.learner]
    if sum(member.id in healthy for member in voters) - 1 < quorum(len(voters)):
        return []
    return [step.member for step in steps if step.member in voters and step.member.id in healthy]


def _costs(members: list[Member], healthy: Collection[int], going: list[Member], nodes: Mapping[str, str]) -> str:
    """Why these members cannot be spared."""
    staying = [member for member in members if member not in going]
    has = f"etcd has {len(members)} member{'' if len(members) == 1 else 's'} ({names(members)})"
    if not any(not member.learner for member in staying):
        return (
            f"{has}, and without {names(going)} nobody has its data; let others join first (a larger "
            "k8sgu_control_plane_count)"
        )
    down = [member for member in staying if member.id not in healthy]
    if down:
        return (
            f"{has}; {names(going)} can leave only while all that stay answer, and {names(down)} does not; start etcd "
            "there first: systemctl start etcd; journalctl -u etcd"
        )
    learners = [member for member in staying if member.learner]
    if learners:
        return (
            f"{has}; {names(learners)} has no vote yet, and {names(going)} can leave only after it has; run "
            "playbooks/etcd.yml"
        )
    strange = [member for member in staying if not any(member.is_node(*node) for node in nodes.items())]
    if strange:
        return (
            f"{has}; {names(strange)} is no node of this cluster; remove it first (on another member: etcdctl member "
            "remove)"
        )
    return ""


def _lost(members: list[Member], healthy: Collection[int]) -> str:
    """The problem of a cluster that has no quorum."""
    voters = [member for member in members if not member.learner]
    up = [member for member in voters if member.id in healthy]
    if len(up) >= quorum(len(voters)):
        return ""
    return (
        f"etcd has lost its quorum: {len(up)} of {len(voters)} members answer ({names(up)}), and it needs "
        f"{quorum(len(voters))}. Start the others ({names(set(voters) - set(up))}): systemctl start etcd; journalctl "
        f"-u etcd. If their data is lost, {RESTORE}"
    )


def _obstacle(
    left: list[Member], healthy: Collection[int], name: str, nodes: Mapping[str, str], without_data: Collection[str]
) -> str:
    """Why no member can join beside those that are left."""
    coming = {member.id for member in left for each in without_data if member.is_node(each, nodes[each])}
    down = [member for member in left if member.id not in healthy and member.id not in coming]
    if down:
        return (
            f"{names(down)}: this member of etcd does not answer, and {name} joins only when all others do; start it "
            "there first: systemctl start etcd; journalctl -u etcd"
        )
    learners = [member for member in left if member.learner]
    if learners:
        return (
            f"{names(learners)}: this member of etcd is a learner still, and there can be one at a time; join it first"
        )
    voters = len(left) + 1
    up = sum(member.id in healthy for member in left) + 1
    if up < quorum(voters):
        return (
            f"with {name}, etcd has {voters} members of which {up} work, and it needs {quorum(voters)}; restore the "
            f"data of {names(member for member in left if member.id not in healthy)} first: {RECOVERY}"
        )
    return ""


def initial_cluster(members: Iterable[Member], name: str, nodes: Mapping[str, str]) -> str:
    """What the new member needs as its flag initial-cluster: every member, itself included, by name and address."""
    pairs = []
    for member in members:
        shown = name if member.is_node(name, nodes[name]) else member.shown
        pairs += [f"{shown}={peer}" for peer in member.peers]
    return ",".join(sorted(pairs))
