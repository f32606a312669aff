# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""workload_restart and the ids of keys against a real API server.

There is no controller: the tests write the statuses that controllers would, and make their pods.
"""

from __future__ import annotations

import base64
import json
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

sys.path.insert(0, str(Path(__file__).parent))

import api_server
from test_manifest import client, programs, server
from test_node_drain import Killed

from ansible_collections.k8sgu.cluster.plugins.module_utils._credentials.pem import key_ids
from ansible_collections.k8sgu.cluster.plugins.module_utils._drain.plan import MIRROR_ANNOTATION
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes import lists
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.client import Client
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call
from ansible_collections.k8sgu.cluster.plugins.module_utils._restart import run as restart
from ansible_collections.k8sgu.cluster.plugins.module_utils._restart import work
from ansible_collections.k8sgu.cluster.plugins.module_utils._restart.options import ARGUMENT_SPEC
from ansible_collections.k8sgu.cluster.plugins.module_utils._restart.plan import MARK, RESOURCES

__all__ = ["client", "programs", "server"]  # fixtures
MERGE = "application/merge-patch+json"
TOKEN = {"projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
STATUS: dict[str, dict[str, Any]] = {
    "Deployment": {"replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2},
    "StatefulSet": {"replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2},
    "DaemonSet": {
        "currentNumberScheduled": 2,
        "desiredNumberScheduled": 2,
        "numberMisscheduled": 0,
        "numberReady": 2,
        "updatedNumberScheduled": 2,
        "numberAvailable": 2,
    },
}
# No pod runs the new template yet.
BEGUN = {
    "Deployment": {"updatedReplicas": 0},
    "StatefulSet": {"updatedReplicas": 0},
    "DaemonSet": {"updatedNumberScheduled": 0},
}


class Cluster:
    """A namespace of one test, and what controllers would do in it."""

    def __init__(self, client: Client, server: api_server.ApiServer) -> None:
        self.client, self.server = client, server
        self.name = "t" + uuid.uuid4().hex[:8]
        self.pods = f"/api/v1/namespaces/{self.name}/pods"
        client.request("POST", "/api/v1/namespaces", body={"metadata": {"name": self.name}})

    def collection(self, kind: str) -> str:
        return f"/apis/apps/v1/namespaces/{self.name}/{RESOURCES.get(kind, 'replicasets')}"

    def make(self, kind: str, name: str, owner: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
        """A workload and its status."""
        container = {"name": "c", "image": "none:1"}
        body = {
            "metadata": {"name": name, "ownerReferences": [self.reference(owner)] if owner else []},
            "spec": {
                "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}},
                **({} if kind == "DaemonSet" else {"replicas": 2}),
                **({"serviceName": name} if kind == "StatefulSet" else {}),
                **spec,
            },
        }
        made = self.client.request("POST", self.collection(kind), body=body)
        if kind in STATUS:
            self.say(kind, name)
        return made

    def reference(self, owner: dict[str, Any]) -> dict[str, Any]:
        entry = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"]}
        return {**entry, "uid": owner["metadata"]["uid"], "controller": True}

    def say(self, kind: str, name: str, **status: Any) -> None:
        """The status of the workload as it is now."""
        path = f"{self.collection(kind)}/{name}"
        generation = self.client.get(path)["metadata"]["generation"]
        body = {"status": {"observedGeneration": generation, **STATUS[kind], **status}}
        self.client.request("PATCH", f"{path}/status", body=body, content_type=MERGE)

    def pod(self, name: str, owner: dict[str, Any] | None, volume: dict[str, Any] | None = TOKEN, **more: Any) -> None:
        metadata = {"name": name, "labels": {"app": name.rpartition("-")[0]}, **more}
        metadata["ownerReferences"] = [self.reference(owner)] if owner else []
        volumes = [{"name": "v", **volume}] if volume else []
        # Without a grace period, a pod is gone as soon as it is deleted.
        spec = {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "none:1"}],
            "volumes": volumes,
        }
        spec["serviceAccountName"] = "robot"
        if more.get("annotations", {}).get(MIRROR_ANNOTATION):
            spec["nodeName"] = "a"
        self.client.request("POST", self.pods, body={"metadata": metadata, "spec": spec})
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        self.client.request("PATCH", f"{self.pods}/{name}/status", body={"status": status}, content_type=MERGE)

    def deployment(self, name: str, volume: dict[str, Any] | None = TOKEN, **spec: Any) -> None:
        above = self.make("Deployment", name, **spec)
        owner = self.make("ReplicaSet", f"{name}-abc", above)
        for number in (0, 1):
            self.pod(f"{name}-{number}", owner, volume)

    def plain(self, kind: str, name: str, **spec: Any) -> None:
        """A StatefulSet or a DaemonSet."""
        owner = self.make(kind, name, **spec)
        for number in (0, 1):
            self.pod(f"{name}-{number}", owner)

    def renew(self, kind: str, name: str) -> None:
        """What a controller does in the end: pods by the new template, and a status that says so."""
        template = self.client.get(f"{self.collection(kind)}/{name}")["spec"]["template"]["metadata"]
        for number in (0, 1):
            path = f"{self.pods}/{name}-{number}"
            body = {"metadata": {"annotations": template.get("annotations")}}
            self.client.request("PATCH", path, body=body, content_type=MERGE)
        self.say(kind, name)

    def run(self, check_mode: bool = False, mark: str = "one", **more: Any) -> dict[str, Any]:
        given = {name: option.get("default") for name, option in ARGUMENT_SPEC.items()}
        given.update(kubeconfig=str(self.server.kubeconfig), mark=mark, timeout=60)
        self.said: list[str] = []
        return restart.run(Call({**given, **more}, check_mode, say=self.said.append))

    def mark(self, kind: str, name: str) -> str | None:
        metadata = self.client.get(f"{self.collection(kind)}/{name}")["spec"]["template"]["metadata"]
        found = (metadata.get("annotations") or {}).get(MARK)
        return None if found is None else str(found)

    def keys(self, *names: str) -> list[str]:
        return [f"{name.partition('/')[0]}/{self.name}/{name.partition('/')[2]}" for name in names]


@pytest.fixture
def cluster(client: Client, server: api_server.ApiServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setattr(work, "PAUSE_S", 0.05)
    monkeypatch.setattr(restart, "PAUSE_S", 0.05)
    monkeypatch.setattr(restart, "SETTLE_S", 0.0)
    made = Cluster(client, server)
    yield made
    client.request("DELETE", made.pods, body={"gracePeriodSeconds": 0})
    for kind in (*RESOURCES, "ReplicaSet"):
        client.request("DELETE", made.collection(kind), body={"propagationPolicy": "Background"})


@pytest.fixture
def controllers(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Has every rollout complete once it was seen not to be; returns the workloads in the order of their marks."""
    marked: list[str] = []
    marks = work.Workloads._mark

    def mark(self: work.Workloads, step: Any) -> bool:
        there = marks(self, step)
        marked.append(step.key)
        cluster.say(step.kind, step.name, **BEGUN[step.kind])
        return there

    states: Callable[..., Any] = work.readiness
    seen: set[str] = set()

    def readiness(body: dict[str, Any]) -> Any:
        state = states(body)
        key = f"{body['kind']}/{body['metadata']['name']} {body['metadata']['generation']}"
        if not state.ready and key not in seen:
            seen.add(key)
            cluster.renew(body["kind"], body["metadata"]["name"])
        return state

    monkeypatch.setattr(work.Workloads, "_mark", mark)
    monkeypatch.setattr(work, "readiness", readiness)
    return marked


