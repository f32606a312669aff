"""What the checks through the API server make of its answers."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify import cluster
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.cluster import ClusterChecks, Pod
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.kubectl import Kubectl

# Not called by the checks of this file.
KUBECTL = Kubectl("/nowhere/kubectl", "/nowhere/kubeconfig")


def node(name: str, *taints: str, unschedulable: bool = False) -> dict[str, Any]:
    spec: dict[str, Any] = {"taints": [{"key": "k", "effect": effect} for effect in taints]}
    if unschedulable:
        spec["unschedulable"] = True
    return {"metadata": {"name": name}, "spec": spec}


def test_open_nodes() -> None:
    nodes = [node("a"), node("b", "NoSchedule"), node("c", "PreferNoSchedule"), node("d", unschedulable=True)]
    assert cluster.open_nodes(nodes) == ["a", "c"]


def reported(name: str, **conditions: str) -> dict[str, Any]:
    told = [{"type": kind, "status": state, "message": f"said of {kind}"} for kind, state in conditions.items()]
    return {**node(name), "status": {"conditions": told}}


def test_what_keeps_pods_from_a_node() -> None:
    nodes = [
        reported("good", Ready="True", DiskPressure="False"),
        reported("full", Ready="True", DiskPressure="True"),
        reported("silent", Ready="Unknown", MemoryPressure="Unknown"),
        {**reported("drained", Ready="True"), "spec": {"unschedulable": True}},
        node("new"),
        reported("foreign", Ready="False"),
    ]
    assert cluster.node_problems(nodes, ["good", "full", "silent", "drained", "new", "gone"]) == [
        "gone is not registered",
        "full: DiskPressure: said of DiskPressure",
        "silent: NotReady: said of Ready",
        "new: NotReady: never reported",
    ]


@pytest.mark.parametrize(
    ("taint", "passes", "seen"),
    [
        # Its owner keeps the node for other pods, and ours stay away.
        ({"key": "dedicated", "effect": "NoSchedule"}, True, "none is meant for b, by its taint"),
        ({"key": "dedicated", "effect": "NoExecute"}, True, "none is meant for b, by its taint"),
        # Kubernetes' own: something is wrong with the node.
        ({"key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule"}, False, "none on b"),
        ({"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}, False, "none on b"),
        ({"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}, False, "none on b"),
        ({"key": "dedicated", "effect": "PreferNoSchedule"}, False, "none on b"),
    ],
)
def test_a_probe_may_be_missing_where_the_owner_wants_none(
    monkeypatch: pytest.MonkeyPatch, taint: dict[str, str], passes: bool, seen: str
) -> None:
    monkeypatch.setattr(cluster, "pods", lambda _client, ns, app: [Pod(ns, app, "a", "10.200.0.2", True)])
    api: Any = Api(node("a"), {"metadata": {"name": "b"}, "spec": {"taints": [taint]}})
    check = ClusterChecks(api, KUBECTL, ["a", "b"], "cluster.local", 1).probes_ready()
    assert (check.passed, seen in check.seen) == (passes, True), check


class Api:
    def __init__(self, *nodes: dict[str, Any]) -> None:
        self.nodes = nodes

    def get(self, path: str) -> dict[str, Any]:
        assert path == "/api/v1/nodes"
        return {"items": list(self.nodes)}


@pytest.mark.parametrize(
    ("workers", "website", "passes"),
    [
        (["a", "b"], ["a", "b"], True),
        (["a", "b"], ["a"], False),
        # Nobody can be apart on a single worker.
        (["a"], ["a"], True),
        # The database is where nothing should be: no excuse.
        (["b"], ["a"], False),
    ],
)
def test_apart(monkeypatch: pytest.MonkeyPatch, workers: list[str], website: list[str], passes: bool) -> None:
    where = {"database": ["a"], "website": website}
    monkeypatch.setattr(
        cluster, "pods", lambda _client, ns, app: [Pod(ns, app, name, "10.200.0.2", True) for name in where[app]]
    )
    api: Any = Api(node("master", "NoSchedule"), *map(node, workers))
    deleted: list[str] = []
    api.request = lambda _method, path: deleted.append(path)
    checks = ClusterChecks(api, KUBECTL, [], "cluster.local", 1)
    assert checks.apart().passed is passes
    checks.apart()
    # Where there is a node for it, one replica is made anew, and no second one.
    assert deleted == ([] if passes else [f"/api/v1/namespaces/{cluster.DEMO}/pods/website"])


class Demo:
    """The demo's pods and its deployments' replicas, as the API tells them."""

    def __init__(self, replicas: dict[str, int], ready: dict[str, int], others: int = 0, evicted: int = 0) -> None:
        self.replicas, self.ready, self.others, self.evicted = replicas, ready, others, evicted

    def get(self, path: str, query: dict[str, str] | None = None) -> dict[str, Any]:
        if not query:
            return {"spec": {"replicas": self.replicas[path.rpartition("/")[2]]}}
        app = query["labelSelector"].removeprefix("app=")
        states = ["True"] * self.ready[app] + ["False"] * (self.others if app == "website" else 0)
        phases = ["Running"] * len(states) + ["Failed"] * self.evicted
        return {
            "items": [
                {
                    "metadata": {"name": f"{app}-{number}"},
                    "spec": {"nodeName": "a"},
                    "status": {"phase": phase, "conditions": [{"type": "Ready", "status": state}]},
                }
                for number, (phase, state) in enumerate(zip(phases, [*states, *["False"] * self.evicted]))
            ]
        }


@pytest.mark.parametrize(
    ("replicas", "ready", "others", "passes"),
    [
        ((3, 1), (3, 1), 0, True),
        # One website and no database are not the demo.
        ((3, 1), (1, 0), 0, False),
        ((3, 1), (2, 1), 0, False),
        ((3, 1), (3, 0), 0, False),
        ((3, 1), (2, 1), 1, False),
        # Scaled to nothing, all of it is there.
        ((3, 0), (3, 0), 0, False),
        ((0, 1), (0, 1), 0, False),
    ],
)
def test_demo_ready(replicas: tuple[int, int], ready: tuple[int, int], others: int, passes: bool) -> None:
    apps = ("website", "database")
    api: Any = Demo(dict(zip(apps, replicas)), dict(zip(apps, ready)), others)
    check = ClusterChecks(api, KUBECTL, [], "cluster.local", 1).demo_ready()
    assert check.passed is passes, check
    assert f"{ready[0]} website, {ready[1]} database" in check.seen


def test_pods_that_were_evicted_are_no_part_of_the_demo() -> None:
    """They stay as objects long after others have taken their place."""
    whole = {"website": 3, "database": 1}
    check = ClusterChecks(Demo(whole, whole, evicted=40), KUBECTL, [], "cluster.local", 1).demo_ready()  # type: ignore[arg-type]
    assert check.passed, check


def test_every_workload_that_is_waited_for_can_be_explained() -> None:
    assert all(callable(getattr(ClusterChecks, name)) for name in cluster.WORKLOADS)


@pytest.mark.parametrize(
    ("answer", "passes"),
    [
        ('error: Get "http://10.200.1.2:8080/hostname": dial tcp 10.200.1.2:8080: connect: connection refused', True),
        ("error: dial tcp 10.200.1.2:8080: connect: no route to host", True),
        ("error: dial tcp 10.200.1.2:8080: connect: network is unreachable", True),
        ("error: dial tcp 10.200.1.2:8080: i/o timeout", True),
        ("error: context deadline exceeded (Client.Timeout exceeded while awaiting headers)", True),
        # What says nothing of the way to the guarded pod.
        ("error: no answer", False),
        ("error: unexpected status code 500", False),
        ("error: dial tcp: lookup guarded on 10.32.0.10:53: read udp: i/o timeout", False),
        ("error: socket: too many open files", False),
        ("guarded-1", False),
    ],
)
def test_a_policy_is_proven_by_a_connection_that_is_blocked(
    monkeypatch: pytest.MonkeyPatch, answer: str, passes: bool
) -> None:
    checks = ClusterChecks(Api(), KUBECTL, [], "cluster.local", 1)  # type: ignore[arg-type]
    guarded = Pod(cluster.PROBES, "guarded-1", "a", "10.200.1.2", True)
    monkeypatch.setattr(checks, "_reach_guarded", lambda _app: (guarded, answer))
    check = checks.policy_keeps_others_out()
    assert (check.passed, check.seen) == (passes, answer)


def test_a_name_server_that_is_silent_is_not_told_as_an_api_server_that_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "pods", lambda _client, ns, app: [Pod(ns, app, "a", "10.200.0.2", True)])
    checks = ClusterChecks(Api(), KUBECTL, [], "cluster.local", 1, ("node.example.org", 6443))  # type: ignore[arg-type]

    def dial(*_asked: Any) -> str:
        raise KubernetesError("the API server https://192.0.2.1:6443: cannot be reached for 3 s")

    monkeypatch.setattr(checks, "_dial", dial)
    check = checks.resolves_outside()
    assert not check.passed
    assert check.seen == "a: error: the pod gave no answer in time, as where it waits for a name server"


@pytest.mark.parametrize(
    ("answer", "passes"),
    [
        ("Client sent an HTTP request to an HTTPS server.", True),
        ("error: received non 200 status code: 400", True),
        ("error: dial tcp 10.240.0.10:6443: connect: connection refused", True),
        ("error: dial tcp 10.240.0.10:6443: i/o timeout", True),
        # What does not say that there was an address.
        ("error: dial tcp: lookup ip-10-240-0-10.ec2.internal. on 10.32.0.10:53: no such host", False),
        ("error: dial tcp: lookup ip-10-240-0-10.ec2.internal. on 10.32.0.10:53: server misbehaving", False),
        ("error: context deadline exceeded (Client.Timeout exceeded while awaiting headers)", False),
        ("error: no answer", False),
    ],
)
def test_a_name_outside_is_proven_by_an_address(monkeypatch: pytest.MonkeyPatch, answer: str, passes: bool) -> None:
    monkeypatch.setattr(cluster, "pods", lambda _client, ns, app: [Pod(ns, app, "a", "10.200.0.2", True)])
    asked: list[tuple[str, int]] = []
    checks = ClusterChecks(Api(), KUBECTL, [], "cluster.local", 1, ("ip-10-240-0-10.ec2.internal", 6443))  # type: ignore[arg-type]
    monkeypatch.setattr(checks, "_dial", lambda _pod, host, port, _request: asked.append((host, port)) or answer)
    check = checks.resolves_outside()
    assert check.passed is passes, check
    assert asked == [("ip-10-240-0-10.ec2.internal.", 6443)]
    assert passes or answer in check.seen
