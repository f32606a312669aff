# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides what to do with each node and each pod on it, given the API server's objects. Pure.

The rules for pods are those of https://kubernetes.io/docs/tasks/administer-cluster/safely-drain-node/, except that data
loss does not stop a drain: the node ends anyway, and the plan says what is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Collection, Iterable, Mapping, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._drain.selectors import selects
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.machine import machine
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.readiness import condition

# The mark of a Node that we cordoned; a cordoned Node without it was cordoned by someone else, and stays so.
MARK = "k8sgu.io/cordoned"
UNSCHEDULABLE_TAINT = "node.kubernetes.io/unschedulable"
# The label that the phase `worker` gives the Nodes of its own.
POOL = "k8sgu.io/pool"
MIRROR_ANNOTATION = "kubernetes.io/config.mirror"

# The state of a node, for a drain.
ABSENT, DEAD, SERVING = "absent", "dead", "serving"
# What happens to a pod.
EVICT, WAIT, LEAVE = "evict", "wait", "leave"

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Budget:
    """A PodDisruptionBudget; `allowed` is how many of its pods may be evicted now."""

    namespace: str
    name: str
    selector: Object | None
    allowed: int

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    def covers(self, pod: Object) -> bool:
        metadata = pod["metadata"]
        return metadata["namespace"] == self.namespace and selects(self.selector, metadata.get("labels") or {})


@dataclass(frozen=True)
class PodStep:
    """A pod and what happens to it; `budgets` has the keys of the budgets that cover it."""

    namespace: str
    name: str
    uid: str
    action: str
    reason: str
    budgets: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class NodePlan:
    """A node with its state, the reason, its pods if it serves, and whether it still has to be cordoned (`cordon`)."""

    name: str
    state: str
    reason: str
    uid: str = ""
    cordon: bool = False
    pods: tuple[PodStep, ...] = ()

    @property
    def leaving(self) -> tuple[PodStep, ...]:
        return tuple(pod for pod in self.pods if pod.action != LEAVE)

    @property
    def changes(self) -> bool:
        return self.cordon or bool(self.leaving)

    def lines(self) -> list[str]:
        """The plan as text: what is done, each step with its reason."""
        if self.state == ABSENT:
            return [f"leave node/{self.name}  # {self.reason}"]
        lines = [f"{'cordon' if self.cordon else 'keep cordoned'} node/{self.name}  # {self.reason}"]
        return lines + [f"{pod.action} pod/{pod.key}  # {pod.reason}" for pod in self.pods]


class Unevictable(Exception):
    """The pod can never be evicted; the text names the budgets and says what to do."""


def budget_of(item: Object) -> Budget:
    metadata, spec = item["metadata"], item.get("spec") or {}
    allowed = int((item.get("status") or {}).get("disruptionsAllowed") or 0)
    return Budget(metadata["namespace"], metadata["name"], spec.get("selector"), allowed)


def ready_condition(node: Object) -> Object:
    """The node's condition `Ready`; empty if its kubelet never reported."""
    return condition(node, "Ready")


def is_ready(node: Object) -> bool:
    return bool(ready_condition(node).get("status") == "True")


def mark_of(node: Object) -> str | None:
    mark = (node["metadata"].get("annotations") or {}).get(MARK)
    return None if mark is None else str(mark)