ALL = ("DaemonSet/agent", "Deployment/web", "StatefulSet/db")


def everything(cluster: Cluster) -> None:
    cluster.deployment("web")
    cluster.plain("StatefulSet", "db")
    cluster.plain("DaemonSet", "agent")


def test_everything_is_restarted_once(cluster: Cluster, controllers: list[str]) -> None:
    """The four steps: check, restart, check, restart; another mark is another restart."""
    everything(cluster)
    cluster.deployment("blind", None)
    cluster.pod("bare-0", None)
    cluster.pod("static-0", None, annotations={MIRROR_ANNOTATION: "x"})
    for mark in ("one", "two"):
        predicted = cluster.run(check_mode=True, mark=mark)
        assert predicted["changed"] and predicted["restarted"] == cluster.keys(*ALL)
        assert [cluster.mark(*name.split("/")) for name in ALL] == [None if mark == "one" else "one"] * 3
        made = cluster.run(mark=mark)
        assert made == predicted
        assert [cluster.mark(*name.split("/")) for name in ALL] == [mark] * 3
        assert made["left"] == [
            {"pod": f"{cluster.name}/bare-0", "why": "no controller has it: delete it, and make it again"}
        ]
        assert len(cluster.said) == 3 and cluster.said[-1].endswith("is restarted, 3 of 3")
        for check_mode in (True, False):
            again = cluster.run(check_mode, mark=mark)
            assert (again["changed"], again["restarted"], again["left"]) == (False, [], made["left"])
    assert cluster.mark("Deployment", "blind") is None
    assert len(controllers) == 6
    fields = cluster.client.get(f"{cluster.collection('Deployment')}/web")["metadata"]["managedFields"]
    [ours] = [entry["fieldsV1"] for entry in fields if entry["manager"] == work.FIELD_MANAGER]
    assert MARK in json.dumps(ours) and "image" not in json.dumps(ours)


