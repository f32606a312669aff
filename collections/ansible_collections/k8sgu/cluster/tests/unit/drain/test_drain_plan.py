# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of a node and of each pod on it, by table."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._drain import plan as plans
from ansible_collections.k8sgu.cluster.plugins.module_utils._drain.plan import (
    ABSENT,
    DEAD,
    EVICT,
    LEAVE,
    MARK,
    SERVING,
    WAIT,
    Budget,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._drain.selectors import selects

WEB = Budget("demo", "web", {"matchLabels": {"app": "web"}}, 1)
FULL = Budget("demo", "full", {"matchLabels": {"app": "web"}}, 0)
EVERYTHING = {"operator": "Exists"}


def node(name: str = "w0", ready: str | None = "True", mark: str | None = None, **spec: Any) -> dict[str, Any]:
    conditions = [{"type": "MemoryPressure", "status": "False"}]
    if ready is not None:
        conditions.append(
            {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:00Z", "message": "said so."}
        )
    annotations = {} if mark is None else {MARK: mark}
    metadata = {"name": name, "uid": f"uid-{name}", "annotations": annotations}
    return {"metadata": metadata, "spec": spec, "status": {"conditions": conditions}}


def pod(name: str = "p", owner: str | None = "ReplicaSet", phase: str = "Running", **more: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"namespace": "demo", "name": name, "uid": f"uid-{name}", "labels": {"app": "web"}}
    if owner:
        metadata["ownerReferences"] = [{"kind": owner, "name": "of", "controller": True}]
    metadata.update(more.pop("metadata", {}))
    return {"metadata": metadata, "spec": {"nodeName": "w0", **more}, "status": {"phase": phase}}


MIRROR = {
    "annotations": {"kubernetes.io/config.mirror": "x"},
    "ownerReferences": [{"kind": "Node", "controller": True}],
}
PODS: list[tuple[str, dict[str, Any], list[Budget], str, str]] = [
    ("a pod of a ReplicaSet", pod(), [], EVICT, "ReplicaSet of makes another one elsewhere"),
    ("a budget that gives way", pod(), [WEB], EVICT, "PodDisruptionBudget demo/web allows 1 evictions now"),
    ("a budget that holds", pod(), [FULL], EVICT, "PodDisruptionBudget demo/full allows no eviction now"),
    ("a pod of a DaemonSet", pod(owner="DaemonSet"), [WEB], LEAVE, "DaemonSet of"),
    ("a static pod", pod(metadata=MIRROR), [WEB], LEAVE, "kubelet runs it from a file"),
    ("a pod that succeeded", pod(phase="Succeeded"), [FULL], LEAVE, "has ended (Succeeded)"),
    ("a pod that failed", pod(phase="Failed", owner=None), [], LEAVE, "has ended (Failed)"),
    ("a pod on its way out", pod(metadata={"deletionTimestamp": "now"}), [FULL], WAIT, "terminating already"),
    ("a pod that nobody makes again", pod(owner=None), [], EVICT, "nobody makes it again"),
    ("a pod that has not started", pod(phase="Pending"), [WEB, FULL], EVICT, "ReplicaSet of makes another"),
    ("a pod with scratch", pod(volumes=[{"name": "a", "emptyDir": {}}, {"name": "b", "secret": {}}]), [], EVICT,
     "what its emptyDir a holds is lost"),
    ("a budget of another namespace", pod(), [Budget("other", "web", {}, 0)], EVICT, "ReplicaSet of makes"),
]  # fmt: skip


@pytest.mark.parametrize(("case", "given", "budgets", "action", "reason"), PODS, ids=[row[0] for row in PODS])
def test_a_pod(case: str, given: dict[str, Any], budgets: list[Budget], action: str, reason: str) -> None:
    step = plans.pod_step(given, budgets)
    assert step.action == action and reason in step.reason
    covering = [budget.key for budget in budgets if budget.covers(given)] if "PodDisruptionBudget" in reason else []
    assert list(step.budgets) == covering


def test_a_pod_under_two_budgets_is_refused_by_their_names() -> None:
    with pytest.raises(plans.Unevictable, match=r"demo/p .*demo/web, demo/full.*make their selectors disjoint"):
        plans.node_plan("w0", node(), [pod()], [WEB, FULL])


@pytest.mark.parametrize(
    ("tolerations", "action"),
    [
        ([EVERYTHING], LEAVE),
        ([{"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"}], LEAVE),
        ([{"operator": "Exists", "effect": "NoExecute"}], EVICT),
        ([{"key": "other", "operator": "Exists"}], EVICT),
        ([], EVICT),
    ],
)
def test_a_pod_that_comes_to_a_cordoned_node_is_not_evicted(tolerations: list[dict[str, str]], action: str) -> None:
    newcomer = pod(tolerations=tolerations)
    assert plans.pod_step(newcomer, [], known={"uid-other"}).action == action
    assert plans.pod_step(newcomer, [], known={"uid-p"}).action == EVICT


NODES: list[tuple[str, dict[str, Any] | None, tuple[str, bool], str]] = [
    ("it serves", node(), (SERVING, True), "accepts no more pods"),
    ("it never joined", None, (ABSENT, False), "has not joined"),
    ("its kubelet is silent", node(ready="Unknown"), (DEAD, True), "since 2026-01-01T00:00:00Z (said so)"),
    ("its kubelet is not well", node(ready="False"), (DEAD, True), "its pods do not work"),
    ("its kubelet never spoke", node(ready=None), (DEAD, True), "its kubelet never reported"),
    ("somebody cordoned it", node(unschedulable=True), (SERVING, True), "someone cordoned it"),
    ("an earlier run cordoned it", node(mark="x", unschedulable=True), (SERVING, False), "an earlier run began"),
    ("somebody opened it since", node(mark="x"), (SERVING, True), "an earlier run began"),
    ("dead and cordoned", node(ready="Unknown", mark="x", unschedulable=True), (DEAD, False), "not Ready"),
]  # fmt: skip


@pytest.mark.parametrize(("case", "given", "expected", "reason"), NODES, ids=[row[0] for row in NODES])
def test_a_node(case: str, given: dict[str, Any] | None, expected: tuple[str, bool], reason: str) -> None:
    made = plans.node_plan("w0", given, [pod()], [WEB])
    assert (made.state, made.cordon) == expected and reason in made.reason
    # Pods of a node that is dead or was never there are nobody's to evict.
    assert [step.action for step in made.pods] == ([EVICT] if made.state == SERVING else [])


def test_only_the_nodes_own_pods_are_looked_at_and_shown_in_order() -> None:
    others = [pod("b"), pod("a", owner="DaemonSet"), {**pod("c"), "spec": {"nodeName": "w1"}}]
    made = plans.node_plan("w0", node(), others, [])
    assert [line.partition("  #")[0] for line in made.lines()] == [
        "cordon node/w0",
        "leave pod/demo/a",
        "evict pod/demo/b",
    ]
    assert made.changes and [step.name for step in made.leaving] == ["b"]
    done = plans.node_plan("w0", node(mark="x", unschedulable=True), others[1:2], [])
    assert not done.changes and done.lines()[0].startswith("keep cordoned node/w0")


def test_warnings_before_a_drain() -> None:
    bare, scratch, plain = (
        pod("bare", owner=None),
        pod("scratch", volumes=[{"name": "a", "emptyDir": {}}]),
        pod("plain"),
    )
    going = [
        plans.node_plan("w0", node(), [bare, scratch, plain], []),
        plans.node_plan("w1", node("w1", ready="Unknown"), [], []),
    ]
    control_plane = node("c0", taints=[{"key": "k", "effect": "NoSchedule"}])
    told = plans.warnings(going, [control_plane, node("w2", unschedulable=True), node("w3", ready="False")])
    assert len(told) == 4
    assert (
        told[0].startswith("Pod demo/bare")
        and told[1].startswith("Pod demo/scratch")
        and "w1 was not drained" in told[2]
    )
    assert told[3].startswith("no other node takes pods: demo/bare, demo/plain, demo/scratch")
    assert len(plans.warnings(going, [node("w2")])) == 3
    assert plans.warnings([plans.node_plan("w0", node(), [], [])], []) == []


def choice(leaving: dict[str, dict[str, Any] | None], returning: str, present: str) -> tuple[list[str], dict[str, str]]:
    """Which of `leaving` leave now and which do not; `present` are the Ready nodes that stay, members are w0 to w2."""
    going = [plans.node_plan(name, body, [], []) for name, body in leaving.items()]
    there = [body for body in leaving.values() if body] + [node(name) for name in present.split()]
    made = plans.choose(going, returning.split(), ["w0", "w1", "w2"], there)
    return list(made.now), dict(made.held)


def test_workers_that_are_removed_leave_together() -> None:
    assert choice({"w3": node("w3"), "w4": node("w4")}, "", "w0 w1 w2") == (["w3", "w4"], {})


def test_of_workers_that_come_back_one_leaves_in_a_run() -> None:
    both = {"w0": node("w0"), "w1": node("w1")}
    assert choice(both, "w0 w1", "w2") == (["w0"], {"w1": "w0 leaves in this run"})
    # w2 was replaced before and has not joined again.
    assert choice(both, "w0 w1", "") == ([], {"w0": "w2 is not Ready", "w1": "w2 is not Ready"})


def test_a_worker_that_comes_back_stays_while_another_is_removed() -> None:
    assert choice({"w3": node("w3"), "w0": node("w0")}, "w0", "w1 w2") == (["w3"], {"w0": "w3 leaves in this run"})


def test_a_node_that_does_not_work_is_replaced_without_waiting_for_its_turn() -> None:
    dead, never = node("w0", ready="Unknown"), None
    assert choice({"w0": dead, "w1": never}, "w0 w1", "w2") == (["w0", "w1"], {})
    assert choice({"w0": dead, "w1": node("w1")}, "w0 w1", "w2") == (["w0"], {"w1": "w0 is not Ready"})


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        (None, False),
        ({}, True),
        ({"matchLabels": {"app": "web"}}, True),
        ({"matchLabels": {"app": "web", "tier": "x"}}, False),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "db"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}, False),
        ({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["web"]}]}, True),
        ({"matchExpressions": [{"key": "tier", "operator": "In", "values": ["web"]}]}, False),
        ({"matchExpressions": [{"key": "app", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, False),
        ({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "Exists"}]}, False),
    ],
)
def test_a_selector(selector: dict[str, Any] | None, expected: bool) -> None:
    assert selects(selector, {"app": "web"}) is expected


