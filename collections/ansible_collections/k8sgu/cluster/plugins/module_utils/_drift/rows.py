# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node is one row with three columns (EC2, Kubernetes, etcd), and a row with a hole is drift. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Iterator, Mapping, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._drift.findings import Finding
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.machine import machine
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.readiness import condition

CONTROL_PLANE, WORKER = "control_plane", "worker"
UNKNOWN, NONE = "unknown", "-"


@dataclass(frozen=True)
class Column:
    """What one of the three answered; `problem` says why it did not."""

    items: Sequence[Mapping[str, Any]] = ()
    problem: str = ""


@dataclass(frozen=True)
class Asked:
    """`described`: {name: role}. `instances`, `nodes` (Node objects) and `members` are the three columns."""

    described: Mapping[str, str]
    instances: Column
    nodes: Column
    members: Column


@dataclass
class Row:
    name: str
    ec2: str = NONE
    kubernetes: str = NONE
    etcd: str = NONE
    holes: list[Finding] = field(default_factory=list)

    def shown(self) -> dict[str, str]:
        return {"node": self.name, "ec2": self.ec2, "kubernetes": self.kubernetes, "etcd": self.etcd}


def rows(asked: Asked) -> list[Row]:
    """A row for every name that is described, or that one of the columns has."""
    instances = {item["name"] or item["instance_id"]: item for item in _twins_last(asked.instances.items)}
    nodes = {item["metadata"]["name"]: item for item in asked.nodes.items}
    members = {_named(member, instances): member for member in asked.members.items}
    # A bastion is neither a node nor a member.
    names = sorted({*asked.described, *instances, *nodes, *members})
    return [_row(name, asked, instances, nodes, members) for name in names]


def _twins_last(items: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """With another key for the later of two instances of one name."""
    seen: set[str] = set()
    for item in items:
        yield {**item, "name": f"{item['name']} ({item['instance_id']})"} if item["name"] in seen else item
        seen.add(item["name"])


def _named(member: Mapping[str, Any], instances: Mapping[str, Mapping[str, Any]]) -> str:
    """A member's own name; one that has never started has none and is known by its address."""
    by_address = {item["private_ip"]: name for name, item in instances.items() if item["private_ip"]}
    return str(member["name"] or by_address.get(member["address"]) or member["address"])


def _row(
    name: str,
    asked: Asked,
    instances: Mapping[str, Mapping[str, Any]],
    nodes: Mapping[str, Mapping[str, Any]],
    members: Mapping[str, Mapping[str, Any]],
) -> Row:
    instance, node, member = instances.get(name), nodes.get(name), members.get(name)
    role = asked.described.get(name, "")
    row = Row(name)
    row.ec2 = UNKNOWN if asked.instances.problem else instance["state"] if instance else NONE
    row.kubernetes = UNKNOWN if asked.nodes.problem else standing(node) if node else NONE
    row.etcd = UNKNOWN if asked.members.problem else _vote(member) if member else NONE
    if not asked.instances.problem and not asked.nodes.problem:
        row.holes += _of_node(name, role, instance, node)
    if not asked.instances.problem and not asked.members.problem:
        row.holes += _of_member(name, role, instance, member)
    return row


def _of_node(
    name: str, role: str, instance: Mapping[str, Any] | None, node: Mapping[str, Any] | None
) -> Iterator[Finding]:
    if node and not instance:
        yield Finding("node-without-instance", name, "an instance", f"a Node object, {standing(node)}, and no instance")
    elif node and instance:
        registered = machine(node)
        if registered and registered != instance["instance_id"]:
            yield Finding(
                "node-of-another-instance", name, instance["instance_id"], f"the Node object is {registered}'s"
            )
    elif instance and role in (CONTROL_PLANE, WORKER):
        yield Finding("instance-without-node", name, "a Node object", f"{instance['instance_id']} and no Node object")


def _of_member(
    name: str, role: str, instance: Mapping[str, Any] | None, member: Mapping[str, Any] | None
) -> Iterator[Finding]:
    if member:
        there = f"{_vote(member)} {member['name'] or 'without a name'} at {member['address']}"
        if not instance or role != CONTROL_PLANE:
            yield Finding("member-without-node", name, "a control-plane node", there)
        elif instance["private_ip"] and member["address"] != instance["private_ip"]:
            yield Finding("member-without-node", name, f"a member at {instance['private_ip']}", there)
        elif member["learner"]:
            yield Finding("member-without-vote", name, "a member with a vote", there)
    elif instance and role == CONTROL_PLANE:
        yield Finding("node-without-member", name, "a member of etcd", "none")


def standing(node: Mapping[str, Any]) -> str:
    """Ready or NotReady, as `kubectl get nodes` says it."""
    text = "Ready" if condition(node, "Ready").get("status") == "True" else "NotReady"
    return f"{text}, cordoned" if (node.get("spec") or {}).get("unschedulable") else text


def _vote(member: Mapping[str, Any]) -> str:
    return "learner" if member["learner"] else "voter"
