# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""upgrade_facts on this machine, upgrade_gates against a real API server, and what a release's real programs answer."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import ansible_program
import api_server
from test_manifest import client, programs, server

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.client import Client
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.kubeconfig import load
from ansible_collections.k8sgu.cluster.plugins.module_utils._upgrade import api
from ansible_collections.k8sgu.cluster.plugins.module_utils._upgrade import programs as release_programs

__all__ = ["client", "programs", "server"]  # fixtures
RELEASES = Path(__file__).resolve().parents[2] / "releases"
ADMISSION = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MERGE = "application/merge-patch+json"
NODE = "this-machine"


def read(directory: Path) -> dict[str, Any]:
    """A task that reads this machine, which has nothing of a cluster."""
    return {
        "k8sgu.cluster.upgrade_facts": {
            "kubernetes_version": "1.37.2",
            "releases_dir": str(RELEASES),
            "mirror_dir": str(directory),
            "architecture": "amd64",
            "image_directory": "/var/lib",
            "ask_programs": True,
        },
    }


def judge(server: api_server.ApiServer, **more: Any) -> dict[str, Any]:
    return {
        "k8sgu.cluster.upgrade_gates": {
            "kubeconfig": str(server.kubeconfig),
            "runs": "1.36.4",
            "target": "1.37.2",
            "releases_dir": str(RELEASES),
            "nodes": {NODE: {"role": "worker", "facts": "{{ read.facts }}"}},
            **more,
        },
    }