def test_tokens_of_secrets_and_authorities_count_and_lists_are_read_to_their_end(
    cluster: Cluster, controllers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "PAGE", 1)
    account = {"kubernetes.io/service-account.name": "robot"}
    accounts, secrets = (f"/api/v1/namespaces/{cluster.name}/{kind}" for kind in ("serviceaccounts", "secrets"))
    cluster.client.request("POST", accounts, body={"metadata": {"name": "robot"}})
    body = {"metadata": {"name": "robot", "annotations": account}, "type": "kubernetes.io/service-account-token"}
    cluster.client.request("POST", secrets, body=body)
    cluster.client.request("POST", secrets, body={"metadata": {"name": "password"}})
    cluster.deployment("legacy", {"secret": {"secretName": "robot"}})
    cluster.deployment("ca", {"projected": {"sources": [{"configMap": {"name": "kube-root-ca.crt"}}]}})
    cluster.deployment("login", {"secret": {"secretName": "password"}})
    assert cluster.run(batch=1)["restarted"] == cluster.keys("Deployment/ca", "Deployment/legacy")
    assert controllers == cluster.keys("Deployment/ca", "Deployment/legacy")


def test_what_no_rolling_update_reaches_is_left(cluster: Cluster, controllers: list[str]) -> None:
    cluster.deployment("paused", paused=True)
    cluster.plain("DaemonSet", "manual", updateStrategy={"type": "OnDelete"})
    cluster.plain("StatefulSet", "canary", updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 1}})
    cluster.deployment("mine")
    made = cluster.run(ignore=[f"{cluster.name}/mine"])
    assert made["restarted"] == controllers == cluster.keys("StatefulSet/canary")
    names = ["canary-0", "manual-0", "manual-1", "mine-0", "mine-1", "paused-0", "paused-1"]
    assert [entry["pod"] for entry in made["left"]] == [f"{cluster.name}/{name}" for name in names]
    assert cluster.mark("DaemonSet", "manual") is cluster.mark("Deployment", "mine") is None


