# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""etcd's members, asked and changed from a node."""

from __future__ import annotations

import functools
import json
import subprocess
import time
from typing import Any, Callable, Collection, Mapping, TypeVar

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import etcdctl, plan
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.etcdctl import EtcdError
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.plan import Kind, Member, Plan

RETRY_S = 0.5
# An election takes a second or two; on a busy machine there may be several.
PATIENCE_S = 10
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
    "cluster has a downgrade job in progress",
    "required revision has been compacted",
)
FAULTS = (subprocess.SubprocessError, OSError, ValueError)


Read = TypeVar("Read")


def patiently(look: Callable[[], tuple[Read, Plan[Kind]]], patience: float) -> tuple[Read, Plan[Kind]]:
    """What was read, and a plan without a problem; read again for `patience` seconds while its problem may pass.

    Raises EtcdError.
    """
    deadline = time.monotonic() + patience
    while True:
        read, made = look()
        if not made.problem:
            return read, made
        if not made.passing or time.monotonic() > deadline:
            raise EtcdError(f"nothing was changed: {made.problem}")
        time.sleep(RETRY_S)


class Members:
    """etcd's members, asked from this node. Every method raises EtcdError."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._etcdctl: etcdctl.Etcdctl = functools.partial(
            etcdctl.run, program=options["etcdctl"], environment=options["environment"]
        )
        self._deadline = time.monotonic() + options["timeout"]
        self._timeout = options["timeout"]

    def read(self, patience: float = 0) -> list[Member]:
        """etcd's list, asked again for `patience` seconds if nothing answers."""
        deadline = time.monotonic() + patience
        while True:
            # Serializable, since without a quorum the list is needed most.
            try:
                return plan.parse(json.loads(self._etcdctl("member", "list", "--consistency=s", "-w", "json")))
            except FAULTS as error:
                if time.monotonic() >= deadline:
                    raise EtcdError(f"etcd does not list its members: {etcdctl.reason(error)}") from error
            time.sleep(RETRY_S)

    def asked(self, nodes: Mapping[str, str]) -> list[tuple[Member, str, dict[str, Any]]]:
        """Every member, with its node's name and what it says of itself, which is nothing if it does not answer.

        `nodes` has addresses by name; one of them that is no member is an error. Others are named as etcd does.
        """
        listed = self.read(PATIENCE_S)
        told = []
        for member in listed:
            name = next((name for name, address in nodes.items() if member.is_node(name, address)), member.shown)
            told.append((member, name, self.status(member)))
        missing = sorted(set(nodes) - {name for _member, name, _status in told})
        if missing:
            raise EtcdError(
                f"nothing was changed: {', '.join(missing)} is no member of etcd, which has {plan.names(listed)}; let "
                "it join first: playbooks/etcd.yml"
            )
        return told

    def healthy(self, members: list[Member]) -> set[int]:
        """Ids of the members that answer. A learner answers only as one: it serves no linearizable read."""
        found = set()
        for member in members:
            if not member.clients:
                continue
            asked = ("endpoint", "status", "--command-timeout=5s", "-w", "json") if member.learner else etcdctl.SERVES
            try:
                self._etcdctl(*asked, endpoints=",".join(member.clients))
                found.add(member.id)
            except FAULTS:
                continue
        return found

    def leader(self, members: list[Member], healthy: Collection[int]) -> int:
        """The leader's id, as a member that answers says it. 0 if there is none for the moment."""
        asked = next((member for member in members if member.id in healthy and member.clients), None)
        return int(self.status(asked).get("leader") or 0) if asked else 0

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
            self.wait(doing, said)

    def settle(self, when: str, without: Collection[int]) -> None:
        """Waits until every member answers, but for those `without`, by id."""
        while True:
            there = [member for member in self.read() if member.id not in without]
            healthy = self.healthy(there)
            silent = [member for member in there if member.id not in healthy]
            if not silent:
                return
            self.wait(f"waiting {when} for {plan.names(silent)} to answer", "nothing")

    def status(self, member: Member) -> dict[str, Any]:
        """What a member says of itself; empty if it does not answer."""
        if not member.clients:
            return {}
        try:
            asked = ("endpoint", "status", "--command-timeout=5s", "-w", "json")
            return dict(json.loads(self._etcdctl(*asked, endpoints=",".join(member.clients)))[0]["Status"])
        except (*FAULTS, LookupError):
            return {}

    def leads(self) -> bool:
        """Whether this node's own member is the leader."""
        try:
            said = json.loads(self._etcdctl("endpoint", "status", "--command-timeout=5s", "-w", "json"))[0]["Status"]
            return int(said["leader"]) == int(said["header"]["member_id"])
        except (*FAULTS, LookupError) as error:
            raise EtcdError(f"etcd on this node does not say who leads: {etcdctl.reason(error)}") from error

    def defragment(self, member: Member) -> None:
        """Writes a member's file anew, without its free pages. It serves nobody meanwhile."""
        try:
            self._etcdctl(
                "defrag",
                f"--command-timeout={self._timeout}s",
                endpoints=",".join(member.clients[:1]),
                timeout=self._timeout + etcdctl.COMMAND_TIMEOUT_S,
            )
        except FAULTS as error:
            raise EtcdError(f"defragmenting {member.shown}: {etcdctl.reason(error)}") from error

    def compact(self, revision: int) -> None:
        """Takes out what was overwritten or deleted before `revision`, and returns when it is out of the file."""
        asked = ("compact", str(revision), "--physical", f"--command-timeout={self._timeout}s")
        self.change("compacting etcd's history", *asked, seconds=self._timeout + etcdctl.COMMAND_TIMEOUT_S)

    def wait(self, doing: str, said: str) -> None:
        """Pauses before the next attempt. Raises EtcdError when the time is over; `said` is what etcd answered."""
        if time.monotonic() > self._deadline:
            raise EtcdError(f"{doing}: not done within {self._timeout} s (timeout); etcd says: {said}")
        time.sleep(RETRY_S)

    def change(self, doing: str, *arguments: str, seconds: float = etcdctl.COMMAND_TIMEOUT_S) -> None:
        """Runs a command that may take some `seconds`, again while etcd refuses it for a moment."""
        while True:
            try:
                self._etcdctl(*arguments, timeout=seconds)
                return
            except FAULTS as error:
                said = etcdctl.reason(error)
                if said.endswith(DONE):
                    return
                if not any(passing in said for passing in PASSING):
                    raise EtcdError(f"{doing}: {said}") from error
            self.wait(doing, said)
