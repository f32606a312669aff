# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a node a learner of etcd, a learner a voter, and a member none."""

from __future__ import annotations

import functools
import json
import subprocess
import time
from typing import Any, Collection, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import etcdctl, plan
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.etcdctl import EtcdError
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.options import ARGUMENT_SPEC, RULES
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.plan import Member
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module

RETRY_S = 0.5
# What etcd refuses for a moment only: members that it has not heard of for five seconds, an election, a learner that is
# still behind. https://github.com/etcd-io/etcd/blob/main/api/v3rpc/rpctypes/error.go
PASSING = (
    "unhealthy cluster",
    "not enough started members",
    "leader changed",
    "no leader",
    "request timed out",
    "in sync with leader",
    "context deadline exceeded",
)
# The module of a run that was cut off may still work on its node and have done the same a moment ago.
DONE = (
    "member not found",
    "Peer URLs already exists",
    "member ID already exist",
    "can only promote a learner member",
)
FAULTS = (subprocess.SubprocessError, OSError, ValueError)


class Members:
    """etcd's members, asked from this node. Every method raises EtcdError."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._etcdctl: etcdctl.Etcdctl = functools.partial(
            etcdctl.run, program=options["etcdctl"], environment=options["environment"]
        )
        self._deadline = time.monotonic() + options["timeout"]
        self._timeout = options["timeout"]

    def read(self) -> list[Member]:
        # Serializable, since without a quorum the list is needed most.
        try:
            return plan.parse(json.loads(self._etcdctl("member", "list", "--consistency=s", "-w", "json")))
        except FAULTS as error:
            raise EtcdError(f"etcd does not list its members: {etcdctl.reason(error)}") from error

    def healthy(self, members: list[Member]) -> set[int]:
        """Ids of the members that answer. A learner answers only as one: it serves no linearizable read."""
        found = set()
        for member in members:
            if not member.clients:
                continue
            kind = ("endpoint", "status") if member.learner else ("endpoint", "health")
            try:
                self._etcdctl(*kind, "--command-timeout=5s", "-w", "json", endpoints=",".join(member.clients))
                found.add(member.id)
            except FAULTS:
                continue
        return found

    def leader(self, members: list[Member], healthy: Collection[int]) -> int:
        """The leader's id, as a member that answers says it. 0 if there is none for the moment."""
        clients = [client for member in members if member.id in healthy for client in member.clients]
        try:
            status = json.loads(self._etcdctl("endpoint", "status", "-w", "json", endpoints=clients[0]))
            return int(status[0]["Status"]["leader"])
        except (*FAULTS, LookupError):
            return 0

    def lead(self, leader: Member, successor: Member) -> None:
        """Moves the leadership. Only the leader itself takes the order."""
        doing = f"letting {successor.shown} lead instead of {leader.shown}"
        while True:
            said = "nothing"
            try:
                self._etcdctl("move-leader", f"{successor.id:x}", endpoints=",".join(leader.clients))
            except FAULTS as error:
                said = etcdctl.reason(error)
            if self.leader([successor], {successor.id}) not in (0, leader.id):
                return
            self._wait(doing, said)

    def settle(self, when: str, without: Collection[int]) -> None:
        """Waits until every member answers, but for those `without`, by id."""
        while True:
            there = [member for member in self.read() if member.id not in without]
            healthy = self.healthy(there)
            silent = [member for member in there if member.id not in healthy]
            if not silent:
                return
            self._wait(f"waiting {when} for {plan.names(silent)} to answer", "nothing")

    def _wait(self, doing: str, said: str) -> None:
        if time.monotonic() > self._deadline:
            raise EtcdError(f"{doing}: not done within {self._timeout} s (timeout); etcd says: {said}")
        time.sleep(RETRY_S)

    def change(self, doing: str, *arguments: str) -> None:
        """Runs a command, again while etcd refuses it for a moment."""
        while True:
            try:
                self._etcdctl(*arguments)
                return
            except FAULTS as error:
                said = etcdctl.reason(error)
                if said.endswith(DONE):
                    return
                if not any(passing in said for passing in PASSING):
                    raise EtcdError(f"{doing}: {said}") from error
            self._wait(doing, said)


def run(call: Call) -> dict[str, Any]:
    """The module's result. Raises EtcdError."""
    nodes = _addresses(call.options["nodes"])
    if call.options["state"] == "absent":
        return _absent(call, Members(call.options), _addresses(call.options["leaving"]), nodes)
    name = call.options["name"]
    if name not in nodes:
        raise EtcdError(f"name: {name} is not among nodes ({', '.join(sorted(nodes)) or 'none'})")
    members = Members(call.options)
    if call.options["state"] == "learner":
        return _learner(call, members, name, nodes)
    return _voter(call, members, name, nodes)


