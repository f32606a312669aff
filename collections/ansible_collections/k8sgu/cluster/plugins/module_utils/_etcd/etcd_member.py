# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a node a learner of etcd, a learner a voter, and a member none."""

from __future__ import annotations

from typing import Any, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import plan
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.etcdctl import EtcdError
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.members import Members
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.options import ARGUMENT_SPECS, RULES
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.plan import Member
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module


def run(call: Call) -> dict[str, Any]:
    """The module's result. Raises EtcdError."""
    nodes = _addresses(call.options["nodes"])
    if call.options["state"] in ("follower", "absent"):
        return _leave(call, Members(call.options), _addresses(call.options["leaving"]), nodes)
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


def _leave(call: Call, members: Members, leaving: Mapping[str, str], nodes: Mapping[str, str]) -> dict[str, Any]:
    both = sorted(set(leaving) & set(nodes))
    if both:
        raise EtcdError(f"leaving: {', '.join(both)} is among nodes too, which are those that stay")
    unknown = sorted(set(call.options["retired"]) - set(leaving))
    if unknown:
        raise EtcdError(f"retired: {', '.join(unknown)} is not among leaving ({', '.join(sorted(leaving))})")
    before = members.read()
    retired = {member.id for member in before if member.name in call.options["retired"]}
    healthy = members.healthy([member for member in before if member.id not in retired])
    leader = members.leader(before, healthy)
    made = plan.leave(before, healthy, leader, leaving, nodes, retired)
    if made.problem:
        raise EtcdError(f"nothing was changed: {made.problem}")
    if call.options["state"] == "follower":
        return _follow(call, members, made, plan.retiring(before, healthy, made.steps))
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


def _follow(call: Call, members: Members, made: plan.Leaving, retiring: list[Member]) -> dict[str, Any]:
    done = []
    diff = {}
    for step in made.steps:
        if step.successor:
            done.append(f"let {step.successor.shown} lead: {step.member.shown} is the leader and leaves")
            diff = {"before": f"{step.member.shown} leads\n", "after": f"{step.successor.shown} leads\n"}
            if not call.check_mode:
                members.lead(step.member, step.successor)
    return {
        "changed": bool(done),
        "plan": done,
        "retiring": sorted(member.shown for member in retiring),
        "diff": diff,
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


MODULE = Module(ARGUMENT_SPECS["etcd_member"], run, (EtcdError,), RULES)