def test_what_is_sick_is_refused_before_anything_is_changed(cluster: Cluster, controllers: list[str]) -> None:
    everything(cluster)
    cluster.say("StatefulSet", "db", readyReplicas=1, availableReplicas=1)
    for check_mode in (True, False):
        with pytest.raises(restart.RestartError) as failed:
            cluster.run(check_mode)
        assert f"  StatefulSet/{cluster.name}/db: 1 of 2 replicas ready" in str(failed.value)
        assert f"ignore: [{cluster.name}/db]" in str(failed.value)
        assert (failed.value.result["changed"], failed.value.result["restarted"]) == (False, [])
    assert controllers == []
    made = cluster.run(ignore=[f"StatefulSet/{cluster.name}/db"])
    assert made["restarted"] == cluster.keys(*ALL[:2]) and len(made["left"]) == 2


def test_what_is_sick_for_a_moment_is_waited_for(
    cluster: Cluster, controllers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restart, "SETTLE_S", 60.0)
    cluster.deployment("web")
    cluster.say("Deployment", "web", availableReplicas=1)
    reads = []
    read = work.Workloads.read

    def counted(self: work.Workloads) -> Any:
        reads.append(1)
        if len(reads) == 3:
            cluster.say("Deployment", "web")
        return read(self)

    monkeypatch.setattr(work.Workloads, "read", counted)
    assert cluster.run()["restarted"] == controllers == cluster.keys("Deployment/web")
    assert len(reads) == 3


def test_a_rollout_that_does_not_go_on_is_explained_and_gone_on_with(cluster: Cluster) -> None:
    """Nothing answers the mark but a pod that does not start; the next run waits for what the first has begun."""
    cluster.deployment("web")
    cluster.deployment("zoo")
    above = cluster.client.get(f"{cluster.collection('Deployment')}/web")
    new = cluster.make("ReplicaSet", "web-def", above)
    cluster.pod("web-9", new, annotations={MARK: "one"})
    waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
    container = {"name": "c", "image": "none:1", "imageID": "", "restartCount": 0, "ready": False}
    status = {
        "phase": "Pending",
        "conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [{**container, "state": {"waiting": waiting}}],
    }
    cluster.client.request("PATCH", f"{cluster.pods}/web-9/status", body={"status": status}, content_type=MERGE)
    with pytest.raises(restart.RestartError) as failed:
        cluster.run(timeout=1, batch=1)
    text = str(failed.value)
    for part in (
        f"Deployment/{cluster.name}/web is not restarted after 1 s without progress: its controller has not yet seen",
        "web-9: container c: ImagePullBackOff no such image",
        f"Not begun: Deployment/{cluster.name}/zoo",
        "Old pods go on serving where the strategy of their workload lets them",
        f"ignore: [{cluster.name}/web]",
    ):
        assert part in text, text
    assert failed.value.result["changed"] and failed.value.result["restarted"] == []
    assert (cluster.mark("Deployment", "web"), cluster.mark("Deployment", "zoo")) == ("one", None)

    # Not complete, and all the same not refused; then it completes, without another change to it.
    generation = cluster.client.get(f"{cluster.collection('Deployment')}/web")["metadata"]["generation"]
    with pytest.raises(restart.RestartError, match="0 of 2 replicas updated"):
        cluster.say("Deployment", "web", updatedReplicas=0)
        cluster.run(timeout=1, ignore=[f"{cluster.name}/zoo"])
    finish = threading.Timer(0.5, cluster.renew, ("Deployment", "web"))
    finish.start()
    try:
        made = cluster.run(ignore=[f"{cluster.name}/zoo"])
    finally:
        finish.join()
    assert made["restarted"] == cluster.keys("Deployment/web") and not made["changed"]
    assert cluster.client.get(f"{cluster.collection('Deployment')}/web")["metadata"]["generation"] == generation


