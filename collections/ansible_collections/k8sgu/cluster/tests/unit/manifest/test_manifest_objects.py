# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects, readiness, diff, inventory and kubeconfig: the parts of manifest that need no server."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes import kubeconfig
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.readiness import readiness
from ansible_collections.k8sgu.cluster.plugins.module_utils._manifest import diff, inventory, objects
from ansible_collections.k8sgu.cluster.plugins.module_utils._manifest.objects import Key


def collect(text: str) -> list[objects.Object]:
    return objects.collect([(body, "test") for body in objects.parse(text, "test")], "set")


def test_objects_are_labelled_and_stripped_of_the_servers_fields() -> None:
    (item,) = collect("{apiVersion: v1, kind: Pod, metadata: {name: a, uid: x, labels: {b: c}}, status: {phase: x}}")
    assert item.body["metadata"] == {"name": "a", "labels": {"b": "c", "k8sgu.io/set": "set"}}
    assert "status" not in item.body


def test_lists_are_unfolded_and_dates_stay_text() -> None:
    config_map = "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {d: 2024-01-01}}"
    (item,) = collect(f"{{apiVersion: v1, kind: List, items: [{config_map}]}}")
    assert item.body["data"] == {"d": "2024-01-01"}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("just text", "a str is not an object"),
        ("{kind: Pod}", "an object lacks apiVersion (it has kind)"),
        ("{apiVersion: v1}", "lacks kind"),
        ("{apiVersion: v1, kind: Pod}", "a Pod lacks metadata.name"),
        ("{apiVersion: v1, kind: Pod, metadata: {name: 1}}", "a Pod lacks metadata.name, a text"),
        ("{apiVersion: v1, kind: Pod, metadata: {generateName: a}}", "a new object in every run"),
        (
            "{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {b: true}}}",
            "labels must be strings; quote b: True",
        ),
        ("a: [", "is not YAML"),
        ("a: 1\na: 2", "line 2, column 1: is not YAML: the key 'a' is given twice"),
        ("a: {1: 2}", "the key 1 is not text"),
    ],
)
def test_faults_of_objects(text: str, fault: str) -> None:
    with pytest.raises(KubernetesError) as caught:
        collect(text)
    assert fault in str(caught.value)


def test_the_same_object_twice_is_a_fault() -> None:
    text = "{apiVersion: v1, kind: Pod, metadata: {name: a}}"
    with pytest.raises(KubernetesError, match="Pod a is given a second time"):
        objects.check_unique(collect(f"{text}\n---\n{text}"))


def test_the_order_of_kinds() -> None:
    kinds = [
        "Namespace",
        "CustomResourceDefinition",
        "NetworkPolicy",
        "ClusterRole",
        "ConfigMap",
        "Service",
        "DaemonSet",
        "X",
    ]
    shuffled = [*kinds[4:], *kinds[:4]]
    assert sorted(shuffled, key=objects.rank) == kinds


