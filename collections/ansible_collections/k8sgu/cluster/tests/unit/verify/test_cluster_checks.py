"""What the checks through the API server make of its answers."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._verify import cluster
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.cluster import ClusterChecks, Pod


def node(name: str, *taints: str, unschedulable: bool = False) -> dict[str, Any]:
    spec: dict[str, Any] = {"taints": [{"key": "k", "effect": effect} for effect in taints]}
    if unschedulable:
        spec["unschedulable"] = True
    return {"metadata": {"name": name}, "spec": spec}


def test_open_nodes() -> None:
    nodes = [node("a"), node("b", "NoSchedule"), node("c", "PreferNoSchedule"), node("d", unschedulable=True)]
    assert cluster.open_nodes(nodes) == ["a", "c"]


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
    assert ClusterChecks(api, [], "cluster.local", 1).apart().passed is passes
