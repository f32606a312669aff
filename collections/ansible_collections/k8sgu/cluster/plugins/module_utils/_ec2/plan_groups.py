# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans the security groups: one for each role of node and one for the load balancer, with the port table's rules."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Iterable

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster import ports as port_table
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import names, plan, state, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.plan_network import outside

API = "api"
# The default quota of inbound rules of a group:
# https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html#vpc-limits-security-groups
RULES_QUOTA = 60
# The listener of a row is on these nodes, the group of these is:
GROUP_OF = {port_table.CONTROL_PLANE: tags.CONTROL_PLANE, port_table.WORKER: tags.WORKER, port_table.LOAD_BALANCER: API}


@dataclass(frozen=True)
class WantedRule:
    """A rule to have.

    `peer` is a range, or the reference of a group ("security-group/worker"), or the public address of a node
    ("public-ip/NAME").
    """

    protocol: str
    first: int
    last: int
    peer: str
    why: str


def roles_wanted(description: Description) -> list[str]:
    if not description.pools:
        return []
    return [tags.CONTROL_PLANE, tags.WORKER, *([API] if description.balanced else [])]


def rules_wanted(description: Description, role: str, nodes: Iterable[str], internet_facing: bool) -> list[WantedRule]:
    """The rules of the group of `role`, each peer once for the same ports. `nodes` are the names of all nodes."""
    rules: dict[tuple[str, int, int, str], WantedRule] = {}
    for row in port_table.ports(description.pod_network):
        if row.bind != "any" or role not in {GROUP_OF[node] for node in row.nodes}:
            continue
        first, last = (-1, -1) if row.protocol == "icmp" else (row.first, row.last)
        peers: list[str] = []
        for source in row.sources:
            if source == port_table.ADMIN:
                peers += description.admin_cidrs
            elif source == port_table.NODE_PORT_CLIENTS:
                peers += description.node_port_cidrs
            elif source == port_table.PODS:
                # Their own addresses are seen in a routed network alone; otherwise nodes stand in for their pods.
                peers += [description.pod_cidr] if description.pod_network == "routed" else []
            elif source != port_table.LOAD_BALANCER or description.balanced:
                peers.append(f"security-group/{GROUP_OF[source]}")
        if role == API and internet_facing:
            # To public addresses of the load balancer a node speaks from its own public address, which no group
            # stands for.
            peers += [f"public-ip/{name}" for name in nodes]
        for peer in peers:
            rules.setdefault((row.protocol, first, last, peer), WantedRule(row.protocol, first, last, peer, row.why))
    return list(rules.values())


def plan_groups(draft: plan.Draft, nodes: list[plan.Node]) -> None:
    """Groups first, then rules, which name groups; all rules of a group that are new in one step."""
    vpc = draft.current.vpc
    there = {
        group.tags.get(tags.ROLE, ""): group
        for group in sorted(draft.current.groups, key=lambda group: group.id, reverse=True)
        if vpc and group.vpc_id == vpc.id
    }
    wanted = [] if draft.removing else roles_wanted(draft.description)
    for role in wanted:
        reference = f"security-group/{role}"
        group = there.get(role)
        name = names.security_group(draft.cluster, role)
        group_tags = draft.tags(name, role=role)
        if group:
            draft.know(reference, group.id)
            draft.keep_tags(reference, group.id, group.tags, group_tags)
        else:
            draft.add(
                plan.CREATE,
                reference,
                plan.MISSING,
                "create_group",
                ["create vpc"],
                reference=reference,
                name=name,
                tags=group_tags,
            )
    for role in wanted:
        _rules(draft, role, there.get(role), nodes)


def _rules(draft: plan.Draft, role: str, group: state.SecurityGroup | None, nodes: list[plan.Node]) -> None:
    reference = f"security-group/{role}"
    alive = draft.current.nodes()
    have = group.rules if group else {}
    wanted = rules_wanted(draft.description, role, [node.name for node in nodes], outside(draft))
    lacking: list[WantedRule] = []
    later: list[WantedRule] = []  # need the address of a node that is yet to be launched
    kept: set[state.Rule] = set()
    for rule in wanted:
        peer = rule.peer
        if peer.startswith("security-group/"):
            peer = draft.known(peer)
        elif peer.startswith("public-ip/"):
            name = peer.partition("/")[2]
            instance = alive.get(name)
            if not instance or not instance.public_ip or name in draft.replaced:
                later.append(rule)
                continue
            peer = f"{instance.public_ip}/32"
            rule = replace(rule, peer=peer)
        exact = state.Rule(rule.protocol, rule.first, rule.last, peer)
        if peer and exact in have:
            kept.add(exact)
        else:
            lacking.append(rule)
    groups = [f"create security-group/{other}" for other in GROUP_OF.values()]
    if lacking:
        draft.add(
            plan.UPDATE,
            f"rules/{role}",
            f"{_count(len(lacking))} of the port table {'is' if len(lacking) == 1 else 'are'} missing: "
            f"{_summary(lacking)}",
            "authorize",
            groups,
            reference=reference,
            rules=lacking,
        )
    if later:
        launches = [f"create instance/{node.name}" for node in nodes] + [
            f"replace instance/{node.name}" for node in nodes
        ]
        draft.add(
            plan.UPDATE,
            f"rules/{role}/nodes",
            f"admit the public addresses of {len(later)} new nodes",
            "authorize",
            [*groups, *launches, "update wait/instances"],
            reference=reference,
            rules=later,
        )
    surplus = sorted(have.keys() - kept)
    if surplus:
        draft.add(
            plan.DELETE,
            f"rules/{role}",
            f"{_count(len(surplus))} not in the port table: "
            + ", ".join(f"{rule.protocol} {rule.first}-{rule.last} from {rule.peer}" for rule in surplus[:5])
            + (" ..." if len(surplus) > 5 else ""),
            "revoke",
            [f"update rules/{role}"],
            reference=reference,
            rules={rule: have[rule] for rule in surplus},
        )


def _count(number: int) -> str:
    return "1 rule" if number == 1 else f"{number} rules"


def _summary(rules: list[WantedRule]) -> str:
    parts = []
    for rule in rules:
        ports = (
            ""
            if rule.protocol == "icmp"
            else f" {rule.first}"
            if rule.first == rule.last
            else f" {rule.first}-{rule.last}"
        )
        parts.append(f"{rule.protocol}{ports} from {rule.peer.rpartition('security-group/')[2]}")
    return ", ".join(parts[:4]) + (" ..." if len(parts) > 4 else "")
