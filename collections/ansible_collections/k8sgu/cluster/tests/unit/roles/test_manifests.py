# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules for every pod that we place on a cluster.

A pod that tolerates `disk-pressure` is placed again on the node that has just evicted it, a thousand times in a few
minutes; the scheduler cannot account for one without a request; one without a memory limit can bring a node down. A
CPU limit is not required: a lack of CPU only slows down, and a limit slows down even if nothing else needs the CPU.
https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/
https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

COLLECTION = Path(__file__).resolve().parents[3]
PROJECT = COLLECTION.parents[3]
ROLES = COLLECTION / "roles"
NODES = ["demo-control-plane-0", "demo-worker-0"]
HOST = {
    "ec2_role": "worker",
    "ec2_instance_type": "m5.large",
    "ec2_region": "eu-central-1",
    "ec2_zone": "eu-central-1a",
    "ec2_pool": "workers",
    "ec2_pod_cidr": "10.200.1.0/24",
}
# All that the roles' manifests are rendered with; a name that is not here is an error.
VARIABLES: dict[str, Any] = {
    "groups": {"control_plane": NODES[:1], "worker": NODES[1:]},
    "hostvars": dict.fromkeys(NODES, HOST),
    "k8sgu_pod_cidr": "10.200.0.0/16",
    "k8sgu_pod_network": "vxlan",
    "k8sgu_cluster_domain": "cluster.local",
    "k8sgu_cluster_dns_address": "10.32.0.10",
    "k8sgu_dns_replicas": 2,
    "k8sgu_dns_upstream": "/etc/resolv.conf",
    "k8sgu_dns_extra_corefile": "",
    "k8sgu_demo_website_replicas": 3,
    "k8sgu_metrics_server": True,
    "k8sgu_tls_min_version": "VersionTLS12",
    "k8sgu_tls_cipher_suites": ["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"],
    "metrics_server_image": "metrics:1",
    "metrics_server_certificate": "certificate",
    "metrics_server_key": "key",
    "metrics_server_ca": "authority",
    "metrics_server_replicas": 2,
    "metrics_server_cpu_m": 100,
    "metrics_server_memory_mib": 200,
    "cluster_dns_image": "dns:1",
    "verify_image": "agnhost:1",
    "verify_website_program": "print 1;\n",
    "verify_database_image": "database:1",
    "verify_database_password": "secret",
    "verify_policy_nodes": NODES,
    "worker_described": NODES,
}
# What a probe leaves to a machine that is slow: an emulated one, or one whose processors have other work.
# https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/
LEAST_ANSWER_S = 5
LEAST_START_S = 300
LEAST_HANG_S = 60
CONTROL_PLANE = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}
# How long a pod stays on a node that went silent: a taint by its key, and for so many seconds.
LEAVING = {"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"}
LONGEST_STAY_S = 60
KUBERNETES = re.compile(r"^apiVersion: (?!.*(?:config\.k8s\.io|audit\.k8s\.io))", re.MULTILINE)


def texts() -> Iterator[tuple[str, str]]:
    """Every manifest of the roles, rendered, and of the project's other folders, by file."""
    for path in sorted(ROLES.rglob("*")):
        if path.is_file() and path.suffix in {".yml", ".yaml", ".j2"} and KUBERNETES.search(path.read_text()):
            templar = Templar(DataLoader(), variables=VARIABLES)
            text = path.read_text()
            if path.suffix == ".j2":
                text = templar.template(trust_as_template(text), overrides={"trim_blocks": True})
            yield str(path.relative_to(COLLECTION)), text
    for folder in ("examples", "molecule", "playbooks"):
        for path in sorted((PROJECT / folder).rglob("*.y*ml")):
            yield str(path.relative_to(PROJECT)), path.read_text()
    for path in sorted(ROLES.glob("*/tasks/*.yml")):
        yield str(path.relative_to(COLLECTION)), path.read_text()


def objects(found: Any) -> Iterator[dict[str, Any]]:
    """Kubernetes objects at any depth: also those that a task has in its `definition`."""
    if isinstance(found, list):
        for item in found:
            yield from objects(item)
    elif isinstance(found, dict):
        if {"apiVersion", "kind", "metadata"} <= set(found):
            yield found
        else:
            for item in found.values():
                yield from objects(item)


