# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is made of metrics-server's answers, and of the demo's autoscaler."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify import autoscaling, cluster, metrics
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.cluster import ClusterChecks

NODES = ["control", "worker"]
NOW = "2026-11-30T20:00:00Z"
OLD, YOUNG = "2026-11-30T19:59:00Z", "2026-11-30T19:59:01Z"


def measured(name: str, **usage: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "timestamp": NOW, "usage": usage or {"cpu": "120m", "memory": "900Mi"}}


def told(name: str, containers: int = 1) -> dict[str, Any]:
    return {"metadata": {"name": name}, "containers": [{"name": "agnhost"}] * containers}


def probe(node: str, started: str = OLD) -> metrics.Running:
    return metrics.Running(f"probe-{node}", node, started)


PROBES = [probe(name) for name in NODES]
BOTH = [measured(name) for name in NODES]
TOLD = [told(f"probe-{name}") for name in NODES]


@pytest.mark.parametrize(
    ("nodes", "pods", "pod_metrics", "problems"),
    [
        (BOTH, PROBES, TOLD, []),
        (BOTH[:1], PROBES, TOLD, ["worker has no cpu and memory"]),
        ([], PROBES, TOLD, ["control has no cpu and memory", "worker has no cpu and memory"]),
        ([measured("control", cpu="1m"), BOTH[1]], PROBES, TOLD, ["control has no memory"]),
        # A node that was replaced is no answer for the one that is there.
        ([BOTH[0], measured("other")], PROBES, TOLD, ["worker has no cpu and memory"]),
        (BOTH, PROBES, TOLD[:1], ["worker tells nothing of its pods probe-worker"]),
        (BOTH, PROBES, [TOLD[0], told("probe-worker", 0)], ["worker tells nothing of its pods probe-worker"]),
        # No pod is told of in its first minute, and one that is told of is no fault.
        (BOTH, [PROBES[0], probe("worker", YOUNG)], TOLD[:1], []),
        (BOTH, [PROBES[0], probe("worker", YOUNG)], TOLD, []),
        (BOTH, PROBES[:1], TOLD[:1], []),
    ],
)
def test_each_node_without_metrics_is_named(
    nodes: list[dict[str, Any]],
    pods: list[metrics.Running],
    pod_metrics: list[dict[str, Any]],
    problems: list[str],
) -> None:
    assert metrics.missing(NODES, nodes, pods, pod_metrics) == problems


def api_service(status: str = "True", message: str = "all checks passed") -> dict[str, Any]:
    condition = {"type": "Available", "status": status, "message": message}
    return {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1beta1.metrics.k8s.io"},
        "status": {"conditions": [condition]},
    }


def deployment(available: int = 2) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "metrics-server", "generation": 1},
        "spec": {"replicas": 2},
        "status": {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": available},
    }


@pytest.mark.parametrize(
    ("service", "workload", "seen"),
    [
        (api_service(), deployment(), ""),
        (None, deployment(), "metrics-server is not there; site.yml --tags metrics_server brings it"),
        (api_service(), None, "metrics-server is not there; site.yml --tags metrics_server brings it"),
        (
            api_service("False", "no endpoints"),
            deployment(0),
            "APIService v1beta1.metrics.k8s.io: not available: no endpoints",
        ),
        # One of two answers, and the other is not noticed by whoever asks.
        (api_service(), deployment(1), "Deployment metrics-server: 1 of 2 replicas available"),
    ],
)
def test_what_keeps_metrics_server_from_answering(
    service: dict[str, Any] | None, workload: dict[str, Any] | None, seen: str
) -> None:
    assert metrics.service_problem(service, workload) == seen


class Api:
    """Whether there is metrics-server, and the metrics that it has."""

    def __init__(self, found: bool, nodes: list[dict[str, Any]]) -> None:
        self.found, self.nodes = found, nodes

    def find(self, path: str) -> dict[str, Any] | None:
        answers = {metrics.API_SERVICE: api_service(), metrics.DEPLOYMENT: deployment()}
        return answers[path] if self.found else None

    def get(self, path: str) -> dict[str, Any]:
        return {"items": {metrics.NODES: self.nodes, metrics.pods_path(cluster.PROBES): TOLD}[path]}


class Top:
    def __init__(self, text: str) -> None:
        self.text = text

    def top_nodes(self) -> str:
        return self.text


@pytest.mark.parametrize(
    ("api", "printed", "passes", "seen"),
    [
        (Api(True, BOTH), "control 120m 6% 900Mi 20%\nworker 90m 4% 700Mi 18%\n", True, "those of 2 nodes and 2 pods"),
        (Api(True, BOTH), "control 120m 6% 900Mi 20%\n", False, "kubectl top nodes knows nothing of worker"),
        (
            Api(True, BOTH),
            "control 120m 6% 900Mi 20%\nworker <unknown> <unknown> <unknown> <unknown>\n",
            False,
            "kubectl top nodes knows nothing of worker",
        ),
        (Api(True, BOTH[:1]), "", False, "worker has no cpu and memory"),
        (Api(False, []), "", False, "metrics-server is not there"),
    ],
)
def test_the_check_says_which_node_has_none(
    monkeypatch: pytest.MonkeyPatch, api: Any, printed: str, passes: bool, seen: str
) -> None:
    running = [cluster.Pod(cluster.PROBES, one.name, one.node, "10.200.0.2", True, one.started) for one in PROBES]
    monkeypatch.setattr(cluster, "pods", lambda *_asked: running)
    checks = ClusterChecks(api, Top(printed), NODES, "cluster.local", 1, metrics_server=True)  # type: ignore[arg-type]
    check = checks.resource_metrics()
    assert check.passed is passes, check
    assert seen in check.seen