def node_plan(name: str, node: Object | None, pods: Iterable[Object], budgets: Sequence[Budget]) -> NodePlan:
    """The plan for one node; `node` is None if the API server has none of that name. Raises Unevictable."""
    if node is None:
        return NodePlan(name, ABSENT, "it has not joined the cluster, so there is nothing to drain")
    metadata, unschedulable = node["metadata"], bool((node.get("spec") or {}).get("unschedulable"))
    mark = mark_of(node)
    # A node that someone else cordoned gets the mark too, so that its Node is recognised when it is removed.
    cordon = mark is None or not unschedulable
    if not is_ready(node):
        condition = ready_condition(node)
        since = condition.get("lastTransitionTime")
        why = str(condition.get("message") or "its kubelet never reported").rstrip(".")
        reason = (
            f"it is not Ready{f' since {since}' if since else ''} ({why}): its pods do not work and cannot be moved"
        )
        return NodePlan(name, DEAD, reason, metadata["uid"], cordon)
    reason = "it accepts no more pods"
    if mark is not None:
        reason = "an earlier run began to drain it"
    elif unschedulable:
        reason = "someone cordoned it, and it stays cordoned"
    steps = [pod_step(pod, budgets) for pod in pods if pod["spec"].get("nodeName") == name]
    steps.sort(key=lambda step: step.key)
    return NodePlan(name, SERVING, reason, metadata["uid"], cordon, tuple(steps))


def pod_step(pod: Object, budgets: Sequence[Budget], known: Collection[str] | None = None) -> PodStep:
    """What happens to a pod. `known` has the uids of pods that were there before; None: all were.

    Raises Unevictable for a pod that several budgets cover, which the eviction API always refuses:
    https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/
    """
    metadata = pod["metadata"]

    def step(action: str, reason: str, covering: Sequence[Budget] = ()) -> PodStep:
        keys = tuple(budget.key for budget in covering)
        return PodStep(metadata["namespace"], metadata["name"], metadata["uid"], action, reason, keys)

    owner: Object = next((entry for entry in metadata.get("ownerReferences") or () if entry.get("controller")), {})
    phase = (pod.get("status") or {}).get("phase")
    if MIRROR_ANNOTATION in (metadata.get("annotations") or {}):
        return step(LEAVE, "static: the node's own kubelet runs it from a file")
    if owner.get("kind") == "DaemonSet":
        return step(LEAVE, f"of the DaemonSet {owner.get('name')}, which has a pod on every node")
    if phase in ("Succeeded", "Failed"):
        return step(LEAVE, f"it has ended ({phase})")
    if metadata.get("deletionTimestamp"):
        return step(WAIT, "it is terminating already")
    if known is not None and metadata["uid"] not in known and _tolerates_cordon(pod):
        return step(LEAVE, "it was placed on the cordoned node, whose taint it tolerates")
    # A pod that has not started yet can be evicted regardless of its budgets.
    covering = [budget for budget in budgets if budget.covers(pod)] if phase != "Pending" else []
    if len(covering) > 1:
        named = ", ".join(budget.key for budget in covering)
        raise Unevictable(
            f"Pod {metadata['namespace']}/{metadata['name']} is covered by several PodDisruptionBudgets ({named}), and "
            "the eviction API always refuses such a pod; make their selectors disjoint"
        )
    return step(EVICT, "; ".join(_costs(pod, owner, covering)), covering)


def _costs(pod: Object, owner: Object, covering: Sequence[Budget]) -> list[str]:
    costs = []
    if owner:
        costs.append(f"{owner.get('kind')} {owner.get('name')} makes another one elsewhere")
    else:
        costs.append("no controller has it: it is gone, and nobody makes it again")
    scratch = [str(volume["name"]) for volume in pod["spec"].get("volumes") or () if "emptyDir" in volume]
    if scratch:
        costs.append(f"what its emptyDir {', '.join(scratch)} holds is lost")
    for budget in covering:
        now = f"allows {budget.allowed} evictions now" if budget.allowed else "allows no eviction now"
        costs.append(f"PodDisruptionBudget {budget.key} {now}")
    return costs


def _tolerates_cordon(pod: Object) -> bool:
    return any(
        toleration.get("key", UNSCHEDULABLE_TAINT) in ("", UNSCHEDULABLE_TAINT)
        and toleration.get("effect", "NoSchedule") in ("", "NoSchedule")
        for toleration in pod["spec"].get("tolerations") or ()
    )


