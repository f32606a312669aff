# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which workloads are restarted, which pods cannot be and why, and how far a rollout is."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call
from ansible_collections.k8sgu.cluster.plugins.module_utils._restart import plan as plans
from ansible_collections.k8sgu.cluster.plugins.module_utils._restart import run as runs
from ansible_collections.k8sgu.cluster.plugins.module_utils._restart.options import ARGUMENT_SPEC

MARK = "sha256:new"
MARKED = {plans.MARK: MARK}
TOKEN = {"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}, {"downwardAPI": {}}]}}
HEALTHY: dict[str, dict[str, Any]] = {
    "Deployment": {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2},
    "StatefulSet": {"replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2},
    "DaemonSet": {
        "desiredNumberScheduled": 2,
        "currentNumberScheduled": 2,
        "updatedNumberScheduled": 2,
        "numberAvailable": 2,
    },
}


def owned(kind: str, name: str, version: str = "apps/v1") -> list[dict[str, Any]]:
    return [{"apiVersion": version, "kind": kind, "name": name, "uid": f"u-{kind}-{name}", "controller": True}]


def pod(
    name: str = "web-1",
    owners: list[dict[str, Any]] | None = None,
    volume: dict[str, Any] | None = None,
    phase: str = "Running",
    spec: dict[str, Any] | None = None,
    **metadata: Any,
) -> dict[str, Any]:
    volumes = [] if volume == {} else [{"name": "scratch", "emptyDir": {}}, {"name": "v", **(volume or TOKEN)}]
    return {
        "metadata": {"name": name, "namespace": "shop", "ownerReferences": owners or [], **metadata},
        "spec": {"volumes": volumes, **(spec or {})},
        "status": {"phase": phase},
    }


def replica_set(name: str = "web-abc", owners: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    references = owned("Deployment", "web") if owners is None else owners
    return {
        "metadata": {"name": name, "namespace": "shop", "uid": f"u-ReplicaSet-{name}", "ownerReferences": references}
    }


def workload(
    kind: str,
    name: str = "web",
    status: dict[str, Any] | None = None,
    annotations: dict[str, str] | None = None,
    metadata: dict[str, Any] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": f"u-{kind}-{name}",
            "generation": 3,
            **(metadata or {}),
        },
        "spec": {"replicas": 2, "template": {"metadata": {"annotations": annotations}}, **spec},
        "status": {"observedGeneration": 3, **HEALTHY[kind], **(status or {})},
    }


def planned(
    pods: list[dict[str, Any]],
    workloads: list[dict[str, Any]],
    ignore: tuple[str, ...] = (),
    secrets: tuple[str, ...] = (),
    replica_sets: list[dict[str, Any]] | None = None,
) -> plans.Plan:
    sets = [replica_set()] if replica_sets is None else replica_sets
    return plans.plan(plans.Seen(pods, secrets, sets, workloads), MARK, ignore)


def test_each_workload_is_restarted_once_in_a_fixed_order() -> None:
    pods = [
        pod("db-1", owned("StatefulSet", "db")),
        pod("web-2", owned("ReplicaSet", "web-abc")),
        pod("agent-1", owned("DaemonSet", "agent")),
        pod("web-1", owned("ReplicaSet", "web-abc")),
        pod("other-1", owned("ReplicaSet", "other-abc"), volume={}),
    ]
    workloads = [
        workload("StatefulSet", "db", annotations=MARKED),
        workload("Deployment", annotations={plans.MARK: "an earlier one"}),
        workload("DaemonSet", "agent"),
    ]
    for turned in (pods, pods[::-1]):
        made = planned(turned, workloads)
        assert made.lines() == [
            "restart DaemonSet/shop/agent  # 1 pod has what is replaced",
            "restart Deployment/shop/web  # 2 pods have what is replaced",
            "restart StatefulSet/shop/db  # 1 pod has what is replaced, and an earlier run has begun to",
        ]
        assert [step.path for step in made.steps] == [
            "/apis/apps/v1/namespaces/shop/daemonsets/agent",
            "/apis/apps/v1/namespaces/shop/deployments/web",
            "/apis/apps/v1/namespaces/shop/statefulsets/db",
        ]
        assert made.unhealthy == () and made.left == ()


def env(source: dict[str, Any], kind: str = "containers") -> dict[str, Any]:
    return {kind: [{"name": "c", "env": [{"name": "A", "value": "x"}, {"name": "B", "valueFrom": source}]}]}


@pytest.mark.parametrize(
    ("given", "due"),
    [
        ({}, True),
        ({"volume": {"projected": {"sources": [{"configMap": {"name": "kube-root-ca.crt"}}]}}}, True),
        ({"volume": {"projected": {"sources": [{"configMap": {"name": "other"}}]}}}, False),
        ({"volume": {"projected": {"sources": [{"secret": {"name": "robot"}}]}}}, True),
        ({"volume": {"projected": {"sources": [{"secret": {"name": "password"}}]}}}, False),
        ({"volume": {"projected": {}}}, False),
        ({"volume": {"configMap": {"name": "kube-root-ca.crt"}}}, True),
        ({"volume": {"configMap": {"name": "robot"}}}, False),
        ({"volume": {"secret": {"secretName": "robot"}}}, True),
        ({"volume": {"secret": {"secretName": "kube-root-ca.crt"}}}, False),
        ({"volume": {"hostPath": {"path": "/"}}}, False),
        ({"volume": {}}, False),
        ({"volume": {}, "spec": env({"configMapKeyRef": {"name": "kube-root-ca.crt", "key": "ca.crt"}})}, True),
        ({"volume": {}, "spec": env({"secretKeyRef": {"name": "robot", "key": "token"}}, "initContainers")}, True),
        ({"volume": {}, "spec": env({"secretKeyRef": {"name": "password", "key": "p"}})}, False),
        ({"volume": {}, "spec": env({"fieldRef": {"fieldPath": "metadata.name"}})}, False),
        ({"volume": {}, "spec": {"containers": [{"envFrom": [{"secretRef": {"name": "robot"}}]}]}}, True),
        ({"volume": {}, "spec": {"containers": [{"envFrom": [{"configMapRef": {"name": "robot"}}]}]}}, False),
        ({"annotations": MARKED}, False),
        ({"annotations": {plans.MARK: "another"}}, True),
        ({"annotations": {"kubernetes.io/config.mirror": "x"}}, False),
        ({"deletionTimestamp": "2026-01-01T00:00:00Z"}, False),
        ({"phase": "Succeeded"}, False),
        ({"phase": "Failed"}, False),
        ({"phase": "Pending"}, True),
    ],
)
def test_which_pods_are_due(given: dict[str, Any], due: bool) -> None:
    assert plans.is_due(pod(**given), {"shop/robot", "other/password"}, MARK) == due


JOB = owned("Job", "import", "batch/v1")


@pytest.mark.parametrize(
    ("owners", "replica_sets", "workloads", "why"),
    [
        ([], [], [], "no controller has it: delete it, and make it again"),
        ([{**JOB[0], "controller": False}], [], [], "no controller has it: delete it, and make it again"),
        (JOB, [], [], "of the Job import, which has no rolling update: wait for its end, or delete the pod"),
        (owned("Clone", "a", "apps.kruise.io/v1"), [], [], "of the Clone a, which is not known here: restart it with"),
        (owned("StatefulSet", "a", "apps.kruise.io/v1"), [], [], "of the StatefulSet a, which is not known here"),
        (owned("ReplicationController", "a", "v1"), [], [], "of the ReplicationController a, which is not known here"),
        (owned("ReplicaSet", "web-abc"), [], [], "its ReplicaSet web-abc is not there any more"),
        (
            owned("ReplicaSet", "web-abc"),
            [replica_set(owners=[])],
            [],
            "of the ReplicaSet web-abc, which no Deployment has: delete the pod, and another one is made",
        ),
        (
            owned("ReplicaSet", "web-abc"),
            [replica_set(owners=owned("Rollout", "web", "argoproj.io/v1alpha1"))],
            [],
            "of the ReplicaSet web-abc, which a Rollout web has: delete the pod",
        ),
        (owned("ReplicaSet", "web-abc"), None, [], "its Deployment web is not there any more"),
        (owned("DaemonSet", "agent"), [], [], "its DaemonSet agent is not there any more"),
        (
            owned("ReplicaSet", "web-abc"),
            None,
            [workload("Deployment", paused=True)],
            "Deployment shop/web is paused (kubectl --namespace shop rollout resume deployment/web)",
        ),
        (
            owned("DaemonSet", "agent"),
            [],
            [workload("DaemonSet", "agent", updateStrategy={"type": "OnDelete"})],
            "DaemonSet shop/agent has the strategy OnDelete: delete the pod",
        ),
        (
            owned("StatefulSet", "db"),
            [],
            [workload("StatefulSet", "db", updateStrategy={"type": "OnDelete"})],
            "StatefulSet shop/db has the strategy OnDelete: delete the pod",
        ),
        (
            owned("StatefulSet", "db"),
            [],
            [workload("StatefulSet", "db", metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})],
            "StatefulSet shop/db is being deleted",
        ),
    ],
)
def test_pods_that_no_rolling_update_reaches(
    owners: list[dict[str, Any]],
    replica_sets: list[dict[str, Any]] | None,
    workloads: list[dict[str, Any]],
    why: str,
) -> None:
    made = planned([pod("b", owners), pod("a", owners)], workloads, replica_sets=replica_sets)
    assert made.steps == () and [left.pod for left in made.left] == ["shop/a", "shop/b"]
    assert all(left.why.startswith(why) for left in made.left), made.left
    assert made.lines()[0].startswith(f"leave pod/shop/a  # {why}")


@pytest.mark.parametrize(
    ("spec", "reached"),
    [
        ({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}}, ["db-9", "db-10", "db-11"]),
        ({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 10}}}, ["db-10", "db-11"]),
        (
            {"updateStrategy": {"rollingUpdate": {"partition": 2}}, "ordinals": {"start": 9}},
            ["db-11"],
        ),
        ({"updateStrategy": {"rollingUpdate": {"partition": 12}}}, []),
        ({}, ["db-9", "db-10", "db-11"]),
    ],
)
@pytest.mark.parametrize("labelled", [True, False])
def test_a_partition_leaves_the_lower_pods(spec: dict[str, Any], reached: list[str], labelled: bool) -> None:
    names = ["db-9", "db-10", "db-11"]
    labels = {name: {"apps.kubernetes.io/pod-index": name[3:]} if labelled else {} for name in names}
    pods = [pod(name, owned("StatefulSet", "db"), labels=labels[name]) for name in names]
    made = planned(pods, [workload("StatefulSet", "db", **spec)])
    assert [step.pods for step in made.steps] == ([len(reached)] if reached else [])
    assert sorted(left.pod for left in made.left) == sorted(f"shop/{name}" for name in names if name not in reached)
    assert all("has the partition" in left.why for left in made.left)


