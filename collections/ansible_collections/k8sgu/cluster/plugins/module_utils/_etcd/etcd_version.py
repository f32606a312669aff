# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes etcd's version back or forward before its members are replaced, and waits for it afterwards."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Callable, Mapping, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import versions
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.etcdctl import EtcdError
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.members import PATIENCE_S, Members, patiently
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.options import ARGUMENT_SPECS
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.plan import Plan
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.versions import Running
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module

Lacks = Callable[[Sequence[Running], Sequence[str], str], str]


def run(call: Call) -> dict[str, Any]:
    """The module's result. Raises EtcdError."""
    version = call.options["version"]
    if not re.fullmatch(r"\d+\.\d+(\.\d+)?", version):
        raise EtcdError(f"version: {version} is no version of etcd; it has the form 3.7 or 3.7.3")
    nodes = {str(name): str(address) for name, address in call.options["nodes"].items()}
    if not nodes:
        raise EtcdError("nodes: it is empty, and has every node that is a member, with its address")
    return (_ready if call.options["state"] == "ready" else _settled)(call, Members(call.options), nodes, version)


def _ready(call: Call, members: Members, nodes: Mapping[str, str], version: str) -> dict[str, Any]:

    def look() -> tuple[list[Running], Plan[versions.Step]]:
        running, silent = _asked(members, nodes)
        return running, versions.ready(running, silent, version)

    before, made = patiently(look, min(call.options["timeout"], PATIENCE_S))
    after = before
    if call.check_mode:
        after = [_foreseen(member, made) for member in before]
    else:
        for step in made.steps:
            if step.kind == versions.RISE:
                _until(members, nodes, versions.shown(step.version), versions.lacks_settled)
            elif step.kind == versions.ENABLE:
                target = versions.shown(step.version)
                # What it would refuse is then refused before anything has changed.
                members.change(f"asking whether etcd can go back to {target}", "downgrade", "validate", target)
                members.change(f"letting etcd go back to {target}", "downgrade", "enable", target)
            else:
                _cancel(members, nodes)
        after = _until(members, nodes, version, versions.lacks_ready)
    changes = [step.shown for step in made.steps]
    return {
        "changed": any(step.kind != versions.RISE for step in made.steps),
        "plan": changes,
        **_told(after, version),
        "diff": {"before": _listed(before), "after": _listed(after)} if changes else {},
    }


def _settled(call: Call, members: Members, nodes: Mapping[str, str], version: str) -> dict[str, Any]:
    if call.check_mode:
        # Members that a run would have replaced by now are still the old ones.
        running, silent = _asked(members, nodes)
        lacking = versions.settled(running, version) or versions.lacks_settled(running, silent, version)
        wanted = versions.shown(versions.minor(version))
        made = [f"wait until etcd is at {wanted}; now: {lacking}"] if lacking else []
        return {"changed": False, "plan": made, **_told(running, version)}
    after = _until(members, nodes, version, versions.lacks_settled)
    return {"changed": False, "plan": [], **_told(after, version)}


def _asked(members: Members, nodes: Mapping[str, str]) -> tuple[list[Running], list[str]]:
    """The members that answer, and the names of the others: nodes that are none count among them."""
    running, silent = [], []
    for member, name, status in members.asked(nodes):
        if status.get("version"):
            running.append(replace(versions.parse(member, status), name=name))
        else:
            silent.append(name)
    return running, silent


def _until(members: Members, nodes: Mapping[str, str], version: str, lacks: Lacks) -> list[Running]:
    """The members, as soon as nothing is lacking."""
    while True:
        running, silent = _asked(members, nodes)
        if lacks is versions.lacks_settled:
            vain = versions.settled(running, version)
            if vain:
                raise EtcdError(vain)
        lacking = lacks(running, silent, version)
        if not lacking:
            return running
        told = "; ".join(member.shown for member in running) or "nothing"
        members.wait(f"waiting for {lacking}", told)


def _cancel(members: Members, nodes: Mapping[str, str]) -> None:
    """Ends the way back. etcd answers that it did even if it could not, so it is asked."""
    while True:
        members.change("ending etcd's way back", "downgrade", "cancel")
        running, _silent = _asked(members, nodes)
        still = [member for member in running if member.target]
        if not still:
            return
        members.wait(f"ending etcd's way back, of which {versions.names(still)} still tells", "nothing")


def _foreseen(member: Running, made: Plan[versions.Step]) -> Running:
    """The member after the plan's steps."""
    for step in made.steps:
        if step.kind == versions.ENABLE:
            version = versions.shown(step.version)
            member = replace(member, storage=f"{version}.0", target=f"{version}.0")
        elif step.kind == versions.CANCEL:
            member = replace(member, target="")
        else:
            member = replace(member, storage=f"{versions.shown(step.version)}.0")
    return member


def _told(running: Sequence[Running], version: str) -> dict[str, Any]:
    return {
        "members": {member.name: {"version": member.version, "data": member.storage} for member in running},
        "order": versions.order(running),
        "settled": not versions.settled(running, version) and not versions.lacks_settled(running, [], version),
    }


def _listed(running: Sequence[Running]) -> str:
    return "".join(sorted(f"{member.shown}\n" for member in running))


MODULE = Module(ARGUMENT_SPECS["etcd_version"], run, (EtcdError,))
