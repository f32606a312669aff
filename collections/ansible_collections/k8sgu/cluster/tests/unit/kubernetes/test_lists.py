# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lists are read to their end, and one without objects is one."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes import lists


class Api:
    """Answers with these pages in turn, and records what it was asked."""

    def __init__(self, *pages: dict[str, Any]) -> None:
        self.pages, self.asked = list(pages), []

    def get(self, path: str, query: dict[str, str], accept: str) -> dict[str, Any]:
        self.asked.append((path, dict(query), accept))
        return self.pages.pop(0)


def page(names: list[str] | None, more: str = "") -> dict[str, Any]:
    items = None if names is None else [{"metadata": {"name": name}} for name in names]
    return {"apiVersion": "apps/v1", "kind": "DeploymentList", "metadata": {"continue": more}, "items": items}


def test_every_page_is_read_with_the_same_question() -> None:
    api: Any = Api(page(["a", "b"], "x"), page(["c"], "y"), page([]))
    found = list(lists.every(api, "/p", {"fieldSelector": "f"}, lists.METADATA))
    assert [(one["kind"], one["apiVersion"], one["metadata"]["name"]) for one in found] == [
        ("Deployment", "apps/v1", name) for name in ("a", "b", "c")
    ]
    question = {"fieldSelector": "f", "limit": str(lists.PAGE)}
    assert api.asked == [
        ("/p", question, lists.METADATA),
        ("/p", {**question, "continue": "x"}, lists.METADATA),
        ("/p", {**question, "continue": "y"}, lists.METADATA),
    ]


@pytest.mark.parametrize("names", [[], None])
def test_a_list_without_objects(names: list[str] | None) -> None:
    api: Any = Api(page(names))
    assert list(lists.every(api, "/p")) == []
