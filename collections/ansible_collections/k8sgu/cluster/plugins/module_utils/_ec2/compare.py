# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The account beside the description, without a change: what the plan would mend, and what it leaves alone."""

from __future__ import annotations

from typing import Any, Iterator

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import (
    aside,
    cluster,
    groups,
    names,
    plan,
    session,
    tags,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.aside import Difference
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.network import route_tables
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes import launch, offers
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.instances import Instance
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.plan import Facts
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.reader import Reader

# What differs, by the kind of resource ("instance") and by what would be done to it.
KINDS = {
    "instance": {plan.CREATE: "instance-missing", plan.DELETE: "instance-unknown", plan.UPDATE: "instance-changed"},
    "volume": {plan.DELETE: "volume-left", plan.UPDATE: "volume-changed"},
    "route": {plan.CREATE: "route-missing", plan.DELETE: "route-added", plan.UPDATE: "route-changed"},
    "tags": {plan.UPDATE: "tag-missing"},
    **{kind: {plan.UPDATE: "instance-changed"} for kind in ("source-dest-check", "metadata-options", "groups")},
}
OTHERS = {
    **dict.fromkeys((plan.CREATE, plan.ATTACH), "resource-missing"),
    **dict.fromkeys((plan.DELETE, plan.DETACH), "resource-unknown"),
    **dict.fromkeys((plan.UPDATE, plan.REPLACE), "resource-changed"),
}
EXPECTED = {
    **dict.fromkeys((plan.CREATE, plan.ATTACH), "there, as the description says"),
    **dict.fromkeys((plan.DELETE, plan.DETACH), "none"),
    **dict.fromkeys((plan.UPDATE, plan.REPLACE), "as the description says"),
}


def compared(aws: session.Aws, description: Description) -> tuple[dict[str, Any], list[str]]:
    """The module's result and its warnings. Raises AwsError and DescriptionError."""
    current = cluster.read(aws, description, removing=False, comparing=True)
    reader = Reader(aws, description.name)
    around = aside.read(reader, description.name, current)
    cluster.check(description, current)
    surplus = take_out_twins(current)
    made = cluster.make(description, current, Facts(offers.zones_of(reader, description, current)), comparing=True)
    known = {node.name: node.role for node in made.nodes}
    known.update({names.bastion(description.name): tags.BASTION} if description.has_bastion else {})
    found = [*of_twins(surplus), *of_plan(made, current), *aside.differences(current, made, around)]
    result = {
        "changed": False,
        "plan": [step.shown() for step in made.changes],
        "differences": [item.shown() for item in found],
        "instances": [_instance(item, known) for item in [*current.nodes().values(), *surplus]],
        "described": known,
        "api_calls": len(aws.calls),
    }
    return result, made.warnings


def take_out_twins(current: Current) -> list[Instance]:
    """The instances of ours that have no name of their own, which a plan would refuse; they are out of `current` then.

    Of two with one name the elder counts as the node. EC2 tells launch times in whole seconds: of two that are as old,
    it is the one with a role, which a copy made by hand lacks.
    """
    alive = sorted(
        (item for item in current.instances if item.alive),
        key=lambda item: (item.launched, tags.ROLE not in item.tags, item.id),
    )
    seen: set[str] = set()
    surplus = []
    for item in alive:
        if not item.name or item.name in seen:
            surplus.append(item)
        seen.add(item.name)
    current.instances[:] = [item for item in current.instances if item not in surplus]
    return surplus


def of_twins(surplus: list[Instance]) -> Iterator[Difference]:
    for item in surplus:
        seen = f"{item.id} is {item.state} and has the name of another one" if item.name else f"{item.id} has no Name"
        yield Difference("instance-unknown", f"instance/{item.name or item.id}", "none", seen)


def of_plan(made: plan.Plan, current: Current) -> Iterator[Difference]:
    """What the steps of a plan would mend, a rule at a time."""
    of_group = {group.id: group.name for group in current.groups}
    replaced = {step.resource for step in made.of(launch.Replace)}
    for step in made.changes:
        where = step.resource
        if isinstance(step, route_tables.PutRoute) and step.target in replaced:
            continue  # The instance that is there has its route.
        if isinstance(step, groups.Revoke):
            group = made.ids.get(step.reference, "")
            for rule in step.rules:
                peer = of_group.get(rule.peer, rule.peer)
                seen = groups.shown(rule._replace(peer=peer))
                yield Difference("rule-added", of_group.get(group, where), "no rule of the port table", seen)
        elif isinstance(step, groups.Authorize):
            # A public address that is yet to come is no rule that is missing.
            for wanted in (rule for rule in step.rules if not rule.peer.startswith("public-ip/")):
                expected = groups.shown(groups.Rule(wanted.protocol, wanted.first, wanted.last, wanted.peer))
                yield Difference("rule-missing", where, expected, "none")
        else:
            kind = KINDS.get(where.partition("/")[0], {}).get(step.action, OTHERS[step.action])
            if isinstance(step, launch.Replace):
                kind = "instance-changed"
            yield Difference(kind, where, EXPECTED[step.action], _seen(step))


def _seen(step: plan.Step) -> str:
    if isinstance(step, route_tables.DeleteRoute):
        return f"a route to {step.destination}; {step.reason}"
    id = getattr(step, "id", "")
    return f"{id}: {step.reason}" if id and step.action == plan.DELETE else step.reason


def _instance(item: Instance, known: dict[str, str]) -> dict[str, Any]:
    return {
        "name": item.name,
        "instance_id": item.id,
        "state": item.state,
        "private_ip": item.private_ip,
        "role": item.tags.get(tags.ROLE, ""),
        "described": item.name in known,
    }
