# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rewriting of objects: page by page; objects that were removed or changed meanwhile need nothing."""

from __future__ import annotations

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._encryption import encryption_rewrite as rewrite
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.client import ApiError

GROUPS = {"groups": [{"name": "example.org", "preferredVersion": {"groupVersion": "example.org/v1"}}]}


class Api:
    """Secrets in two pages; a write of a stale one gives it another version, one of `failing` an error."""

    def __init__(self, stale=(), failing=None):
        self.stale, self.failing, self.written = set(stale), failing or {}, []

    def get(self, path, query=None, accept=""):
        if path == "/apis":
            return GROUPS
        if path == "/apis/example.org/v1/things":
            raise ApiError("GET", path, 404, {"message": "not found"})
        assert path == "/api/v1/secrets"
        names, more = (["a", "b"], "next") if "continue" not in query else (["c"], "")
        items = [{"metadata": {"name": name, "namespace": "n", "resourceVersion": "1"}} for name in names]
        return {"apiVersion": "v1", "kind": "SecretList", "items": items, "metadata": {"continue": more}}

    def request(self, method, path, body):
        name = body["metadata"]["name"]
        assert (method, path, body["kind"]) == ("PUT", f"/api/v1/namespaces/n/secrets/{name}", "Secret")
        self.written.append(name)
        if name in self.failing:
            raise ApiError(method, path, self.failing[name], {"message": "no"})
        return {"metadata": {"resourceVersion": "2" if name in self.stale else "1"}}


def test_every_object_is_written_and_what_was_stale_is_counted():
    api = Api(stale=["a", "c"])
    assert rewrite.rewrite(api, "secrets") == (3, 2)
    assert sorted(api.written) == ["a", "b", "c"]


@pytest.mark.parametrize("code", [404, 409])
def test_objects_that_are_removed_or_changed_meanwhile_need_nothing(code):
    assert rewrite.rewrite(Api(stale=["a", "b"], failing={"b": code}), "secrets") == (3, 1)


def test_any_other_error_ends_it():
    with pytest.raises(ApiError):
        rewrite.rewrite(Api(failing={"b": 500}), "secrets")


@pytest.mark.parametrize(
    ("resource", "there"), [("secrets", True), ("things.example.org", False), ("things.example.net", False)]
)
def test_a_resource_that_was_dropped_may_be_gone_itself(resource, there):
    class Asked(Api):
        def get(self, path, query=None, accept=""):
            return super().get(path, query or {}) if path != "/api/v1/secrets" else {}

    assert rewrite.exists(Asked(), resource) is there
