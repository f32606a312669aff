# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""k8sgu.cluster.manifest against a real API server."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))

import ansible_program
import api_server
import forward_proxy

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes import kubeconfig
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.client import ApiError, Client
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._manifest import objects
from ansible_collections.k8sgu.cluster.plugins.module_utils._manifest.engine import Engine, Options, Result

APPLY = "application/apply-patch+yaml"


@pytest.fixture(scope="module")
def programs() -> tuple[Path, Path]:
    etcd = api_server.find_program("etcd", "etcd")
    apiserver = api_server.find_program("kube-apiserver", "kube-apiserver")
    if etcd is None or apiserver is None:
        pytest.skip("no mirror with etcd and kube-apiserver; fill one with `make up`, or name it in K8SGU_MIRROR_DIR")
    return etcd, apiserver


@pytest.fixture(scope="module")
def server(programs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[api_server.ApiServer]:
    with api_server.running(tmp_path_factory.mktemp("api"), *programs) as running:
        yield running


@pytest.fixture
def client(server: api_server.ApiServer) -> Iterator[Client]:
    client = Client(kubeconfig.load(str(server.kubeconfig), None), 20)
    yield client
    client.close()


@pytest.fixture
def name() -> str:
    """A set and a namespace of the test's own, so that tests do not interfere."""
    return "t-" + uuid.uuid4().hex[:8]


def apply(client: Client, set_name: str, text: str, **options: Any) -> Result:
    chosen: dict[str, Any] = {
        "namespace": "default",
        "present": True,
        "prune": True,
        "wait": False,
        "wait_timeout": 20,
        "force_conflicts": False,
        "take_over": False,
        "check_mode": False,
        **options,
    }
    documents = [(body, "test") for body in objects.parse(textwrap.dedent(text), "test")]
    return Engine(client, Options(name=set_name, **chosen)).run(objects.collect(documents, set_name))


def actions(result: Result) -> dict[str, str]:
    return {str(outcome.key): outcome.action for outcome in result.outcomes}


def config_map(name: str, **data: str) -> str:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
    return "---\n" + yaml.safe_dump(body)


def web(name: str) -> str:
    return f"""
        apiVersion: v1
        kind: Secret
        metadata: {{name: web, namespace: {name}}}
        stringData: {{password: hunter2}}
        ---
        apiVersion: apps/v1
        kind: Deployment
        metadata: {{name: web, namespace: {name}}}
        spec:
          replicas: 2
          selector: {{matchLabels: {{app: web}}}}
          template:
            metadata: {{labels: {{app: web}}}}
            spec: {{containers: [{{name: web, image: "web:1"}}]}}
        ---
        apiVersion: v1
        kind: Namespace
        metadata: {{name: {name}}}
        """


def test_a_set_is_made_once_and_a_second_run_changes_nothing(client: Client, name: str) -> None:
    """The four steps: check, run, check, run; the namespace comes last in the text and first on the server."""
    predicted = apply(client, name, web(name), check_mode=True)
    assert set(actions(predicted).values()) == {"created"}
    assert client.find(f"/api/v1/namespaces/{name}") is None
    assert client.find(f"/api/v1/namespaces/kube-system/configmaps/k8sgu-set-{name}") is None

    made = apply(client, name, web(name))
    assert list(actions(made)) == [f"Namespace {name}", f"Secret {name}/web", f"Deployment {name}/web"]
    assert actions(made) == actions(predicted)
    assert made.server_version.startswith("v1.")

    path = f"/apis/apps/v1/namespaces/{name}/deployments/web"
    version = client.get(path)["metadata"]["resourceVersion"]
    for check_mode in (True, False):
        again = apply(client, name, web(name), check_mode=check_mode)
        assert not again.changed
        assert again.diff() == []
    assert client.get(path)["metadata"]["resourceVersion"] == version
    assert client.get(path)["metadata"]["labels"]["k8sgu.io/set"] == name


def test_check_mode_shows_a_change_that_it_does_not_make(client: Client, name: str) -> None:
    apply(client, name, config_map(name, key="old"))
    predicted = apply(client, name, config_map(name, key="new"), check_mode=True)
    (entry,) = predicted.diff()
    assert "key: old" in entry["before"]
    assert "key: new" in entry["after"]
    assert client.get(f"/api/v1/namespaces/default/configmaps/{name}")["data"] == {"key": "old"}
    assert actions(apply(client, name, config_map(name, key="new"))) == {f"ConfigMap default/{name}": "configured"}


def test_a_field_that_is_no_longer_given_is_removed(client: Client, name: str) -> None:
    apply(client, name, config_map(name, one="1", two="2"))
    apply(client, name, config_map(name, one="1"))
    assert client.get(f"/api/v1/namespaces/default/configmaps/{name}")["data"] == {"one": "1"}


def test_pruning_removes_what_is_no_longer_in_the_set(client: Client, name: str) -> None:
    apply(client, name, config_map(f"{name}-a", k="v") + config_map(f"{name}-b", k="v"))
    only_a = config_map(f"{name}-a", k="v")
    predicted = apply(client, name, only_a, check_mode=True)
    assert actions(predicted)[f"ConfigMap default/{name}-b"] == "deleted"
    assert client.find(f"/api/v1/namespaces/default/configmaps/{name}-b")

    kept = apply(client, name, only_a, prune=False)
    assert not kept.changed
    pruned = apply(client, name, only_a)
    assert actions(pruned)[f"ConfigMap default/{name}-b"] == "deleted"
    assert client.find(f"/api/v1/namespaces/default/configmaps/{name}-b") is None
    assert not apply(client, name, only_a).changed


def test_pruning_spares_what_another_set_has_taken_over(client: Client, name: str) -> None:
    both = config_map(f"{name}-a", k="v") + config_map(f"{name}-b", k="v")
    apply(client, name, both)
    other = f"{name}-other"
    # Taking fields back from another manager is not taking an object from another set.
    for force in (False, True):
        with pytest.raises(KubernetesError, match=f"belongs to the set {name}.*take_over"):
            apply(client, other, config_map(f"{name}-b", k="v"), force_conflicts=force)
    apply(client, other, config_map(f"{name}-b", k="v"), take_over=True)
    assert not apply(client, name, config_map(f"{name}-a", k="v")).changed
    assert client.find(f"/api/v1/namespaces/default/configmaps/{name}-b")


def test_absent_removes_the_set_with_its_inventory_and_no_more(client: Client, name: str) -> None:
    apply(client, name, config_map(f"{name}-a", k="v") + config_map(f"{name}-b", k="v"))
    foreign = f"/api/v1/namespaces/default/configmaps/{name}-foreign"
    client.request(
        "PATCH", foreign, {"fieldManager": "someone"}, yaml.safe_load(config_map(f"{name}-foreign", k="v")), APPLY
    )
    predicted = apply(client, name, "", present=False, check_mode=True)
    assert set(actions(predicted)) == {f"ConfigMap default/{name}-a", f"ConfigMap default/{name}-b"}
    assert client.find(f"/api/v1/namespaces/default/configmaps/{name}-a")
    gone = apply(client, name, config_map(f"{name}-foreign", k="v"), present=False, wait=True)
    assert actions(gone) == actions(predicted)
    assert client.find(f"/api/v1/namespaces/default/configmaps/{name}-a") is None
    assert client.find(f"/api/v1/namespaces/kube-system/configmaps/k8sgu-set-{name}") is None
    assert client.find(foreign)
    assert not apply(client, name, "", present=False).changed


def test_removal_that_is_held_up_says_by_what(client: Client, name: str) -> None:
    held = f"""
        apiVersion: v1
        kind: ConfigMap
        metadata: {{name: {name}, finalizers: [example.com/hold]}}
        """
    apply(client, name, held)
    with pytest.raises(KubernetesError, match=rf"not gone after 1 s: ConfigMap default/{name} .*example.com/hold"):
        apply(client, name, "", present=False, wait=True, wait_timeout=1)
    path = f"/api/v1/namespaces/default/configmaps/{name}"
    client.request("PATCH", path, None, {"metadata": {"finalizers": None}}, "application/merge-patch+json")
    # The next run completes an interrupted removal, since the inventory still exists.
    apply(client, name, "", present=False, wait=True)
    assert client.find(f"/api/v1/namespaces/kube-system/configmaps/k8sgu-set-{name}") is None


def crd(group: str) -> str:
    return f"""
        apiVersion: {group}/v1
        kind: Widget
        metadata: {{name: first}}
        spec: {{size: 3}}
        ---
        apiVersion: apiextensions.k8s.io/v1
        kind: CustomResourceDefinition
        metadata: {{name: widgets.{group}}}
        spec:
          group: {group}
          scope: Namespaced
          names: {{plural: widgets, singular: widget, kind: Widget}}
          versions:
            - name: v1
              served: true
              storage: true
              schema:
                openAPIV3Schema:
                  type: object
                  properties: {{spec: {{type: object, properties: {{size: {{type: integer}}}}}}}}
        """


def test_a_definition_and_its_resource_come_in_one_set(client: Client, name: str) -> None:
    group = f"{name}.example.com"
    predicted = apply(client, name, crd(group), check_mode=True)
    made = apply(client, name, crd(group))
    assert actions(made) == actions(predicted)
    assert client.get(f"/apis/{group}/v1/namespaces/default/widgets/first")["spec"] == {"size": 3}
    assert not apply(client, name, crd(group)).changed
    assert not apply(client, name, crd(group), check_mode=True).changed
    gone = apply(client, name, "", present=False, wait=True)
    assert [outcome.key.kind for outcome in gone.outcomes] == ["Widget", "CustomResourceDefinition"]


def test_a_conflict_names_manager_and_field(client: Client, name: str) -> None:
    path = f"/api/v1/namespaces/default/configmaps/{name}"
    body = yaml.safe_load(config_map(name, key="theirs"))
    client.request("PATCH", path, {"fieldManager": "someone-else"}, body, APPLY)
    for check_mode in (True, False):
        with pytest.raises(KubernetesError, match=r"\.data\.key: conflict with \"someone-else\".*force_conflicts"):
            apply(client, name, config_map(name, key="ours"), check_mode=check_mode)
    assert client.get(path)["data"] == {"key": "theirs"}
    apply(client, name, config_map(name, key="ours"), force_conflicts=True)
    assert client.get(path)["data"] == {"key": "ours"}


def test_replicas_that_another_manager_changed_are_restored(client: Client, name: str) -> None:
    """As after `kubectl scale`: site.yml continues and says what it changed."""
    path = f"/apis/apps/v1/namespaces/{name}/deployments/web"
    apply(client, name, web(name))
    scaled = {"spec": {"replicas": 1}}
    client.request("PATCH", f"{path}/scale", {"fieldManager": "kubectl"}, scaled, "application/merge-patch+json")
    with pytest.raises(KubernetesError, match=r"\.spec\.replicas: conflict with \"kubectl\""):
        apply(client, name, web(name))
    assert client.get(path)["spec"]["replicas"] == 1
    for check_mode in (True, False):
        put_back = apply(client, name, web(name), force_conflicts=True, check_mode=check_mode)
        assert actions(put_back)[f"Deployment {name}/web"] == "configured"
    assert client.get(path)["spec"]["replicas"] == 2
    assert not apply(client, name, web(name)).changed


def scaled_web(name: str) -> str:
    """`web` with an autoscaler."""
    return f"""{web(name)}
        ---
        apiVersion: autoscaling/v2
        kind: HorizontalPodAutoscaler
        metadata: {{name: web, namespace: {name}}}
        spec:
          scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: web}}
          minReplicas: 2
          maxReplicas: 6
        """


def test_an_autoscaler_of_the_set_keeps_the_replicas_that_it_gave(client: Client, name: str) -> None:
    path = f"/apis/apps/v1/namespaces/{name}/deployments/web"
    options = {"force_conflicts": True}
    apply(client, name, scaled_web(name), **options)
    assert client.get(path)["spec"]["replicas"] == 2
    for given, kept in ((5, 5), (9, 6), (0, 2)):
        scaled = {"spec": {"replicas": given}}
        client.request("PATCH", f"{path}/scale", {"fieldManager": "hpa"}, scaled, "application/merge-patch+json")
        for check_mode in (True, False):
            again = apply(client, name, scaled_web(name), check_mode=check_mode, **options)
            assert again.changed is (given != kept)
        assert client.get(path)["spec"]["replicas"] == kept
        assert not apply(client, name, scaled_web(name), **options).changed
    # Without it the description decides again.
    client.request(
        "PATCH", f"{path}/scale", {"fieldManager": "hpa"}, {"spec": {"replicas": 5}}, "application/merge-patch+json"
    )
    apply(client, name, web(name), **options)
    assert client.get(path)["spec"]["replicas"] == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "apiVersion: apps/v1\nkind: Deploymnet\nmetadata: {name: x}",
            "knows no Deploymnet of apps/v1; did you mean Deployment",
        ),
        ("apiVersion: v1\nkind: Deployment\nmetadata: {name: x}", "the server has Deployment in apps/v1"),
        ("apiVersion: e.com/v1\nkind: Qqqqqqq\nmetadata: {name: x}", "is its custom resource definition missing"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndatta: {}", ".datta: field not declared in schema"),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x, namespace: nowhere}",
            "namespace nowhere does not exist",
        ),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: X_}", "lowercase RFC 1123"),
    ],
)
def test_bad_objects_are_refused_in_clear_words(client: Client, name: str, text: str, expected: str) -> None:
    with pytest.raises(KubernetesError) as caught:
        apply(client, name, text)
    assert expected in str(caught.value)


