# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every reason for which a pod does not run is in the explanation, in few lines and without a secret."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes import explain
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.explain import Seen, explanation

WEB = {"kind": "Deployment", "metadata": {"name": "web", "namespace": "n", "uid": "u-web"}}


def pod(name: str = "web-1", node: str = "a", **status: Any) -> dict[str, Any]:
    metadata = {"name": name, "uid": f"u-{name}", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"kind": "Pod", "metadata": metadata, "spec": {"nodeName": node} if node else {}, "status": status}


def waiting(reason: str, message: str = "", last: dict[str, Any] | None = None) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": "c", "ready": False, "state": {"waiting": {"reason": reason, "message": message}}}
    if last:
        entry["lastState"] = {"terminated": last}
    return {"phase": "Pending", "containerStatuses": [entry]}


def event(about: str, reason: str, message: str, when: str = "2026-01-01T00:00:00Z", count: int = 1) -> dict[str, Any]:
    return {
        "involvedObject": {"uid": about},
        "reason": reason,
        "message": message,
        "count": count,
        "lastTimestamp": when,
    }


def node(name: str = "a", unschedulable: bool = False, **conditions: str) -> dict[str, Any]:
    """A node, Ready by default; each condition's message is the name of its type."""
    states = {"Ready": "True", **conditions}
    told = [{"type": kind, "status": state, "message": f"said of {kind}"} for kind, state in states.items()]
    return {
        "metadata": {"name": name},
        "spec": {"unschedulable": True} if unschedulable else {},
        "status": {"conditions": told},
    }


