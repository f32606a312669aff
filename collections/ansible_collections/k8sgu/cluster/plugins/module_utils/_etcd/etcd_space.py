# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Gives back what etcd's files have free, one member after another, and clears the alarm of a full one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Mapping, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import space
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.etcdctl import EtcdError
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.members import PATIENCE_S, Members, patiently
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.options import ARGUMENT_SPECS
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.plan import Plan
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.space import Room
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module


def run(call: Call) -> dict[str, Any]:
    """The module's result. Raises EtcdError."""
    percent = call.options["percent"]
    if not 1 <= percent <= 99:
        raise EtcdError(f"percent: {percent}; choose from 1 to 99")
    nodes = {str(name): str(address) for name, address in call.options["nodes"].items()}
    members = Members(call.options)
    writable = call.options["state"] == "writable"

    def look() -> tuple[list[Room], Plan[space.Step]]:
        rooms, silent = _rooms(members, nodes)
        return rooms, space.plan(rooms, silent, percent, writable)

    before, made = patiently(look, min(call.options["timeout"], PATIENCE_S))
    after = before
    if call.check_mode:
        free = {step.name for step in made.steps if step.kind == space.DEFRAGMENT}
        # What the history holds is not known before it is gone.
        after = [replace(room, size=room.used if room.name in free else room.size, full=False) for room in before]
    else:
        for step in made.steps:
            # Each with its own time.
            _take(step, Members(call.options), nodes, before)
        if made.steps:
            after = _rooms(members, nodes)[0]
    return {
        "changed": bool(made.steps),
        "plan": [step.shown for step in made.steps],
        "members": {
            room.name: {"size": room.size, "used": room.used, "quota": room.quota, "told": room.shown} for room in after
        },
        "alarm": any(room.full for room in after),
        "advice": space.advice(after),
        "freed": sum(room.size for room in before) - sum(room.size for room in after),
        "diff": {"before": _listed(before), "after": _listed(after)} if made.steps else {},
    }


def _take(step: space.Step, members: Members, nodes: Mapping[str, str], before: Sequence[Room]) -> None:
    """Takes a step of the plan that was made for the members as they were `before`."""
    by_name = {room.name: room.member for room in before}
    if step.kind == space.COMPACT:
        members.compact(max(room.revision for room in before))
    elif step.kind == space.MOVE:
        # As it is now: an election may have moved it already.
        leader = next((room for room in _rooms(members, nodes)[0] if room.leads), None)
        if leader and leader.name != step.name:
            members.lead(leader.member, by_name[step.name])
    elif step.kind == space.DEFRAGMENT:
        # Never a second one while one does not answer, whoever defragments it.
        members.settle(f"before {step.name} is defragmented", ())
        members.defragment(by_name[step.name])
        members.settle(f"after {step.name} was defragmented", ())
    else:
        problem = space.still_full(_rooms(members, nodes)[0])
        if problem:
            raise EtcdError(problem)
        members.change(f"clearing the alarm {space.NOSPACE}", "alarm", "disarm")


def _rooms(members: Members, nodes: Mapping[str, str]) -> tuple[list[Room], list[str]]:
    """The members that answer, and the names of the others."""
    rooms, silent = [], []
    for member, name, status in members.asked(nodes):
        try:
            rooms.append(space.parse(member, name, status))
        except (KeyError, TypeError, ValueError):
            if status:
                raise EtcdError(
                    f"{name}: etcd {status.get('version')} does not tell its quota; 3.6 is the first"
                ) from None
            silent.append(name)
    return rooms, silent


def _listed(rooms: Sequence[Room]) -> str:
    return "".join(sorted(f"{room.shown}{', takes no writes' if room.full else ''}\n" for room in rooms))


MODULE = Module(ARGUMENT_SPECS["etcd_space"], run, (EtcdError,))
