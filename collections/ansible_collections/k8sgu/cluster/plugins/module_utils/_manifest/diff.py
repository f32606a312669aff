# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Objects for comparison and diffs: without the fields that the server sets, and with secrets masked. Pure."""

from __future__ import annotations

from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes import yaml_text

_SERVERS_OWN = ("managedFields", "resourceVersion", "uid", "generation", "creationTimestamp", "selfLink")
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def content(body: dict[str, Any] | None) -> dict[str, Any] | None:
    """The part of an object that users set, without what controllers set."""
    if body is None:
        return None
    metadata = {key: value for key, value in body["metadata"].items() if key not in _SERVERS_OWN}
    return {key: value for key, value in {**body, "metadata": metadata}.items() if key != "status"}


def entry(title: str, before: dict[str, Any] | None, after: dict[str, Any] | None) -> dict[str, str]:
    """One entry of Ansible's diff; it shows which values of a Secret differ, but not the values."""
    old, new = content(before), content(after)
    return {
        "before_header": title,
        "after_header": title,
        "before": _text(_masked(old, None, "before")),
        "after": _text(_masked(new, old, "after")),
    }


def _masked(body: dict[str, Any] | None, other: dict[str, Any] | None, side: str) -> dict[str, Any] | None:
    if body is None or body.get("kind") != "Secret":
        return body
    masked = dict(body)
    for field in ("data", "stringData"):
        if isinstance(body.get(field), dict):
            before = (other or {}).get(field) or {}
            masked[field] = {
                name: "(secret)" if side == "before" or before.get(name) == value else "(secret, another)"
                for name, value in body[field].items()
            }
    annotations = dict((body["metadata"].get("annotations")) or {})
    if _LAST_APPLIED in annotations:
        annotations[_LAST_APPLIED] = "(secret)"
        masked["metadata"] = {**body["metadata"], "annotations": annotations}
    return masked


def _text(body: dict[str, Any] | None) -> str:
    return "" if body is None else yaml_text.dump(body)