def pod_spec(body: dict[str, Any]) -> dict[str, Any] | None:
    """The spec of the pods that an object makes; None if it makes none."""
    spec = body.get("spec") or {}
    if body["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    if body["kind"] != "Pod":
        spec = (spec.get("template") or {}).get("spec") or {}
    return spec if "containers" in spec else None


def name(body: dict[str, Any]) -> str:
    return f"{body['kind']} {body['metadata'].get('namespace', '')}/{body['metadata']['name']}"


FILES = {
    where: [body for document in yaml.safe_load_all(text) for body in objects(document)] for where, text in texts()
}
PODS = [
    pytest.param(where, body, id=f"{Path(where).name}: {name(body)}")
    for where, bodies in FILES.items()
    for body in bodies
    if pod_spec(body)
]
every_pod = pytest.mark.parametrize(("where", "body"), PODS)


def spec_of(body: dict[str, Any]) -> dict[str, Any]:
    spec = pod_spec(body)
    assert spec
    return spec


def problems_of_tolerations(tolerations: list[dict[str, Any]]) -> list[str]:
    found = []
    for each in tolerations:
        stay = each.get("tolerationSeconds")
        if each.get("key") in LEAVING and each.get("effect") == "NoExecute" and stay is not None:
            if stay > LONGEST_STAY_S:
                found.append(f"stays for {stay} s: {each}")
        elif {key: value for key, value in each.items() if (key, value) != ("operator", "Exists")} != CONTROL_PLANE:
            found.append(f"wider than needed: {each}")
    return found


def test_the_manifests_are_seen() -> None:
    """Otherwise the other tests would test nothing: each file with containers gives as many pods as it has."""
    seen = {where: sum(len(spec_of(param.values[1])["containers"]) for param in PODS if param.values[0] == where)
            for where in FILES}  # fmt: skip
    assert {where for where, count in seen.items() if count} == {
        "roles/cluster_dns/templates/coredns.yml.j2",
        "roles/metrics_server/templates/metrics-server.yml.j2",
        "roles/verify/templates/demo.yml.j2",
        "roles/verify/templates/policies.yml.j2",
        "roles/verify/templates/probes.yml.j2",
        "molecule/ha/verify.yml",
    }
    written = {where: len(re.findall(r"^\s*-?\s*containers:", text, re.MULTILINE)) for where, text in texts()}
    assert {where for where, count in written.items() if count > seen[where]} == set()


@every_pod
def test_tolerations_are_no_wider_than_needed(where: str, body: dict[str, Any]) -> None:
    assert problems_of_tolerations(spec_of(body).get("tolerations") or []) == []


@pytest.mark.parametrize(
    ("toleration", "fault"),
    [
        (CONTROL_PLANE, False),
        ({**CONTROL_PLANE, "operator": "Exists"}, False),
        ({"key": "node.kubernetes.io/not-ready", "effect": "NoExecute", "tolerationSeconds": 5}, False),
        ({"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}, True),
        ({"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "tolerationSeconds": 600}, True),
        ({"operator": "Exists"}, True),
        ({"operator": "Exists", "effect": "NoSchedule"}, True),
        ({"key": "node.kubernetes.io/disk-pressure", "operator": "Exists", "effect": "NoSchedule"}, True),
        ({"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}, True),
    ],
)  # fmt: skip
def test_a_wide_toleration_is_seen(toleration: dict[str, Any], fault: bool) -> None:
    assert bool(problems_of_tolerations([toleration])) is fault


@every_pod
def test_every_pod_has_requests_and_a_memory_limit(where: str, body: dict[str, Any]) -> None:
    spec = spec_of(body)
    for container in [*spec["containers"], *(spec.get("initContainers") or [])]:
        resources = container.get("resources") or {}
        assert set(resources.get("requests") or {}) == {"cpu", "memory"}, container["name"]
        assert set(resources.get("limits") or {}) == {"memory"}, container["name"]


@every_pod
def test_a_pod_cannot_fill_a_disk(where: str, body: dict[str, Any]) -> None:
    """Logs are bounded by the kubelet; a layer that can be written, and an emptyDir without a limit, are by nothing."""
    spec = spec_of(body)
    for container in [*spec["containers"], *(spec.get("initContainers") or [])]:
        assert (container.get("securityContext") or {}).get("readOnlyRootFilesystem") is True, container["name"]
    for volume in spec.get("volumes") or []:
        assert "emptyDir" not in volume or "sizeLimit" in (volume["emptyDir"] or {}), volume["name"]
        assert "hostPath" not in volume, volume["name"]


@every_pod
def test_a_pod_has_its_place_among_others(where: str, body: dict[str, Any]) -> None:
    """Cluster DNS goes last, and what only proves or shows something before any workload of the cluster's users."""
    name = spec_of(body).get("priorityClassName", "")
    if body["metadata"].get("namespace") == "kube-system":
        assert name == "system-cluster-critical"
    elif where.startswith("roles/"):
        # In the same file, so that the set which has the pod has its class too.
        classes = {each["metadata"]["name"]: each for each in FILES[where] if each["kind"] == "PriorityClass"}
        own = classes[name]
        assert own["value"] < 0
        assert own["preemptionPolicy"] == "Never"
        assert not own.get("globalDefault")


@every_pod
def test_replicas_have_a_disruption_budget_and_a_single_pod_does_not_hold_up_a_drain(
    where: str, body: dict[str, Any]
) -> None:
    if body["kind"] not in {"Deployment", "StatefulSet", "ReplicaSet"}:
        return
    labels = body["spec"]["template"]["metadata"]["labels"]
    budgets = [
        each["spec"]
        for each in FILES[where]
        if each["kind"] == "PodDisruptionBudget"
        and each["metadata"].get("namespace") == body["metadata"].get("namespace")
        and each["spec"]["selector"]["matchLabels"].items() <= labels.items()
    ]
    if body["spec"].get("replicas", 1) > 1:
        assert len(budgets) == 1
    # In this form a budget lets a drain go on whatever the number of replicas.
    assert all({key for key in budget if key != "selector"} == {"maxUnavailable"} for budget in budgets)
    assert all(budget["maxUnavailable"] == 1 for budget in budgets)


def seconds_until(probe: dict[str, Any]) -> int:
    """Seconds until a probe that never succeeds counts as failed, by the kubelet's defaults."""
    return int(probe.get("initialDelaySeconds", 0) + probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3))


def problems_of_probes(container: dict[str, Any]) -> list[str]:
    """Each probe of a container that a slow machine alone makes fail."""
    probes = {
        kind: container[kind] for kind in ("startupProbe", "livenessProbe", "readinessProbe") if kind in container
    }
    found = [
        f"{kind} waits for an answer for {probe.get('timeoutSeconds', 1)} s"
        for kind, probe in probes.items()
        if probe.get("timeoutSeconds", 1) < LEAST_ANSWER_S
    ]
    living = probes.get("livenessProbe")
    if living:
        if seconds_until(living) < LEAST_HANG_S:
            found.append(f"restarted after {seconds_until(living)} s")
        start = seconds_until(probes.get("startupProbe", living))
        if start < LEAST_START_S:
            found.append(f"has {start} s to start")
    return found


@every_pod
def test_a_slow_machine_does_not_restart_a_pod(where: str, body: dict[str, Any]) -> None:
    for container in spec_of(body)["containers"]:
        assert problems_of_probes(container) == [], container["name"]


ASKED: dict[str, Any] = {"httpGet": {"path": "/healthz", "port": "http"}, "timeoutSeconds": 5}
PATIENT = {**ASKED, "failureThreshold": 6}


@pytest.mark.parametrize(
    ("probes", "faults"),
    [
        ({}, 0),
        ({"readinessProbe": ASKED}, 0),
        ({"readinessProbe": {**ASKED, "timeoutSeconds": 4}}, 1),
        ({"readinessProbe": {"tcpSocket": {"port": "http"}}}, 1),
        ({"livenessProbe": {**ASKED, "failureThreshold": 30}}, 0),
        ({"livenessProbe": PATIENT}, 1),
        ({"livenessProbe": ASKED}, 2),
        ({"livenessProbe": PATIENT, "startupProbe": {**ASKED, "periodSeconds": 1, "failureThreshold": 300}}, 0),
        ({"livenessProbe": PATIENT, "startupProbe": {**ASKED, "periodSeconds": 1, "failureThreshold": 30}}, 1),
    ],
)
def test_an_impatient_probe_is_seen(probes: dict[str, Any], faults: int) -> None:
    assert len(problems_of_probes(probes)) == faults