def _learner(call: Call, members: Members, name: str, nodes: Mapping[str, str]) -> dict[str, Any]:
    before = members.read()
    made = plan.join(before, members.healthy(before), name, nodes, call.options["without_data"])
    if made.problem:
        raise EtcdError(f"nothing was changed: {made.problem}")
    peer = f"https://{nodes[name]}:{call.options['peer_port']}"
    done = []
    for step in made.steps:
        done.append(f"{'remove' if step.remove else 'add'} {step.remove.shown if step.remove else name}: {step.reason}")
        if call.check_mode:
            continue
        if step.remove:
            members.change(f"removing the member {step.remove.shown}", "member", "remove", f"{step.remove.id:x}")
        else:
            members.change(f"adding {name}", "member", "add", name, "--learner", f"--peer-urls={peer}")
    after = before if call.check_mode else members.read()
    # What a run would see that is not only a check.
    removed = {step.remove.id for step in made.steps if step.remove}
    after = [member for member in after if member.id not in removed]
    if call.check_mode and any(step.remove is None for step in made.steps):
        after.append(Member(0, "", (peer,), (), learner=True))
    return _result(before, after, name, nodes, done)


def _voter(call: Call, members: Members, name: str, nodes: Mapping[str, str]) -> dict[str, Any]:
    before = members.read()
    own = [member for member in before if member.is_node(name, nodes[name])]
    if not own and not call.check_mode:
        raise EtcdError(f"{name} is no member of etcd, which has {plan.names(before)}; add it first (state: learner)")
    done = [f"promote {member.shown}: it has the data" for member in own if member.learner]
    if not done or call.check_mode:
        return _result(before, before, name, nodes, done)
    members.change(f"making {name} a voter", "member", "promote", f"{own[0].id:x}")
    return _result(before, members.read(), name, nodes, done)


def _addresses(option: Mapping[str, Any]) -> dict[str, str]:
    return {str(name): str(address) for name, address in option.items()}


def _absent(call: Call, members: Members, leaving: Mapping[str, str], nodes: Mapping[str, str]) -> dict[str, Any]:
    both = sorted(set(leaving) & set(nodes))
    if both:
        raise EtcdError(f"leaving: {', '.join(both)} is among nodes too, which are those that stay")
    before = members.read()
    healthy = members.healthy(before)
    made = plan.leave(before, healthy, members.leader(before, healthy), leaving, nodes)
    if made.problem:
        raise EtcdError(f"nothing was changed: {made.problem}")
    done = []
    gone = {step.member.id: step.shown for step in made.steps}
    for step in made.steps:
        shown = step.member.shown
        if step.successor:
            done.append(f"let {step.successor.shown} lead: {shown} is the leader and leaves")
            if not call.check_mode:
                members.lead(step.member, step.successor)
        done.append(f"remove {shown}: {step.reason}")
        if not call.check_mode:
            members.change(f"removing the member {shown}", "member", "remove", f"{step.member.id:x}")
            members.settle(f"after {shown} was removed", gone)
    after = [member for member in before if member.id not in gone] if call.check_mode else members.read()
    return {
        "changed": bool(done),
        "plan": done,
        "members": sorted(member.shown for member in after),
        "diff": {"before": _listed(before, notes=gone), "after": _listed(after)} if done else {},
    }


def _result(
    before: list[Member], after: list[Member], name: str, nodes: Mapping[str, str], done: list[str]
) -> dict[str, Any]:
    return {
        "changed": bool(done),
        "plan": done,
        "member": next((f"{member.id:x}" for member in after if member.id and member.is_node(name, nodes[name])), ""),
        "members": sorted(member.shown for member in after),
        "initial_cluster": plan.initial_cluster(after, name, nodes),
        "diff": {"before": _listed(before), "after": _listed(after, name, nodes)} if done else {},
    }


def _listed(
    members: list[Member],
    name: str = "",
    nodes: Mapping[str, str] | None = None,
    notes: Mapping[int, str] | None = None,
) -> str:
    """Members as lines of a diff; `notes` has reasons by member."""
    lines = []
    for member in members:
        shown = name if nodes and member.is_node(name, nodes[name]) else member.shown
        note = f"  # {notes[member.id]}" if notes and member.id in notes else ""
        lines.append(f"{shown} {' '.join(member.peers)}{' (learner)' if member.learner else ''}{note}\n")
    return "".join(sorted(lines))


MODULE = Module(ARGUMENT_SPEC, run, (EtcdError,), RULES)
