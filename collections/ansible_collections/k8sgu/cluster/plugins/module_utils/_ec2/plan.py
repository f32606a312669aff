# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A plan: the ordered steps from what there is to what there should be. Data alone; `execution` carries them out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import names, state, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description

CREATE, UPDATE, DELETE, REPLACE, ATTACH, DETACH = "create", "update", "delete", "replace", "attach", "detach"
MISSING = "the description has it and the account does not"
SURPLUS = "the description does not have it"


@dataclass(frozen=True)
class Step:
    """One change.

    `call` names its handler, `arguments` are the handler's; `after` are the keys of steps that must have been carried
    out before. A `quiet` step changes nothing (it waits) and is no part of the plan that the user sees.
    """

    resource: str
    action: str
    reason: str
    call: str
    arguments: Mapping[str, Any]
    after: tuple[str, ...] = ()
    quiet: bool = False

    @property
    def key(self) -> str:
        return f"{self.action} {self.resource}"

    def shown(self) -> dict[str, str]:
        return {"resource": self.resource, "action": self.action, "reason": self.reason}


@dataclass(frozen=True)
class Node:
    """A node that there should be, with what has been decided for it."""

    name: str
    role: str
    pool: str
    zone: str
    subnet: str  # the reference of its subnet, or the id of one that was brought
    pod_cidr: str


@dataclass
class Plan:
    """Steps in an order in which they can be carried out, and the ids of what is there already, by reference."""

    steps: list[Step] = field(default_factory=list)
    ids: dict[str, str] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    # Whether clients find the API servers through a load balancer when it has been carried out.
    balanced: bool = False

    @property
    def changes(self) -> list[Step]:
        return [step for step in self.steps if not step.quiet]

    def replacements(self) -> list[Step]:
        return [step for step in self.steps if step.action == REPLACE]


@dataclass(frozen=True)
class Facts:
    """What was decided by asking the account: the zones, and the image that each description of one stands for."""

    zones: tuple[str, ...]
    images: Mapping[Any, state.MachineImage] = field(default_factory=dict)


class Draft:
    """A plan in the making: what its parts read, and where they put their steps."""

    def __init__(
        self,
        description: Description,
        current: state.Current,
        facts: Facts,
        removing: bool,
        held: Mapping[str, state.Instance] | None = None,
    ) -> None:
        self.description = description
        self.current = current
        self.facts = facts
        self.removing = removing
        # Nodes that stay as they are in this run, whatever the description says of them; see `members`.
        self.held = held or {}
        self.cluster = description.name
        self.plan = Plan()
        # The nodes that have to be launched again, each with what cannot be changed in place.
        self.replaced: dict[str, list[str]] = {}

    def add(
        self,
        action: str,
        resource: str,
        reason: str,
        call: str,
        after: Iterable[str] = (),
        quiet: bool = False,
        **arguments: Any,
    ) -> str:
        """Adds a step and gives its key. Keys in `after` of steps that there are not are dropped in the end."""
        step = Step(resource, action, reason, call, arguments, tuple(after), quiet)
        self.plan.steps.append(step)
        return step.key

    def know(self, reference: str, id: str) -> None:
        self.plan.ids[reference] = id

    def known(self, reference: str) -> str:
        return self.plan.ids.get(reference, "")

    def tags(self, name: str, **own: str) -> dict[str, str]:
        """All tags of a resource; `own` by the names role, pool, pod_cidr and fingerprint."""
        keys = {"role": tags.ROLE, "pool": tags.POOL, "pod_cidr": tags.POD_CIDR, "fingerprint": names.FINGERPRINT}
        return names.resource_tags(
            self.cluster, name, {keys[key]: value for key, value in own.items()}, dict(self.description.tags)
        )

    def keep_tags(self, resource: str, id: str, there: state.Tags, wanted: Mapping[str, str]) -> None:
        """A step for the tags that a resource lacks. Tags that others have put on it stay."""
        lacking = {key: value for key, value in wanted.items() if there.get(key) != value}
        if lacking:
            reason = f"tag {', '.join(f'{key}={value}' for key, value in sorted(lacking.items()))} is missing"
            self.add(UPDATE, f"tags/{resource}", reason, "create_tags", id=id, tags=lacking)

    def finished(self) -> Plan:
        """The plan in order: every step behind those that it needs, otherwise as the steps were added."""
        keys = {step.key for step in self.plan.steps}
        if len(keys) != len(self.plan.steps):
            every = [step.key for step in self.plan.steps]
            raise AssertionError(f"two steps of one key: {sorted({key for key in every if every.count(key) > 1})}")
        steps = {}
        for step in self.plan.steps:
            needs = tuple(dict.fromkeys(key for key in step.after if key in keys and key != step.key))
            steps[step.key] = Step(
                step.resource, step.action, step.reason, step.call, step.arguments, needs, step.quiet
            )
        ordered: list[Step] = []
        placed: set[str] = set()
        visiting: set[str] = set()

        def place(key: str) -> None:
            if key in placed:
                return
            if key in visiting:
                raise AssertionError(f"steps wait for each other: {sorted(visiting)}")
            visiting.add(key)
            for need in steps[key].after:
                place(need)
            visiting.discard(key)
            placed.add(key)
            ordered.append(steps[key])

        for key in steps:
            place(key)
        self.plan.steps = ordered
        return self.plan