def test_an_unknown_kind_stops_the_set_before_its_first_object(client: Client, name: str) -> None:
    with pytest.raises(KubernetesError, match="knows no Nothing"):
        apply(client, name, config_map(name, k="v") + "---\napiVersion: v1\nkind: Nothing\nmetadata: {name: x}")
    assert client.find(f"/api/v1/namespaces/default/configmaps/{name}") is None


def set_status(client: Client, path: str, status: dict[str, Any]) -> None:
    """Sets the status in place of a controller, which does not run here."""
    client.request("PATCH", f"{path}/status", None, {"status": status}, "application/merge-patch+json")


def test_waiting_ends_when_the_deployment_is_rolled_out(client: Client, name: str) -> None:
    path = f"/apis/apps/v1/namespaces/{name}/deployments/web"
    stopped = threading.Event()

    def controller() -> None:
        other = Client(client.access, 20)
        while not stopped.wait(0.3):
            with contextlib.suppress(ApiError):
                generation = other.get(path)["metadata"]["generation"]
                counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 2)
                set_status(other, path, {"observedGeneration": generation, **counts})
        other.close()

    thread = threading.Thread(target=controller)
    thread.start()
    try:
        result = apply(client, name, web(name), wait=True, wait_timeout=60)
    finally:
        stopped.set()
        thread.join()
    ready = {str(outcome.key): outcome.seconds_to_ready for outcome in result.outcomes}
    assert (ready[f"Deployment {name}/web"] or 0) > 0
    assert ready[f"Secret {name}/web"] is None