@pytest.mark.parametrize(("ignore", "left"), [("shop/web", 1), ("Deployment/shop/web", 1), ("DaemonSet/shop/web", 0)])
def test_what_is_ignored_is_left_and_not_judged(ignore: str, left: int) -> None:
    sick = workload("Deployment", status={"availableReplicas": 0})
    made = planned([pod(owners=owned("ReplicaSet", "web-abc"))], [sick], ignore=(ignore,))
    assert len(made.left) == left and len(made.steps) == len(made.unhealthy) == 1 - left
    assert all(entry.why == "Deployment shop/web is in ignore" for entry in made.left)


@pytest.mark.parametrize(
    ("kind", "status", "trouble"),
    [
        ("Deployment", {"availableReplicas": 1}, "1 of 2 replicas available"),
        ("Deployment", {"updatedReplicas": 1}, "1 of 2 replicas updated"),
        ("Deployment", {"observedGeneration": 2}, "its controller has not yet seen this version"),
        ("StatefulSet", {"readyReplicas": 1}, "1 of 2 replicas ready"),
        ("DaemonSet", {"numberAvailable": 0}, "available on 0 of 2 nodes"),
    ],
)
def test_what_was_not_healthy_before_is_refused_unless_it_is_ours(
    kind: str, status: dict[str, Any], trouble: str
) -> None:
    owners = owned("ReplicaSet", "web-abc") if kind == "Deployment" else owned(kind, "web")
    made = planned([pod(owners=owners)], [workload(kind, status=status)])
    assert [step.trouble for step in made.unhealthy] == [made.steps[0].trouble]
    text = plans.refusal(made.unhealthy)
    assert f"  {kind}/shop/web: {trouble}" in text and "Nothing was restarted" in text and "ignore: [shop/web]" in text
    resumed = planned([pod(owners=owners)], [workload(kind, status=status, annotations=MARKED)])
    assert resumed.steps[0].marked and resumed.unhealthy == ()
    # One that has nothing to do with it is nobody's business here.
    assert planned([], [workload(kind, status=status)]).unhealthy == ()