def status(kind: str, group: str = "apps/v1", spec: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    metadata = {"name": "x", "generation": 2}
    return {"apiVersion": group, "kind": kind, "metadata": metadata, "spec": spec or {}, "status": fields}


def condition(kind: str, value: str = "True", **fields: str) -> dict[str, Any]:
    return {"conditions": [{"type": kind, "status": value, **fields}]}


SEEN = {"observedGeneration": 2}
READY = [
    status("Deployment", spec={"replicas": 2}, **SEEN, replicas=2, updatedReplicas=2, availableReplicas=2),
    status("Deployment", spec={"replicas": 0}, **SEEN),
    status("DaemonSet", **SEEN, desiredNumberScheduled=1, updatedNumberScheduled=1, numberAvailable=1),
    status("DaemonSet", **SEEN),
    status("StatefulSet", **SEEN, readyReplicas=1, updatedReplicas=1),
    status("Job", "batch/v1", **condition("Complete")),
    status("Job", "batch/v1", {"suspend": True}),
    status("Pod", "v1", **condition("Ready")),
    status("Pod", "v1", phase="Succeeded"),
    status("Namespace", "v1", phase="Active"),
    status("PersistentVolumeClaim", "v1", phase="Bound"),
    status("CustomResourceDefinition", "apiextensions.k8s.io/v1", **condition("Established")),
    status("APIService", "apiregistration.k8s.io/v1", **condition("Available")),
    status("ConfigMap", "v1"),
    status("Deployment", "example.com/v1"),
]
UNREADY = [
    (status("Deployment", observedGeneration=1), "not yet seen"),
    (status("Deployment", spec={"replicas": 2}, **SEEN, updatedReplicas=1), "1 of 2 replicas updated"),
    (status("Deployment", **SEEN, replicas=2, updatedReplicas=1), "1 old replicas not yet gone"),
    (status("Deployment", **SEEN, replicas=1, updatedReplicas=1), "0 of 1 replicas available"),
    (status("DaemonSet", **SEEN, desiredNumberScheduled=3, updatedNumberScheduled=2), "2 of 3 nodes updated"),
    (status("DaemonSet", **SEEN, desiredNumberScheduled=3, updatedNumberScheduled=3), "on 0 of 3 nodes"),
    (status("StatefulSet", **SEEN, updatedReplicas=1), "0 of 1 replicas ready"),
    (status("Job", "batch/v1", active=1), "not complete: 0 succeeded, 1 active"),
    (status("Pod", "v1", phase="Pending"), "is the scheduler running?"),
    (status("Pod", "v1", {"nodeName": "a"}, phase="Pending"), "kubelet has not started it"),
    (status("Namespace", "v1", phase="Terminating"), "phase Terminating"),
    (status("CustomResourceDefinition", "apiextensions.k8s.io/v1"), "not established"),
    (status("APIService", "apiregistration.k8s.io/v1", **condition("Available", "False", message="gone")), "gone"),
]
FAILED = [
    (
        status(
            "Deployment", **SEEN, **condition("Progressing", "False", reason="ProgressDeadlineExceeded", message="late")
        ),
        "late",
    ),
    (status("Job", "batch/v1", **condition("Failed", message="too often")), "too often"),
    (status("Pod", "v1", phase="Failed", reason="Evicted"), "Evicted"),
    (status("PersistentVolumeClaim", "v1", phase="Lost"), "lost"),
    (
        status(
            "CustomResourceDefinition",
            "apiextensions.k8s.io/v1",
            **condition("NamesAccepted", "False", message="taken"),
        ),
        "taken",
    ),
]


@pytest.mark.parametrize("body", READY, ids=lambda body: body["kind"])
def test_ready(body: dict[str, Any]) -> None:
    assert readiness(body).ready


@pytest.mark.parametrize(("body", "message"), UNREADY)
def test_unready(body: dict[str, Any], message: str) -> None:
    state = readiness(body)
    assert (state.ready, state.failed) == (False, False)
    assert message in state.message


@pytest.mark.parametrize(("body", "message"), FAILED)
def test_failed(body: dict[str, Any], message: str) -> None:
    state = readiness(body)
    assert (state.ready, state.failed) == (False, True)
    assert message in state.message


def test_differing_secrets_are_marked_but_not_shown() -> None:
    annotations = {"kubectl.kubernetes.io/last-applied-configuration": "b2xk"}
    old = {
        "kind": "Secret",
        "metadata": {"name": "x", "annotations": annotations},
        "data": {"same": "c2FtZQ==", "other": "b2xk"},
    }
    new = {"kind": "Secret", "metadata": {"name": "x"}, "data": {"same": "c2FtZQ==", "other": "bmV3"}}
    entry = diff.entry("Secret x", old, new)
    assert "same: (secret)" in entry["after"]
    assert "other: (secret, another)" in entry["after"]
    for value in ("c2FtZQ==", "b2xk", "bmV3"):
        assert value not in entry["before"] + entry["after"]


def test_an_inventory_survives_and_names_what_to_prune() -> None:
    keys = {Key("apps", "Deployment", "a", "x"), Key("", "Namespace", "", "a")}
    body = inventory.body("set", keys)
    assert inventory.keys(body) == keys
    assert inventory.body("set", sorted(keys, reverse=True)) == body
    assert inventory.to_prune(keys, [Key("", "Namespace", "", "a")]) == {Key("apps", "Deployment", "a", "x")}
    assert inventory.keys(None) == set()
    body["data"]["objects"] = "what is this"
    with pytest.raises(KubernetesError, match="not an inventory of k8sgu"):
        inventory.keys(body)


KUBECONFIG: dict[str, Any] = {
    "kind": "Config",
    "current-context": "c",
    "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
    "clusters": [{"name": "k", "cluster": {"server": "https://127.0.0.1:6443"}}],
    "users": [{"name": "u", "user": {"token": "t"}}],
}


@pytest.mark.parametrize(
    ("changes", "context", "fault"),
    [
        ({"kind": "Pod"}, None, "not a kubeconfig"),
        ({"current-context": ""}, None, "has no current-context"),
        ({}, "other", "has no context 'other', only c"),
        ({"clusters": []}, None, "has no cluster 'k'"),
        ({"clusters": [{"name": "k", "cluster": {"server": "http://a"}}]}, None, "not an https address"),
        ({"users": [{"name": "u", "user": {}}]}, None, "neither a client certificate"),
        ({"users": [{"name": "u", "user": {"exec": {}}}]}, None, "only client certificates and tokens"),
        ({"users": [{"name": "u", "user": {"client-certificate-data": "!"}}]}, None, "is not base64"),
        ({"users": [{"name": "u", "user": {"client-certificate": "no.pem"}}]}, None, "no.pem cannot be read"),
        (
            {"users": [{"name": "u", "user": {"client-certificate-data": "YQ==", "client-key-data": "YQ=="}}]},
            None,
            "are not a pair",
        ),
        (
            {"clusters": [{"name": "k", "cluster": {"server": "https://a", "certificate-authority-data": "YQ=="}}]},
            None,
            "holds no certificate",
        ),
        (
            {"clusters": [{"name": "k", "cluster": {"server": "https://a", "insecure-skip-tls-verify": True}}]},
            None,
            "insecure-skip-tls-verify is not supported",
        ),
    ],
)
def test_faults_of_a_kubeconfig(tmp_path: Path, changes: dict[str, Any], context: str | None, fault: str) -> None:
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump({**KUBECONFIG, **changes}))
    with pytest.raises(KubernetesError) as caught:
        kubeconfig.load(str(path), context)
    assert fault in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_kubeconfig_with_a_token(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(KUBECONFIG))
    access = kubeconfig.load(str(path), None)
    assert (access.host, access.port, access.token) == ("127.0.0.1", 6443, "t")


