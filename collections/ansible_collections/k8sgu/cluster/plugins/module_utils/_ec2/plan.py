# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A plan: the ordered steps from what there is to what there should be.

Each kind of step is a subclass of `Step` and lives beside its resource, with the call that makes the change and the
permissions that the call needs.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Dict, Iterable, Mapping, Protocol, Tuple, TypeVar

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.context import Context
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.needs import Found, Place
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.images import MachineImage
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.instances import Instance
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.launch import Node

CREATE, UPDATE, DELETE, REPLACE, ATTACH, DETACH = "create", "update", "delete", "replace", "attach", "detach"
MISSING = "the description has it and the account does not"
SURPLUS = "the description does not have it"

# A call of EC2's: the client's method and its arguments.
Request = Tuple[str, Dict[str, Any]]
# What the ids of what requests name begin with, by what their references ("subnet/public/us-east-1a") begin with.
PREFIXES = {"vpc": "vpc", "subnet": "subnet", "security-group": "sg", "elastic-ip": "eipalloc"}


class Ids(Protocol):
    """Where requests take from what is not known before other steps: the run's context, or `StandIns`."""

    @property
    def cluster(self) -> str: ...

    def id(self, reference: str) -> str: ...

    def public_ip(self, node: str) -> str: ...


class StandIns:
    """What is known before anything is made, with stand-ins for the rest.

    EC2 asks for permissions before it looks whether what a call names is there, so vpc-00000000 does.
    """

    def __init__(self, ids: Mapping[str, str], cluster: str) -> None:
        self.cluster = cluster
        self._ids = ids

    def id(self, reference: str) -> str:
        return self._ids.get(reference) or f"{PREFIXES[reference.partition('/')[0]]}-00000000"

    def public_ip(self, node: str) -> str:
        """No node's: from a range for documentation."""
        return "192.0.2.1"

    def known(self, reference: str) -> bool:
        return bool(self._ids.get(reference))


@dataclass
class Step(abc.ABC):
    """One change.

    `after` are the keys of the steps that come before it. A `quiet` step changes nothing (it waits, for example) and is
    not shown to the user. Both are set by `Draft.add`.
    """

    resource: str
    reason: str
    after: tuple[str, ...] = field(default=(), init=False)
    quiet: bool = field(default=False, init=False)
    action: ClassVar[str]

    @property
    def key(self) -> str:
        return f"{self.action} {self.resource}"

    def shown(self) -> dict[str, str]:
        return {"resource": self.resource, "action": self.action, "reason": self.reason}

    @abc.abstractmethod
    def apply(self, context: Context) -> None:
        """Makes the change."""

    @abc.abstractmethod
    def needs(self, place: Place) -> Iterable[Found]:
        """The actions that the caller must be allowed, each with its resource and context."""

    def questions(self, ids: StandIns) -> Iterable[Request]:
        """The calls for which EC2 is asked beforehand whether they are allowed (DryRun); none where it cannot be."""
        return ()


class Asked(Step):
    """A step for which EC2 can be asked beforehand, with the very request that it makes.

    A policy may go by anything in a request (tags, encryption, IMDSv2), so that one of its own for the question would
    get other answers. Client tokens alone are added for the change: they say nothing about it.
    """

    @abc.abstractmethod
    def request(self, ids: Ids) -> Request:
        """The call that makes the change."""

    def requests(self, ids: Ids) -> Iterable[Request]:
        """All calls that are asked for, where a step has more than one."""
        return [self.request(ids)]

    @property
    def variant(self) -> str:
        """What tells calls of one kind apart that policies may tell apart; of those alike one is asked for."""
        return ""

    def questions(self, ids: StandIns) -> Iterable[Request]:
        return self.requests(ids)

    def send(self, context: Context, **more: Any) -> Any:
        """Makes the call, with `more` arguments."""
        return sent(context, self.request(context), **more)


def sent(context: Context, request: Request, **more: Any) -> Any:
    operation, arguments = request
    return getattr(context.ec2, operation)(**arguments, **more)


StepT = TypeVar("StepT", bound=Step)