def test_a_rollout_that_has_failed_is_not_waited_for(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.deployment("web")
    marks = work.Workloads._mark

    def mark(self: work.Workloads, step: Any) -> bool:
        there = marks(self, step)
        progress = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
        conditions = [{**progress, "message": "it has timed out progressing"}]
        cluster.say("Deployment", "web", updatedReplicas=1, conditions=conditions)
        return there

    monkeypatch.setattr(work.Workloads, "_mark", mark)
    with pytest.raises(restart.RestartError, match="web is not restarted: it has timed out progressing"):
        cluster.run(timeout=3600)


def test_a_mark_that_is_taken_away_is_told(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an operator does that writes its workload anew from its own template."""
    cluster.deployment("web")
    marks = work.Workloads._mark

    def mark(self: work.Workloads, step: Any) -> bool:
        there = marks(self, step)
        body = {"spec": {"template": {"metadata": {"annotations": {MARK: None, "by": "operator"}}}}}
        cluster.client.request("PATCH", step.path, {"fieldManager": "operator"}, body, content_type=MERGE)
        return there

    monkeypatch.setattr(work.Workloads, "_mark", mark)
    with pytest.raises(
        restart.RestartError, match=r"one of .*operator.* has taken the annotation .*restarted-for away"
    ):
        cluster.run(timeout=3600)


def test_a_workload_that_is_deleted_meanwhile_is_not_waited_for(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.deployment("before")
    cluster.deployment("later")
    marks = work.Workloads._mark

    def mark(self: work.Workloads, step: Any) -> bool:
        if step.name == "before":
            cluster.client.request("DELETE", step.path)
            return marks(self, step)
        there = marks(self, step)
        cluster.client.request("DELETE", step.path)
        return there

    monkeypatch.setattr(work.Workloads, "_mark", mark)
    assert cluster.run(timeout=3600)["restarted"] == []


@pytest.mark.parametrize("requests", range(1, 4))
def test_a_run_that_is_killed_is_gone_on_with(
    cluster: Cluster, controllers: list[str], monkeypatch: pytest.MonkeyPatch, requests: int
) -> None:
    """After each mark in turn: what was marked is waited for, and the rest is restarted."""
    everything(cluster)
    with monkeypatch.context() as patch:
        marks = work.Workloads._mark

        def mark(self: work.Workloads, step: Any) -> bool:
            there = marks(self, step)
            if len(controllers) == requests:
                raise Killed
            return there

        patch.setattr(work.Workloads, "_mark", mark)
        with pytest.raises(Killed):
            cluster.run(batch=1)
    assert [cluster.mark(*name.split("/")) for name in ALL] == ["one"] * requests + [None] * (3 - requests)
    made = cluster.run(batch=1)
    assert made["restarted"] == cluster.keys(*ALL[requests - 1 :]) and made["changed"] == (requests < 3)
    assert [cluster.mark(*name.split("/")) for name in ALL] == ["one"] * 3
    assert not cluster.run()["restarted"]


@pytest.mark.parametrize(("batch", "most"), [(1, 1), (2, 2)])
def test_so_many_are_restarted_at_the_same_time(
    cluster: Cluster, controllers: list[str], monkeypatch: pytest.MonkeyPatch, batch: int, most: int
) -> None:
    """The first ones wait until as many are at work as may be."""
    everything(cluster)
    lock, met = threading.Lock(), threading.Barrier(most)
    at_work, seen = 0, 0
    restarts = work.Workloads.restart

    def watched(self: work.Workloads, step: Any) -> bool:
        nonlocal at_work, seen
        with lock:
            at_work += 1
            seen = max(seen, at_work)
        if step.kind != "StatefulSet":
            met.wait(timeout=30)
        done = restarts(self, step)
        with lock:
            at_work -= 1
        return done

    monkeypatch.setattr(work.Workloads, "restart", watched)
    assert cluster.run(batch=batch)["restarted"] == cluster.keys(*ALL) and seen == most


def test_a_key_has_the_id_that_the_api_server_gives_it(cluster: Cluster) -> None:
    accounts = f"/api/v1/namespaces/{cluster.name}/serviceaccounts"
    cluster.client.request("POST", accounts, body={"metadata": {"name": "robot"}})
    made = cluster.client.request("POST", f"{accounts}/robot/token", body={"spec": {}})
    header = made["status"]["token"].partition(".")[0]
    named = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))["kid"]
    key = serialization.load_pem_private_key((cluster.server.directory / "server-key.pem").read_bytes(), None)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    public = key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()
    assert key_ids(public) == [named]