@pytest.mark.parametrize("there", [True, False])
def test_metrics_are_asked_for_only_where_there_is_metrics_server(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    checks = ClusterChecks(Api(True, BOTH), Top(""), NODES, "cluster.local", 1, metrics_server=there)  # type: ignore[arg-type]
    monkeypatch.setattr(checks, "_attempt", lambda probe: cluster.Check(probe.__name__, True, "", ""))
    assert ("resource_metrics" in [check.name for check in checks.run()]) is there


def autoscaler(desired: int = 3, active: str = "True", least: int = 3, load: str | None = "90m") -> dict[str, Any]:
    current = [{"type": "Resource", "resource": {"name": "cpu", "current": {"averageValue": load}}}] if load else None
    return {
        "spec": {"minReplicas": least, "maxReplicas": 6},
        "status": {
            "desiredReplicas": desired,
            "currentMetrics": current,
            "conditions": [{"type": "ScalingActive", "status": active, "message": "no metrics returned"}],
        },
    }


@pytest.mark.parametrize(
    ("found", "ready", "grown", "passes"),
    [
        (autoscaler(3), 3, None, True),
        (autoscaler(3, "False"), 3, None, False),
        ({"spec": {"minReplicas": 3}}, 3, None, False),
        # Of a load before this one.
        (autoscaler(5), 5, None, False),
        (autoscaler(3), 4, None, False),
        (autoscaler(5), 4, True, True),
        (autoscaler(5), 3, True, False),
        # Somebody else's pod is not the autoscaler's.
        (autoscaler(3), 4, True, False),
        (autoscaler(3), 3, False, True),
        (autoscaler(4), 4, False, False),
        (autoscaler(3), 4, False, False),
        (autoscaler(3, "Unknown"), 3, False, False),
    ],
)
def test_the_website_has_the_pods_that_it_should(
    found: dict[str, Any], ready: int, grown: bool | None, passes: bool
) -> None:
    passed, seen = autoscaling.judge(found, ready, grown)
    assert passed is passes, seen
    assert seen.startswith(f"{ready} ready of ")


def test_a_load_that_is_not_known_is_told_with_the_reason() -> None:
    _passed, seen = autoscaling.judge(autoscaler(3, "False", load=None), 3, None)
    assert seen == "3 ready of 3 wanted, 3 at least; what they use is not known: no metrics returned"


class Website:
    """The API of a website that has more pods while it is asked, or never."""

    def __init__(self, grows: bool, shrinks: bool = True, refused: bool = False) -> None:
        self.grows, self.shrinks, self.refused = grows, shrinks, refused
        self.visited, self.known, self.busy = 0, 0, False

    def find(self, path: str) -> dict[str, Any]:
        assert path == autoscaling.AUTOSCALER
        self.busy = self.visited > self.known or (self.busy and not self.shrinks)
        self.known = self.visited
        return autoscaler(self.pods())

    def get(self, path: str, query: dict[str, str]) -> dict[str, Any]:
        if path.endswith("/dial"):
            assert query["host"] == "website.demo.svc.cluster.local."
            if self.refused:
                raise KubernetesError("the pod is not there")
            self.visited += 1
            return {"responses": ["{}"]}
        app = query["labelSelector"].removeprefix("app=")
        ready = {"conditions": [{"type": "Ready", "status": "True"}], "phase": "Running"}
        return {"items": [{"metadata": {"name": app}, "spec": {"nodeName": "worker"}, "status": ready}] * self.pods()}

    def pods(self) -> int:
        return 5 if self.grows and self.busy else 3


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks' own loop without its pauses: as many looks as it takes, ten at most."""

    def until(probe: Any, _timeout: float, _interval: float = 0.5, why: Any = lambda: "") -> cluster.Check:
        for _look in range(10):
            check = probe()
            if check.passed:
                return check
            threading.Event().wait(0.05)
        return cluster.Check(check.name, False, check.expected, f"{check.seen}: {why()}")

    monkeypatch.setattr(autoscaling, "until", until)
    monkeypatch.setattr(autoscaling, "explained", lambda *_asked: "")


@pytest.mark.usefixtures("quick")
def test_the_load_ends_with_the_check() -> None:
    api = Website(grows=False)
    checks = autoscaling.checks(api, "cluster.local", 1)  # type: ignore[arg-type]
    assert [check.passed for check in checks] == [True, False]
    visited = api.visited
    assert visited
    threading.Event().wait(0.3)
    assert api.visited == visited


@pytest.mark.usefixtures("quick")
def test_a_load_that_cannot_be_made_is_the_reason() -> None:
    checks = autoscaling.checks(Website(grows=False, refused=True), "cluster.local", 1)  # type: ignore[arg-type]
    assert [check.passed for check in checks] == [True, False]
    assert "the pod is not there" in checks[-1].seen


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("shrinks", [True, False])
def test_a_website_that_grows_has_to_shrink(shrinks: bool) -> None:
    checks = autoscaling.checks(Website(True, shrinks), "cluster.local", 1)  # type: ignore[arg-type]
    assert [check.passed for check in checks] == [True, True, shrinks], checks
    assert len({check.name for check in checks}) == 3