def test_our_own_sets_overwrite_what_others_changed() -> None:
    """Else `kubectl scale` would end every later run of site.yml."""
    roles = Path(__file__).resolve().parents[3] / "roles"
    tasks = [
        entry
        for path in sorted(roles.glob("*/tasks/*.yml"))
        for block in yaml.safe_load(path.read_text())
        for entry in block.get("block", [block])
        if "k8sgu.cluster.manifest" in entry
    ]
    assert len(tasks) >= 6
    assert [task["name"] for task in tasks if task["k8sgu.cluster.manifest"].get("force_conflicts") is not True] == []


SCALER = """
    apiVersion: autoscaling/v2
    kind: HorizontalPodAutoscaler
    metadata: {name: web, namespace: shop}
    spec:
      scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
      minReplicas: 2
      maxReplicas: 6
"""
WEB = Key("apps", "Deployment", "shop", "web")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (SCALER, {WEB: (2, 6)}),
        (SCALER.replace("      minReplicas: 2\n", ""), {WEB: (1, 6)}),
        # The server refuses these.
        (SCALER.replace("maxReplicas: 6", "maxReplicas: 1"), {}),
        (SCALER.replace("      maxReplicas: 6\n", ""), {}),
        (SCALER.replace("autoscaling/v2", "example.org/v2"), {}),
    ],
)
def test_what_an_autoscaler_of_the_set_scales(text: str, found: dict[Key, tuple[int, int]]) -> None:
    assert objects.scaled(collect(textwrap.dedent(text))) == found


@pytest.mark.parametrize(
    ("living", "bounds", "replicas"),
    [
        (None, (2, 6), 3),
        (5, None, 3),
        (5, (2, 6), 5),
        (9, (2, 6), 6),
        # With none an autoscaler does nothing.
        (0, (2, 6), 2),
    ],
)
def test_an_autoscaler_of_the_set_decides_about_replicas(
    living: int | None, bounds: tuple[int, int] | None, replicas: int
) -> None:
    body = {"kind": "Deployment", "spec": {"replicas": 3, "selector": {}}}
    live = None if living is None else {"spec": {"replicas": living}}
    assert objects.as_scaled(body, live, bounds)["spec"] == {"replicas": replicas, "selector": {}}
    assert body["spec"]["replicas"] == 3