def test_a_timeout_says_what_was_waited_for_and_why_pods_fail(client: Client, name: str) -> None:
    apply(client, name, web(name))
    pod = f"""
        apiVersion: v1
        kind: Pod
        metadata: {{name: web-1, namespace: {name}, labels: {{app: web}}}}
        spec: {{containers: [{{name: web, image: "web:1"}}]}}
        """
    apply(client, f"{name}-pod", pod)
    waiting = {"reason": "ErrImagePull", "message": "no such image"}
    container = {
        "name": "web",
        "image": "web:1",
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": {"waiting": waiting},
    }
    set_status(client, f"/api/v1/namespaces/{name}/pods/web-1", {"phase": "Pending", "containerStatuses": [container]})
    set_status(
        client,
        f"/apis/apps/v1/namespaces/{name}/deployments/web",
        {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1},
    )
    with pytest.raises(KubernetesError) as caught:
        apply(client, name, web(name), wait=True, wait_timeout=1)
    assert f"Deployment {name}/web: 1 of 2 replicas updated" in str(caught.value)
    assert "Pod web-1: container web: ErrImagePull no such image" in str(caught.value)


def test_an_eviction_is_explained_by_its_node_and_events(client: Client, name: str) -> None:
    """Evicted pods are counted, the waiting pod is explained, and the node's full disk is named."""
    apply(client, name, web(name))
    meta = {"namespace": name, "labels": {"app": "web"}}
    spec = {"nodeName": name, "containers": [{"name": "web", "image": "web:1"}]}
    pods = f"/api/v1/namespaces/{name}/pods"
    client.request("POST", "/api/v1/nodes", {}, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
    pressure = {"type": "DiskPressure", "status": "True", "message": "kubelet has disk pressure"}
    set_status(client, f"/api/v1/nodes/{name}", {"conditions": [pressure, {"type": "Ready", "status": "True"}]})
    for number in range(12):
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"web-{number}", **meta}, "spec": spec}
        made = client.request("POST", pods, {}, body)
        evicted = {"phase": "Failed", "reason": "Evicted", "message": "The node had condition: [DiskPressure]."}
        set_status(client, f"{pods}/web-{number}", evicted if number else {"phase": "Pending"})
        if number == 0:
            about = {"kind": "Pod", "namespace": name, "name": "web-0", "uid": made["metadata"]["uid"]}
            event = {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": f"web-0.{name}", "namespace": name},
                "involvedObject": about,
                "type": "Warning",
                "reason": "FailedMount",
                "message": "secret of hunter2 is not there",
                "count": 3,
            }
            client.request("POST", f"/api/v1/namespaces/{name}/events", {}, event)
    with pytest.raises(KubernetesError) as caught:
        apply(client, name, web(name), wait=True, wait_timeout=1)
    lines = [line.strip() for line in str(caught.value).splitlines()]
    assert lines[-3:] == [
        f"Pod web-0 on {name}: its node's kubelet has not started it; "
        "FailedMount (3 times): secret of (secret) is not there",
        f"11 pods ended on {name}: Evicted: The node had condition: [DiskPressure].",
        f"Node {name}: DiskPressure: kubelet has disk pressure",
    ]