@dataclass
class CreateTags(Asked):
    """Puts back tags that a resource lacks."""

    id: str
    tags: dict[str, str]
    action = UPDATE

    def apply(self, context: Context) -> None:
        self.send(context)

    def needs(self, place: Place) -> Iterable[Found]:
        resource, context = place.ec2(self.id)
        yield "ec2:CreateTags", resource, {**context, **place.requested(self.tags)}

    def request(self, ids: Ids) -> Request:
        return "create_tags", {"Resources": [self.id], "Tags": tags.as_list(self.tags)}


@dataclass
class Plan:
    """Steps in an order in which they can be carried out, and the ids of what is there already, by reference."""

    steps: list[Step] = field(default_factory=list)
    ids: dict[str, str] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    # Whether clients reach the API servers through a load balancer once the plan has been carried out.
    balanced: bool = False

    @property
    def changes(self) -> list[Step]:
        return [step for step in self.steps if not step.quiet]

    def replacements(self) -> list[Step]:
        return [step for step in self.steps if step.action == REPLACE]

    def of(self, kind: type[StepT]) -> list[StepT]:
        """The steps of one kind."""
        return [step for step in self.steps if isinstance(step, kind)]


@dataclass(frozen=True)
class Facts:
    """What was decided by asking the account: the zones, and the image for each description of one."""

    zones: tuple[str, ...]
    images: Mapping[Any, MachineImage] = field(default_factory=dict)


class Draft:
    """A plan in the making: what the resources read, and where they put their steps."""

    def __init__(
        self,
        description: Description,
        current: Current,
        facts: Facts,
        removing: bool,
        held: Mapping[str, Instance] | None = None,
    ) -> None:
        self.description = description
        self.current = current
        self.facts = facts
        self.removing = removing
        # Nodes that stay as they are in this run, whatever the description says; see `members` and `departures`.
        self.held = held or {}
        self.cluster = description.name
        self.plan = Plan()
        # The nodes that have to be launched again, each with what cannot be changed in place.
        self.replaced: dict[str, list[str]] = {}

    def add(self, step: Step, after: Iterable[str] = (), quiet: bool = False) -> str:
        """Adds a step and returns its key. Keys in `after` that no step has are dropped in the end."""
        step.after, step.quiet = tuple(after), quiet
        self.plan.steps.append(step)
        return step.key

    def know(self, reference: str, id: str) -> None:
        self.plan.ids[reference] = id

    def known(self, reference: str) -> str:
        return self.plan.ids.get(reference, "")

    def kept(self, kind: str) -> set[str]:
        """The ids of everything of a kind ("subnet") that is there and wanted."""
        return {id for reference, id in self.plan.ids.items() if reference.startswith(f"{kind}/")}

    def keys(self, *kinds: type[Any]) -> list[str]:
        """The keys of the steps of these kinds that have been added so far."""
        return [step.key for step in self.plan.steps if isinstance(step, kinds)]

    def tags(self, name: str, **own: str) -> dict[str, str]:
        """All tags of a resource: the user's, the cluster's, Name, and `own` (role, pool, pod_cidr, fingerprint)."""
        keys = {"role": tags.ROLE, "pool": tags.POOL, "pod_cidr": tags.POD_CIDR, "fingerprint": tags.FINGERPRINT}
        mine = {keys[key]: value for key, value in own.items()}
        return {**self.description.tags, tags.cluster_tag(self.cluster): tags.OWNED, tags.NAME: name, **mine}

    def keep_tags(self, resource: str, id: str, there: Mapping[str, str], wanted: Mapping[str, str]) -> None:
        """Adds a step for the tags that a resource lacks. Tags that others have put on it stay."""
        lacking = {key: value for key, value in wanted.items() if there.get(key) != value}
        if lacking:
            reason = f"tag {', '.join(f'{key}={value}' for key, value in sorted(lacking.items()))} is missing"
            self.add(CreateTags(f"tags/{resource}", reason, id, lacking))

    def finished(self) -> Plan:
        """The plan in order: every step behind those that it needs, otherwise as the steps were added."""
        steps = {step.key: step for step in self.plan.steps}
        if len(steps) != len(self.plan.steps):
            every = [step.key for step in self.plan.steps]
            raise AssertionError(f"two steps of one key: {sorted({key for key in every if every.count(key) > 1})}")
        for key, step in steps.items():
            step.after = tuple(dict.fromkeys(need for need in step.after if need in steps and need != key))
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