@pytest.fixture
def node(client: Client) -> Iterator[str]:
    """A Node object of this machine, Ready, with its lease."""
    client.request("POST", "/api/v1/nodes", body={"metadata": {"name": NODE}})
    status = {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1.36.4"}}
    client.request("PATCH", f"/api/v1/nodes/{NODE}/status", body={"status": status}, content_type=MERGE)
    yield NODE
    client.request("DELETE", f"/api/v1/nodes/{NODE}")


def refused(gates: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    return {gate["gate"]: gate["problems"] for gate in gates if not gate["passed"]}


def test_four_steps(server: api_server.ApiServer, client: Client, node: str, tmp_path: Path) -> None:
    steps = [("checked", True), ("ran", False), ("checked_again", True), ("ran_again", False)]
    tasks: list[dict[str, Any]] = [{**read(tmp_path), "register": "read"}]
    for name, check in steps:
        tasks.append({**read(tmp_path), "check_mode": check, "register": f"facts_{name}"})
        tasks.append({**judge(server, refuse=False), "check_mode": check, "register": f"gates_{name}"})
    tasks.append({**judge(server), "ignore_errors": True, "register": "refused"})
    before = client.get(f"/api/v1/nodes/{NODE}")["metadata"]["resourceVersion"]
    found, output = ansible_program.run_tasks(tmp_path, tasks, variables={})
    for name, _check in steps:
        facts, gates = found[f"facts_{name}"], found[f"gates_{name}"]
        assert not facts["changed"] and not gates["changed"]
        assert facts["facts"]["architecture"] == platform.machine() and facts["facts"]["files"] == []
        # Only what needs a control plane, which this machine is not, and no more.
        assert set(refused(gates["gates"])) == {"skew", "etcd"}, gates["table"]
        assert gates["gates"] == found["gates_ran"]["gates"] and gates["count"] == len(gates["problems"]) == 2
    # Changes were tried, and none was made.
    [webhooks] = [gate for gate in found["gates_ran"]["gates"] if gate["gate"] == "webhooks"]
    assert webhooks["why"] == "0 webhooks; 6 changes were tried without being made"
    assert client.get(f"/api/v1/nodes/{NODE}")["metadata"]["resourceVersion"] == before
    assert client.get("/api/v1/pods")["items"] == []
    assert found["refused"]["failed"] and found["refused"]["msg"] == found["gates_ran"]["refusal"]
    assert output.count("2 problems on the way to 1.37.2, and nothing was changed") >= 1


def test_options_that_cannot_be_used(server: api_server.ApiServer, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{")
    tasks = [
        {**read(tmp_path), "ignore_errors": True, "register": "damaged"},
        {"k8sgu.cluster.upgrade_facts": {"prepared": {}}, "ignore_errors": True, "register": "given"},
        {**judge(server, nodes={}, direction="up"), "ignore_errors": True, "register": "direction"},
    ]
    found, _output = ansible_program.run_tasks(tmp_path, tasks, variables={})
    assert "mirror_dir: " in found["damaged"]["msg"] and "fill the mirror again" in found["damaged"]["msg"]
    assert "prepared: is filled in by the action plugin" in found["given"]["msg"]
    assert "missing required arguments" in found["given"]["msg"]
    assert "direction" in found["direction"]["msg"]


def test_an_api_server_that_does_not_answer_is_one_problem(server: api_server.ApiServer, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "admin.kubeconfig"
    port = api_server.free_port()
    kubeconfig.write_text(server.kubeconfig.read_text().replace(server.url, f"https://127.0.0.1:{port}"))
    found = api.read(str(kubeconfig), 1, 1, "1.37.2")
    assert "cannot be reached for 1 s" in found.problem and found.nodes == ()


def test_metrics_are_read_from_every_server(server: api_server.ApiServer) -> None:
    # There is one, however often it is asked.
    assert len(api.read(str(server.kubeconfig), 10, 1, "1.37.2").metrics) == 1
    assert len(api._metrics(str(server.kubeconfig), 10, 2)) == 1


@pytest.mark.parametrize("config", ["outside", "inside"])
def test_a_webhook_without_a_backend_is_found_by_trying(
    server: api_server.ApiServer, client: Client, node: str, tmp_path: Path, config: str
) -> None:
    """One at a time, since the API server names the first that fails."""
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["nodes", "pods"]}]
    nobody = {"url": f"https://127.0.0.1:{api_server.free_port()}/"}
    configs = {"outside": nobody, "inside": {"service": {"namespace": "default", "name": "guard"}}}
    hooks = [
        {
            "name": f"{name}.example.org",
            "clientConfig": place,
            "rules": rules,
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "timeoutSeconds": 1,
            "failurePolicy": policy,
        }
        for name, place, policy in ((config, configs[config], "Fail"), ("ignored", nobody, "Ignore"))
    ]
    client.request("POST", ADMISSION, body={"metadata": {"name": "guard"}, "webhooks": hooks})
    try:
        tasks = [{**read(tmp_path), "register": "read"}, {**judge(server, refuse=False), "register": "gates"}]
        found, _output = ansible_program.run_tasks(tmp_path, tasks, variables={})
    finally:
        client.request("DELETE", f"{ADMISSION}/guard")
    [problem] = refused(found["gates"]["gates"])["webhooks"]
    said = {"outside": "connection refused", "inside": 'service "guard" not found'}
    assert f"{config}.example.org: the API server cannot reach it when it is to change the node" in problem
    assert said[config] in problem and "failurePolicy: Ignore" in problem


def test_an_api_that_goes_with_who_wrote_by_it(programs: tuple[Path, Path], tmp_path: Path) -> None:
    path = "/apis/resource.k8s.io/v1beta2/deviceclasses"
    flag = "--runtime-config=resource.k8s.io/v1beta2=true"
    with api_server.running(tmp_path, *programs, more=[flag]) as server:
        patient = Client(load(str(server.kubeconfig), None), 20)
        spec = {"selectors": [{"cel": {"expression": "true"}}]}
        patient.request("POST", path, {"fieldManager": "boxer"}, {"metadata": {"name": "x"}, "spec": spec})
        patient.close()
        found = api.read(str(server.kubeconfig), 20, 1, "1.39.0")
        before = api.read(str(server.kubeconfig), 20, 1, "1.38.0")
    assert found.managers == {"deviceclasses.v1beta2.resource.k8s.io": ["boxer wrote x"]}
    # Of those that stay longer nobody is asked, and asking itself has used none.
    assert before.managers == {} and [len(server) for server in before.metrics] == [len(found.metrics[0])]


def test_a_version_that_is_stored_and_not_served(server: api_server.ApiServer, client: Client) -> None:
    def version(name: str, served: bool, storage: bool) -> dict[str, Any]:
        schema = {"openAPIV3Schema": {"type": "object"}}
        return {"name": name, "served": served, "storage": storage, "schema": schema}

    names = {"plural": "boxes", "kind": "Box"}
    spec = {"group": "example.org", "scope": "Cluster", "names": names, "versions": [version("v1beta1", True, True)]}
    client.request("POST", DEFINITIONS, body={"metadata": {"name": "boxes.example.org"}, "spec": spec})
    path = f"{DEFINITIONS}/boxes.example.org"
    try:
        change = {"spec": {"versions": [version("v1beta1", False, False), version("v1", True, True)]}}
        client.request("PATCH", path, body=change, content_type=MERGE)
        [found] = api.read(str(server.kubeconfig), 10, 1, "1.37.2").definitions
    finally:
        client.request("DELETE", path)
    assert found["status"]["storedVersions"] == ["v1beta1", "v1"]
    assert [item["name"] for item in found["spec"]["versions"] if item["served"]] == ["v1"]


@pytest.fixture(scope="module")
def release() -> dict[str, str]:
    """{program: path} of the newest programs in a mirror."""
    found = {name: api_server.find_program(name, name) for name in release_programs.KUBERNETES}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        pytest.skip(f"no mirror with {', '.join(missing)}; fill one with `make up`, or name it in K8SGU_MIRROR_DIR")
    return {name: str(path) for name, path in found.items()}


def test_the_real_programs_say_which_flags_they_know(release: dict[str, str]) -> None:
    known = release_programs.known_flags(release, release_programs.ask)
    assert set(known) == set(release_programs.KUBERNETES)
    for name, item in known.items():
        assert {"v", "feature-gates", "kubeconfig"} <= set(item["flags"]) or name == "kube-apiserver", item
    assert "etcd-servers" in known["kube-apiserver"]["flags"] and "gone" not in known["kube-apiserver"]["flags"]


@pytest.mark.parametrize("name", [name for name in release_programs.KUBERNETES if name != "kubelet"])
def test_the_real_programs_refuse_feature_gates(release: dict[str, str], name: str) -> None:
    gates = {"K8sguGone": "true", "AllBeta": "false", "SidecarContainers": "true"}
    found = release_programs.refused_gates(release, {name: gates}, release_programs.ask)
    assert found == {name: {"K8sguGone": found[name]["K8sguGone"]}}
    assert "unrecognized feature gate: K8sguGone" in found[name]["K8sguGone"]


@pytest.mark.skipif(os.geteuid() != 0, reason="the kubelet is asked as nobody, which only root can become")
@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, ""),
        ({"featureGates": {"AllAlpha": False}}, ""),
        ({"featureGates": {"K8sguGone": True}}, "unrecognized feature gate: K8sguGone"),
        ({"k8sguGone": 1}, 'unknown field "k8sguGone"'),
        ({"maxPods": -3}, "maxPods"),
    ],
)
def test_the_real_kubelet_reads_a_configuration_and_ends(
    release: dict[str, str], tmp_path: Path, more: dict[str, Any], expected: str
) -> None:
    # Where nobody may read it, as nobody may read the mirror of root.
    kubelet = Path("/var/tmp", f"k8sgu-test-{os.getpid()}")
    subprocess.run(["install", "-m", "0755", release["kubelet"], str(kubelet)], check=True)
    config = tmp_path / "config.yaml"
    config.write_text(
        json.dumps(
            {
                "apiVersion": "kubelet.config.k8s.io/v1beta1",
                "kind": "KubeletConfiguration",
                "authentication": {"x509": {"clientCAFile": "/etc/kubernetes/pki/ca.crt"}},
                "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
                "failCgroupV1": False,
                **more,
            }
        )
    )
    try:
        found = release_programs.kubelet_configuration(str(kubelet), config)
    finally:
        kubelet.unlink()
    assert expected in found and bool(expected) == bool(found)