def warnings(plans: Sequence[NodePlan], others: Iterable[Object]) -> list[str]:
    """Warnings beyond the plan: what is lost, and which pods have no node to go to.

    `others` are the nodes that stay.
    """
    told = []
    for plan in plans:
        if plan.state == DEAD:
            told.append(f"{plan.name} was not drained: {plan.reason}")
        told += [
            f"Pod {pod.key} on {plan.name}: {pod.reason}"
            for pod in plan.pods
            if pod.action == EVICT and ("nobody makes it again" in pod.reason or "is lost" in pod.reason)
        ]
    moving = [pod.key for plan in plans for pod in plan.pods if pod.action == EVICT]
    if moving and not any(takes_pods(node) for node in others):
        told.append(f"no other node takes pods: {', '.join(moving)} will wait for one")
    return told


@dataclass(frozen=True)
class Gone:
    """A Node whose machine is gone, and how that is known."""

    name: str
    uid: str
    reason: str

    def line(self) -> str:
        return f"delete node/{self.name}  # {self.reason}"


def gone(nodes: Iterable[Object], instances: Mapping[str, str], complete: bool) -> list[Gone]:
    """The Nodes without a machine. `instances` has the machines' ids by name, empty for one that is not known; if
    `complete`, it has all there are.

    A machine that has a Node's name now was made for it after the one that registered has ended. Whether a Node is
    Ready says nothing: of one whose machine has just ended the API server says so for a while, and of one whose machine
    is stopped it does not.
    """
    found = []
    for node in nodes:
        metadata, registered = node["metadata"], machine(node)
        name = metadata["name"]
        there = instances.get(name)
        if there and registered and registered != there:
            reason = f"its machine {registered} is gone, and {there} has its name now"
        elif name not in instances and complete and POOL in (metadata.get("labels") or {}):
            reason = f"its machine {registered or 'of that name'} is gone"
        else:
            continue
        found.append(Gone(name, metadata["uid"], reason))
    return found


def detached(
    attachments: Iterable[Object], staying: Collection[str], instances: Mapping[str, str], complete: bool
) -> list[tuple[str, str]]:
    """VolumeAttachments of Nodes that are gone, with the name of the Node. `staying` are the Nodes that are there.

    Nothing in the API server removes them together with their Node, and a volume that counts as attached is attached
    nowhere else.
    """
    found = [(entry["metadata"]["name"], str((entry.get("spec") or {}).get("nodeName"))) for entry in attachments]
    return [(name, node) for name, node in found if node not in staying and (complete or node in instances)]


def takes_pods(node: Object) -> bool:
    """Whether a pod without tolerations may be placed on a node."""
    spec = node.get("spec") or {}
    closed = any(taint.get("effect") in ("NoSchedule", "NoExecute") for taint in spec.get("taints") or ())
    return is_ready(node) and not spec.get("unschedulable") and not closed


@dataclass(frozen=True)
class Choice:
    """Of the nodes that are to leave, those that can in this run, and why each of the others cannot."""

    now: tuple[str, ...]
    held: Mapping[str, str]


def choose(
    plans: Sequence[NodePlan], returning: Collection[str], members: Iterable[str], nodes: Iterable[Object]
) -> Choice:
    """Of nodes that come back under their name (`returning`), at most one that serves leaves in a run, and none while
    another of the cluster's `members` leaves, has not joined or is not Ready: their pods need a place.
    """
    serving = [plan.name for plan in plans if plan.state == SERVING]
    ready = {node["metadata"]["name"] for node in nodes if is_ready(node)}
    missing = sorted(set(members) - ready)
    away = missing + [name for name in serving if name not in returning]
    now, held = [], {}
    for plan in plans:
        if plan.state != SERVING or plan.name not in returning:
            now.append(plan.name)
        elif away:
            what = "is not Ready" if away[0] in missing else "leaves in this run"
            held[plan.name] = f"{away[0]} {what}"
        else:
            now.append(plan.name)
            away = [plan.name]
    return Choice(tuple(now), held)