def test_a_daemon_set_retries_when_the_node_is_ready_again(client: Client, name: str) -> None:
    """Its controller would wait for minutes; one on a node that is not well stays, and so does anybody else's."""
    text = f"""
        apiVersion: v1
        kind: Namespace
        metadata: {{name: {name}}}
        ---
        apiVersion: apps/v1
        kind: DaemonSet
        metadata: {{name: agent, namespace: {name}}}
        spec:
          selector: {{matchLabels: {{app: agent}}}}
          template:
            metadata: {{labels: {{app: agent}}}}
            spec: {{containers: [{{name: agent, image: "agent:1"}}]}}
        """
    apply(client, name, text)
    agent = client.get(f"/apis/apps/v1/namespaces/{name}/daemonsets/agent")["metadata"]["uid"]
    owner = {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "agent", "uid": agent, "controller": True}
    pods = f"/api/v1/namespaces/{name}/pods"
    for node, pressure, owners, phase in (
        ("well", "False", [owner], "Failed"),
        ("full", "True", [owner], "Failed"),
        ("runs", "False", [owner], "Running"),
        ("other", "False", [{**owner, "name": "other"}], "Failed"),
    ):
        body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"{name}-{node}"}}
        client.request("POST", "/api/v1/nodes", {}, body)
        conditions = [{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": pressure}]
        set_status(client, f"/api/v1/nodes/{name}-{node}", {"conditions": conditions})
        spec = {
            "nodeName": f"{name}-{node}",
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "agent", "image": "agent:1"}],
        }
        metadata = {"name": node, "labels": {"app": "agent"}, "ownerReferences": owners}
        client.request("POST", pods, {}, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
        set_status(client, f"{pods}/{node}", {"phase": phase})
    apply(client, name, text, check_mode=True, wait=True)
    assert len(client.get(pods)["items"]) == 4
    with pytest.raises(KubernetesError, match=f"DaemonSet {name}/agent"):
        apply(client, name, text, wait=True, wait_timeout=1)
    left = {pod["metadata"]["name"] for pod in client.get(pods)["items"] if "deletionTimestamp" not in pod["metadata"]}
    assert left == {"full", "runs", "other"}


def test_a_pod_waits_for_its_service_account(programs: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    """Longer than a request is tried again: a controller manager may first have to become the leader."""
    pod = f"""
        apiVersion: v1
        kind: Namespace
        metadata: {{name: {name}}}
        ---
        apiVersion: v1
        kind: Pod
        metadata: {{name: web, namespace: {name}}}
        spec: {{containers: [{{name: web, image: "web:1"}}]}}
        """
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    with api_server.running(tmp_path, *programs, accounts_required=True) as server:
        client = Client(kubeconfig.load(str(server.kubeconfig), None), 3)
        for waiting in ({"wait": False}, {"wait": True, "wait_timeout": 2}):
            with pytest.raises(KubernetesError, match="the controller manager makes `default`: is it running"):
                apply(client, name, pod, **waiting)
        accounts = f"/api/v1/namespaces/{name}/serviceaccounts"
        late = threading.Timer(6, client.request, ["POST", accounts, {}, account])
        late.start()
        with pytest.raises(KubernetesError, match=f"Pod {name}/web"):  # there is no kubelet to make it ready
            apply(client, name, pod, wait=True, wait_timeout=15)
        late.join()
        assert client.find(f"/api/v1/namespaces/{name}/pods/web")
        client.close()


def test_a_failed_job_ends_the_wait_at_once(client: Client, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    job = f"""
        apiVersion: batch/v1
        kind: Job
        metadata: {{name: {name}}}
        spec: {{template: {{spec: {{restartPolicy: Never, containers: [{{name: c, image: c}}]}}}}}}
        """
    apply(client, name, job)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    condition = {"status": "True", "reason": "BackoffLimitExceeded", "message": "too often", "lastTransitionTime": now}
    conditions = [{"type": "FailureTarget", **condition}, {"type": "Failed", **condition}]
    status = {"conditions": conditions, "startTime": now, "failed": 1}
    set_status(client, f"/apis/batch/v1/namespaces/default/jobs/{name}", status)
    asked = []
    readiness = Engine._readiness
    monkeypatch.setattr(Engine, "_readiness", lambda engine, item: asked.append(item.key) or readiness(engine, item))
    with pytest.raises(KubernetesError, match=rf"Job default/{name}: failed: too often"):
        apply(client, name, job, wait=True, wait_timeout=120)
    assert len(asked) == 1


def test_an_immutable_field_is_refused_with_what_to_do(client: Client, name: str) -> None:
    text = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\nimmutable: true\ndata: {{k: %s}}"
    apply(client, name, text % "a")
    with pytest.raises(KubernetesError, match=r"field is immutable.*Remove the object first"):
        apply(client, name, text % "b")


class Proxy:
    """Between client and server: resets the first `resets` connections, as a server that restarts does."""

    def __init__(self, target: int, resets: int) -> None:
        self.target, self.resets = target, resets
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _address = self.listener.accept()
                if self.resets > 0:
                    self.resets -= 1
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self.target))
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.listener.close()


def other_kubeconfig(server: api_server.ApiServer, path: Path, **changes: str) -> str:
    """The administrator's, with a few things replaced."""
    text = server.kubeconfig.read_text()
    for old, new in changes.items():
        text = text.replace({"url": server.url, "authority": "ca.pem", "certificate": "admin.pem"}[old], new)
    for name in ("ca.pem", "admin.pem", "admin-key.pem"):
        text = text.replace(f"authority: {name}", f"authority: {server.directory / name}")
    path.write_text(text)
    return str(path)


def test_a_server_that_drops_connections_is_tried_again(
    server: api_server.ApiServer, tmp_path: Path, name: str
) -> None:
    proxy = Proxy(int(server.url.rpartition(":")[2]), resets=3)
    path = other_kubeconfig(server, tmp_path / "config", url=f"https://127.0.0.1:{proxy.port}")
    client = Client(kubeconfig.load(path, None), 30)
    try:
        assert apply(client, name, config_map(name, k="v")).changed
        assert proxy.resets == 0
    finally:
        client.close()
        proxy.close()


class BehindProxy:
    """A kubeconfig whose server only a proxy finds, and the proxy's address in the environment."""

    def __init__(self, server: api_server.ApiServer, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.port = int(server.url.rpartition(":")[2])
        self.hosts = {"api.example": ("127.0.0.1", self.port)}
        self.asked = f"CONNECT api.example:{self.port}"
        self.path = other_kubeconfig(server, directory / "config", url=f"https://api.example:{self.port}")
        document = yaml.safe_load(Path(self.path).read_text())
        self.cluster = document["clusters"][0]["cluster"]
        self.cluster["tls-server-name"] = "localhost"
        self.document, self.set = document, monkeypatch.setenv
        self.write()

    def write(self, **changes: str) -> None:
        self.cluster.update(changes)
        Path(self.path).write_text(yaml.safe_dump(self.document))

    def environment(self, proxy: str, exceptions: str = "") -> None:
        for name, value in {**forward_proxy.variables(proxy), "NO_PROXY": exceptions}.items():
            self.set(name, value)

    def ours(self) -> str:
        """The server's version; a request that fails is not tried for long."""
        client = Client(kubeconfig.load(self.path, None), 1)
        with contextlib.closing(client):
            return str(client.get("/version")["gitVersion"])

    def kubectls(self) -> str:
        program = api_server.find_program("kubectl", "kubectl")
        if program is None:
            pytest.skip("no mirror with kubectl; fill one with `make up`, or name it in K8SGU_MIRROR_DIR")
        argv = [program, f"--kubeconfig={self.path}", "get", "--raw=/version", "--request-timeout=10s"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return str(json.loads(done.stdout)["gitVersion"])


@pytest.fixture
def behind(server: api_server.ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BehindProxy:
    return BehindProxy(server, tmp_path, monkeypatch)


def test_the_environments_proxy_is_used_as_kubectl_uses_it(behind: BehindProxy) -> None:
    with forward_proxy.running(behind.hosts, "user:pa55@word") as proxy:
        behind.environment(f"http://user:pa55%40word@127.0.0.1:{proxy.port}")
        assert behind.ours() == behind.kubectls()
        assert proxy.requests == [behind.asked] * 2
        assert proxy.refused == []
        behind.environment(f"http://user:wr0ng@127.0.0.1:{proxy.port}")
        with pytest.raises(KubernetesError, match=r"\(HTTPS_PROXY\) answers 407 .*NO_PROXY") as raised:
            behind.ours()
        assert "wr0ng" not in str(raised.value)
        assert proxy.refused == [behind.asked]  # a refusal is final


def test_exceptions_are_reached_directly_as_by_kubectl(server: api_server.ApiServer, behind: BehindProxy) -> None:
    """Loopback is by itself; a name by the list, and then it is not found."""
    with forward_proxy.running(behind.hosts) as proxy:
        behind.environment(f"http://127.0.0.1:{proxy.port}", ".example")
        with pytest.raises(KubernetesError, match=rf"https://api.example:{behind.port}: cannot be reached"):
            behind.ours()
        behind.write(server=server.url)
        behind.environment(f"http://127.0.0.1:{proxy.port}")
        assert behind.ours() == behind.kubectls()
        # A kubeconfig's own proxy knows no exceptions.
        behind.write(**{"proxy-url": f"http://127.0.0.1:{proxy.port}", "server": f"https://api.example:{behind.port}"})
        behind.environment("http://127.0.0.1:1", "*")
        assert proxy.requests == []
        assert behind.ours() == behind.kubectls()
        assert proxy.requests == [behind.asked] * 2


def test_a_proxy_that_is_down_is_named(behind: BehindProxy) -> None:
    with forward_proxy.dead() as dead:
        behind.environment(dead.replace("//", "//user:pa55word@"))
        with pytest.raises(
            KubernetesError, match=rf"through the proxy {dead[7:]} \(HTTPS_PROXY\): cannot be reached for 1 s .*refused"
        ) as raised:
            behind.ours()
        assert "pa55word" not in str(raised.value)
        # What it answers while the server is not up may pass.
        with forward_proxy.running({"api.example": ("127.0.0.1", int(dead.rpartition(":")[2]))}) as proxy:
            behind.environment(f"http://127.0.0.1:{proxy.port}")
            with pytest.raises(KubernetesError, match=r"cannot be reached for 1 s .*answers 502"):
                behind.ours()
            assert len(proxy.requests) > 1
        behind.environment("socks5://127.0.0.1:1080")
        with pytest.raises(KubernetesError, match=r"^HTTPS_PROXY: its scheme is socks5"):
            behind.ours()


def test_a_server_that_cannot_be_reached_is_an_error_that_names_it(
    server: api_server.ApiServer, tmp_path: Path
) -> None:
    port = api_server.free_port()
    path = other_kubeconfig(server, tmp_path / "config", url=f"https://127.0.0.1:{port}")
    with pytest.raises(KubernetesError, match=rf"https://127.0.0.1:{port}: cannot be reached for 1 s .*refused"):
        Client(kubeconfig.load(path, None), 1).get("/version")


def test_a_foreign_server_is_not_trusted(server: api_server.ApiServer, tmp_path: Path) -> None:
    foreign, _key = api_server.issue("foreign-ca").write(tmp_path, "foreign")
    path = other_kubeconfig(server, tmp_path / "config")
    text = Path(path).read_text().replace(str(server.directory / "ca.pem"), foreign)
    Path(path).write_text(text)
    with pytest.raises(KubernetesError, match="its certificate is not accepted"):
        Client(kubeconfig.load(path, None), 5).get("/version")


def test_an_expired_certificate_is_renewed_by_the_site(server: api_server.ApiServer, tmp_path: Path) -> None:
    authority = api_server.issue("expired-ca")
    certificate, key = api_server.issue("api", issuer=authority, minutes=-1).write(tmp_path, "expired")
    trusted, _key = authority.write(tmp_path, "trusted")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as expired:
        expired.socket = context.wrap_socket(expired.socket, server_side=True)
        threading.Thread(target=expired.serve_forever, daemon=True).start()
        path = other_kubeconfig(server, tmp_path / "config", url=f"https://127.0.0.1:{expired.server_address[1]}")
        Path(path).write_text(Path(path).read_text().replace(str(server.directory / "ca.pem"), trusted))
        with pytest.raises(KubernetesError, match=r"certificate has expired\); run playbooks/site.yml, which renews"):
            Client(kubeconfig.load(path, None), 5).get("/version")
        expired.shutdown()


def test_credentials_of_another_cluster_are_refused(server: api_server.ApiServer, tmp_path: Path) -> None:
    authority = api_server.issue("foreign-ca")
    certificate, key = api_server.issue("admin", "system:masters", authority).write(tmp_path, "foreign")
    path = api_server.write_kubeconfig(
        tmp_path / "config", server.url, str(server.directory / "ca.pem"), certificate, key
    )
    with pytest.raises(KubernetesError, match=f"refuses the credentials of {path}"):
        Client(kubeconfig.load(str(path), None), 2).get("/api/v1/namespaces")


def playbook(directory: Path, options: dict[str, Any], *arguments: str) -> subprocess.Popen[str]:
    """ansible-playbook with one task, started."""
    task = {"k8sgu.cluster.manifest": options}
    (directory / "play.yml").write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [task]}]))
    return ansible_program.start(
        "ansible-playbook",
        "--inventory=localhost,",
        "--connection=local",
        "play.yml",
        *arguments,
        cwd=directory,
        environment=ansible_program.own_configuration(directory),
    )


