# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The matrix of NetworkPolicy: a path is judged by its source's answer; a source without an answer proves nothing."""

from __future__ import annotations

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.client import ApiError
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify import policies

WEB = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "w", "namespace": "n", "uid": "u"},
    "spec": {"nodeName": "a"},
}


class Answers:
    """A client whose dialled pods all give the same answer, or raise it."""

    def __init__(self, answer):
        self.answer = answer

    def get(self, path, query=None):
        if not path.endswith("/dial"):
            return {"status": {"podIP": "10.200.1.7"}}
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def find(self, path):
        """Every pod is ready, so there is nothing to explain."""
        return {**WEB, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}


def passed(answer):
    return [check.passed for check in policies.checks(Answers(answer), "cluster.local", 0)]


OPEN = [path.open for path in policies.MATRIX]


def test_both_kinds_of_paths_are_asked_for():
    assert OPEN.count(True) > 6
    assert OPEN.count(False) > 6


@pytest.mark.parametrize(
    ("answer", "arrives"),
    [
        ({"responses": ["to-pod"]}, True),
        ({"errors": ["received non 200 status code: 401"]}, True),
        ({"errors": ["dial tcp 10.200.1.7:8080: i/o timeout"]}, False),
        ({}, False),
        (ApiError("GET", "/dial", 400, {"message": "host is invalid. lookup x on 10.32.0.10:53: i/o timeout"}), False),
    ],
)
def test_a_path_is_open_where_anything_comes_back(answer, arrives):
    assert passed(answer) == [path is arrives for path in OPEN]


@pytest.mark.parametrize("error", [KubernetesError("no answer"), ApiError("GET", "/dial", 503, {"message": "no pod"})])
def test_a_source_that_cannot_be_asked_proves_nothing(error):
    assert not any(passed(error))


def test_all_paths_share_the_time(monkeypatch):
    """In three rounds of threads each with its own time it would be three times as long until the failure is told."""
    now, granted = [0.0], []

    def until(probe, timeout):
        granted.append(timeout)
        now[0] += min(timeout, 40)
        return probe()

    monkeypatch.setattr(policies, "WORKERS", 1)
    monkeypatch.setattr(policies, "until", until)
    monkeypatch.setattr(policies.time, "monotonic", lambda: now[0])
    policies.checks(Answers(KubernetesError("no answer")), "cluster.local", 100)
    assert granted == [100, 60, 20] + [policies.LATE_S] * (len(policies.MATRIX) - 3)


def test_every_kind_of_rule_has_a_path_that_is_open_and_one_that_is_not():
    for kind in (
        "pod",
        "namespace",
        "namespace and pod",
        "range",
        "port",
        "a port's name",
        "a range of ports",
        "UDP port",
    ):
        rows = [path.open for path in policies.MATRIX if path.what.startswith(f"ingress by {kind},")]
        rows += [path.open for path in policies.MATRIX if path.what == f"ingress by {kind}"]
        assert set(rows) == {True, False}, kind
    for kind in ("pod and port", "range", "namespace"):
        rows = [path.open for path in policies.MATRIX if path.what.startswith(f"egress by {kind},")]
        assert set(rows) == {True, False}, kind


def test_a_pod_of_the_other_namespace_is_found_there_and_udp_is_asked_by_udp():
    asked = []

    class Client:
        def get(self, path, query=None):
            asked.append((path, query))
            return {"status": {"podIP": "10.200.1.7"}}

    assert policies.address(Client(), "foreigner", "cluster.local") == "10.200.1.7"
    policies.dial(Client(), "stranger", "10.200.1.7", 8080, "udp")
    assert asked[0][0].startswith(f"/api/v1/namespaces/{policies.OTHER}/")
    assert asked[1][1]["protocol"] == "udp"