UNFIT = "0/1 nodes are available: 1 Insufficient cpu"
CRASHED = {"exitCode": 1, "reason": "Error", "message": "no\n  config"}
UNSCHEDULED = {
    "phase": "Pending",
    "conditions": [{"type": "PodScheduled", "status": "False", "message": UNFIT}],
}
EVICTED = {"phase": "Failed", "reason": "Evicted", "message": "The node had condition: [DiskPressure]."}
CASES: dict[str, tuple[Seen, list[str]]] = {
    "image": (
        Seen(WEB, [pod(**waiting("ImagePullBackOff", 'Back-off pulling "web:1"'))]),
        ['Pod web-1 on a: container c: ImagePullBackOff Back-off pulling "web:1"'],
    ),
    "crash": (
        Seen(WEB, [pod(**waiting("CrashLoopBackOff", "back-off 10s", CRASHED))]),
        ["Pod web-1 on a: container c: CrashLoopBackOff back-off 10s, ended before: exit code 1 no config"],
    ),
    "memory": (
        Seen(WEB, [pod(**waiting("CrashLoopBackOff", last={"exitCode": 137, "reason": "OOMKilled"}))]),
        ["Pod web-1 on a: container c: CrashLoopBackOff, ended before: exit code 137 OOMKilled"],
    ),
    "unschedulable": (
        Seen(WEB, [pod(node="", **UNSCHEDULED)], nodes=[node("a", DiskPressure="True"), node("b")]),
        [
            f"Pod web-1: not scheduled: {UNFIT}",
            "Node a: DiskPressure: said of DiskPressure",
        ],
    ),
    "unschedulable, all of them": (
        Seen(
            WEB,
            [pod(f"web-{number}", node="", **UNSCHEDULED) for number in range(5)],
            [event("u-web-0", "FailedScheduling", UNFIT)],
        ),
        [f"Pods web-0, web-1, web-2: not scheduled: {UNFIT}", "2 more pods are not ready"],
    ),
    "no scheduler": (
        Seen(WEB, [pod(node="", phase="Pending")]),
        ["Pod web-1: not scheduled, without a reason; is the scheduler running?"],
    ),
    "events": (
        Seen(
            WEB,
            [pod(phase="Pending")],
            [
                event("u-web-1", "FailedMount", "no such secret", "2026-01-01T00:00:01Z", 7),
                event("u-web-1", "FailedMount", "an older one"),
                event("u-web-0", "FailedMount", "of another pod"),
            ],
        ),
        ["Pod web-1 on a: its node's kubelet has not started it; FailedMount (7 times): no such secret"],
    ),
    "not made": (
        Seen({**WEB, "kind": "DaemonSet"}, events=[event("u-web", "FailedCreate", "exceeded quota: pods")]),
        ["FailedCreate: exceeded quota: pods"],
    ),
    "not made, as a Deployment has it": (
        Seen(
            {
                **WEB,
                "status": {
                    "conditions": [
                        {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "forbidden"},
                        {"type": "Available", "status": "False", "reason": "MinimumReplicas", "message": "known"},
                    ]
                },
            }
        ),
        ["FailedCreate: forbidden"],
    ),
    "a storm of evictions": (
        Seen(
            WEB,
            [pod(f"web-{number}", **EVICTED) for number in range(60)] + [pod("web-x", node="", **UNSCHEDULED)],
            nodes=[node("a", DiskPressure="True")],
        ),
        [
            f"Pod web-x: not scheduled: {UNFIT}",
            "60 pods ended on a: Evicted: The node had condition: [DiskPressure].",
            "Node a: DiskPressure: said of DiskPressure",
        ],
    ),
    "a node that fell silent": (
        Seen(
            WEB,
            [pod(phase="Running", conditions=[{"type": "Ready", "status": "False"}])],
            nodes=[node(Ready="Unknown", unschedulable=True)],
        ),
        ["Pod web-1 on a: phase Running", "Node a: NotReady: said of Ready; is cordoned"],
    ),
    "a node that is gone": (
        Seen(WEB, [pod(phase="Pending")], nodes=[{"metadata": {"name": "a"}, "status": None}]),
        ["Pod web-1 on a: its node's kubelet has not started it", "Node a: is not registered"],
    ),
    "a pod on its way out": (
        Seen(WEB, [{**pod(phase="Running"), "metadata": {"name": "w", "deletionTimestamp": "2026-01-01T00:00:00Z"}}]),
        ["Pod w on a: has been terminating since 2026-01-01T00:00:00Z"],
    ),
    "only what is not ready": (
        Seen(
            WEB,
            [pod(phase="Running", conditions=[{"type": "Ready", "status": "True"}]), pod("web-2", phase="Pending")],
        ),
        ["Pod web-2 on a: its node's kubelet has not started it"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("seen", "expected"), CASES.values(), ids=CASES)
def test_why_it_does_not_run(seen: Seen, expected: list[str]) -> None:
    assert explanation(seen) == expected


def test_it_is_bounded_however_much_is_wrong() -> None:
    pods = [pod(f"web-{number:03}", f"node-{number}", **waiting("Failing", "x" * 9999)) for number in range(300)]
    events = [
        event(about["metadata"]["uid"], f"Reason{number}", "y" * 9999) for about in [WEB, *pods] for number in range(9)
    ]
    ended = [pod(f"old-{number:03}", phase="Failed", reason=f"R{number}", message="z" * 9999) for number in range(300)]
    nodes = [node(f"node-{number}", Ready="False", DiskPressure="True") for number in range(300)]
    lines = explanation(Seen(WEB, pods + ended, events, nodes))
    assert len(lines) <= 2 + explain.MOST_PODS + 1 + explain.MOST_PODS + explain.MOST_NODES
    assert max(map(len, lines)) == explain.LONGEST_LINE
    assert f"{300 - explain.MOST_PODS} more pods are not ready" in lines


def test_no_secret_is_shown() -> None:
    secret = {
        "kind": "Secret",
        "stringData": {"password": "hunter2", "redis.conf": "port 6379\nrequirepass correct-horse", "short": "no"},
        "data": {"token": base64.b64encode(b"s3cr3t-token").decode()},
    }
    values = explain.secret_values([secret, {"kind": "ConfigMap", "data": {"k": "container"}}])
    said = "hunter2, requirepass correct-horse, s3cr3t-token, no config"
    crashed = waiting("CrashLoopBackOff", last={"exitCode": 1, "message": said})
    lines = explanation(Seen(WEB, [pod(**crashed)], [event("u-web-1", "Unhealthy", f"asked, and got {said}")]), values)
    assert len(lines) == 1
    assert lines[0].count("(secret), (secret), (secret), no config") == 2
    assert not [value for value in ("hunter2", "correct-horse", "s3cr3t-token") if value in lines[0]]
    assert "container c:" in lines[0]


class Api:
    """Objects by their path; with none, an API server that does not answer."""

    def __init__(self, **objects: dict[str, Any] | None) -> None:
        self.objects = objects

    def find(self, path: str) -> dict[str, Any] | None:
        if not self.objects:
            raise KubernetesError("cannot be reached")
        return self.objects.get(path.rpartition("/")[2])


NAMESPACE = {
    "kind": "Namespace",
    "metadata": {"name": "n"},
    "status": {
        "conditions": [
            {"type": "NamespaceDeletionContentFailure", "status": "False", "message": "All deleted"},
            {"type": "NamespaceContentRemaining", "status": "True", "message": "pods. has 3 resource instances"},
        ]
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("api", "expected"),
    [
        (Api(x=pod(), a=node(Ready="Unknown")), ["Node a: NotReady: said of Ready"]),
        (Api(x=pod(), a=None), ["Node a: is not registered"]),
        (Api(x=pod(), a=node()), []),
        (Api(x=NAMESPACE), ["Namespace n: pods. has 3 resource instances"]),
        (Api(x={"kind": "ConfigMap", "metadata": {"name": "x"}}), []),
        (Api(x=None), []),
        (Api(), []),
    ],
)
def test_why_it_is_not_gone(api: Any, expected: list[str]) -> None:
    assert explain.explain_removal(api, "/api/v1/somewhere/x") == expected