HERE = {"w0": "i-0", "w1": "i-1", "unknown": ""}
OURS = {"k8sgu.io/pool": "workers"}
MACHINES: list[tuple[str, str, dict[str, str], str, bool, str]] = [
    # (what it is, the Node, its labels, its providerID, complete, why it is removed; empty if it stays)
    ("its own machine", "w0", OURS, "aws:///us-east-1a/i-0", True, ""),
    (
        "another machine has its name",
        "w0",
        OURS,
        "aws:///us-east-1a/i-old",
        False,
        "machine i-old is gone, and i-0 has",
    ),
    ("nobody knows whose machine it is", "w0", OURS, "", True, ""),
    ("another kind of id", "w0", OURS, "other://i-old", True, ""),
    ("its machine has no id here", "unknown", OURS, "aws:///us-east-1a/i-old", True, ""),
    ("it may be stopped", "w2", OURS, "aws:///us-east-1a/i-2", False, ""),
    ("it has left", "w2", OURS, "aws:///us-east-1a/i-2", True, "machine i-2 is gone"),
    ("it has left and told nothing", "w2", OURS, "", True, "machine of that name is gone"),
    ("somebody else's", "w2", {}, "aws:///us-east-1a/i-2", True, ""),
]


@pytest.mark.parametrize(("what", "name", "labels", "provider", "complete", "why"), MACHINES)
@pytest.mark.parametrize("ready", ["True", "Unknown"])
def test_nodes_without_a_machine(
    what: str, name: str, labels: dict[str, str], provider: str, complete: bool, why: str, ready: str
) -> None:
    there = node(name, ready=ready, **({"providerID": provider} if provider else {}))
    there["metadata"]["labels"] = labels
    found = plans.gone([there], HERE, complete)
    assert [(entry.name, entry.uid) for entry in found] == ([(name, f"uid-{name}")] if why else [])
    assert all(why in entry.line() for entry in found)


@pytest.mark.parametrize(("complete", "going"), [(False, ["one"]), (True, ["one", "two"])])
def test_attachments_of_nodes_that_are_gone(complete: bool, going: list[str]) -> None:
    attachments = [
        {"metadata": {"name": name}, "spec": {"nodeName": of}}
        for name, of in (("one", "w0"), ("two", "w2"), ("three", "w1"))
    ]
    found = plans.detached(attachments, {"w1"}, HERE, complete)
    assert [name for name, _node in found] == going