def kill_tree(pid: int) -> None:
    """Ends a process and what it started; Ansible's workers are in sessions of their own."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    doomed = [pid]
    for parent in doomed:
        doomed += children.get(parent, [])
    for one in doomed:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def run_playbook(directory: Path, options: dict[str, Any], *arguments: str) -> str:
    return playbook(directory, options, *arguments).communicate(timeout=200)[0]


def test_secrets_stay_out_of_all_output(server: api_server.ApiServer, tmp_path: Path, name: str) -> None:
    (tmp_path / "templates").mkdir()
    secret = "{apiVersion: v1, kind: Secret, metadata: {name: NAME}, stringData: {password: '{{ value }}'}}"
    (tmp_path / "templates" / "secret.yml.j2").write_text(secret.replace("NAME", name))
    options = {"kubeconfig": str(server.kubeconfig), "name": name, "template": "secret.yml.j2"}
    for value, changed in (("hunter2", 1), ("hunter3", 1), ("hunter3", 0)):
        for arguments in (["--check"], []):
            output = run_playbook(tmp_path, {**options, "vars": {"value": value}}, "--diff", "-vvvv", *arguments)
            assert f"changed={changed}" in output, output
            assert "failed=0" in output
            for shown in (value, base64.b64encode(value.encode()).decode()):
                assert shown not in output


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"kubeconfig": "/nonexistent", "name": "x", "definition": [{}]}, "an object lacks apiVersion"),
        ({"kubeconfig": "/nonexistent", "name": "x", "definition": ["a: [b"]}, "is not YAML"),
        ({"kubeconfig": "/nonexistent", "name": "x", "definition": ["a: 1\na: 2"]}, "the key 'a' is given twice"),
        ({"kubeconfig": "/nonexistent", "name": "x"}, "at least one is required"),
        ({"kubeconfig": "/nonexistent", "name": "X!", "state": "absent"}, "not a DNS label"),
        ({"kubeconfig": "/nonexistent", "name": "x", "state": "absent"}, "/nonexistent does not exist"),
        ({"kubeconfig": "/nonexistent", "name": "x", "template": "nope.j2"}, "nope.j2 is not there"),
        ({"kubeconfig": "/nonexistent", "name": "x", "template": "bad.j2"}, "'undefined_thing' is undefined"),
        ({"kubeconfig": "/nonexistent", "name": "x", "state": "gone"}, "must be one of: present, absent"),
        ({"kubeconfig": "/nonexistent", "name": "x", "definitions": []}, "definitions"),
    ],
)
def test_bad_options_are_refused_in_clear_words(tmp_path: Path, options: dict[str, Any], expected: str) -> None:
    (tmp_path / "bad.j2").write_text("a: {{ undefined_thing }}")
    output = run_playbook(tmp_path, options)
    assert "failed=1" in output
    assert expected in output.replace("\n", " ")


def test_killed_midway_and_run_again_leaves_nothing_behind(
    server: api_server.ApiServer, client: Client, tmp_path: Path, name: str
) -> None:
    """A run of many objects is killed at some point, then another, smaller version of the set is applied."""
    many = "".join(config_map(f"{name}-{number}", k="v" * 1000) for number in range(400))
    (tmp_path / "many.yml").write_text(many)
    options = {"kubeconfig": str(server.kubeconfig), "name": name, "src": "many.yml"}
    selector = {"labelSelector": f"k8sgu.io/set={name}"}

    def count() -> int:
        return len(client.get("/api/v1/namespaces/default/configmaps", selector)["items"])

    process = playbook(tmp_path, options)
    deadline = time.monotonic() + 60
    while count() < 5 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    kill_tree(process.pid)
    output = process.communicate()[0]
    time.sleep(0.5)
    assert 0 < count() < 400, f"the run was not killed in the middle:\n{output}"
    (tmp_path / "many.yml").write_text(config_map(f"{name}-0", k="w"))
    output = run_playbook(tmp_path, options)
    assert "failed=0" in output
    assert count() == 1
    assert "changed=0" in run_playbook(tmp_path, options)