@pytest.mark.parametrize(
    ("kind", "course"),
    [
        (
            "Deployment",
            [
                {"replicas": 2, "updatedReplicas": 0, "availableReplicas": 2},
                {"replicas": 3, "updatedReplicas": 1, "availableReplicas": 2},
                {"replicas": 3, "updatedReplicas": 1, "availableReplicas": 3},
                {"replicas": 3, "updatedReplicas": 2, "availableReplicas": 2},
                {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 1},
                {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2},
            ],
        ),
        (
            "StatefulSet",
            [
                {"replicas": 2, "updatedReplicas": 0, "availableReplicas": 2},
                {"replicas": 2, "updatedReplicas": 1, "availableReplicas": 1},
                {"replicas": 2, "updatedReplicas": 1, "availableReplicas": 2},
                {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 1},
            ],
        ),
        (
            "DaemonSet",
            [
                {"currentNumberScheduled": 2, "updatedNumberScheduled": 0, "numberAvailable": 2},
                {"currentNumberScheduled": 2, "updatedNumberScheduled": 1, "numberAvailable": 1},
                {"currentNumberScheduled": 2, "updatedNumberScheduled": 2, "numberAvailable": 1},
            ],
        ),
    ],
)
def test_a_rollout_that_goes_on_is_seen_to(kind: str, course: list[dict[str, Any]]) -> None:
    reached = [plans.progress(workload(kind, status=status)) for status in course]
    assert reached == sorted(set(reached), key=lambda one: one or (0, 0, 0)) and None not in reached
    assert plans.progress(workload(kind, status={"observedGeneration": 2})) is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch": 0}, "batch: 0 workloads at a time are none; give at least 1"),
        ({"timeout": 0}, "timeout: 0 seconds are too few; give at least 1"),
        ({"request_timeout": -1}, "request_timeout: -1 seconds are too few; give at least 1"),
        ({"mark": " "}, "mark: is empty; give what tells this restart from others"),
        ({"ignore": ["shop/web", "web"]}, "ignore[1]: 'web' names no workload; give namespace/name"),
        ({"ignore": ["shop/"]}, "ignore[0]: 'shop/' names no workload"),
        ({"ignore": ["Pod/shop/web"]}, "kind of Deployment, StatefulSet, DaemonSet"),
        ({}, "nowhere does not exist"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], said: str) -> None:
    given = {name: option.get("default") for name, option in ARGUMENT_SPEC.items()}
    with pytest.raises(KubernetesError) as failed:
        runs.run(Call({**given, "kubeconfig": "nowhere", "mark": MARK, **options}))
    assert said in str(failed.value)
