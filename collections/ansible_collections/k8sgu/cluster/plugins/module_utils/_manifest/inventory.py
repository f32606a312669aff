# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory of a set, kept in a ConfigMap, so that the next run knows which objects to prune."""

from __future__ import annotations

import json
from typing import Any, Iterable

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._manifest.objects import SET_LABEL, Key

NAMESPACE = "kube-system"


def path(set_name: str) -> str:
    return f"/api/v1/namespaces/{NAMESPACE}/configmaps/{name(set_name)}"


def name(set_name: str) -> str:
    return f"k8sgu-set-{set_name}"


def body(set_name: str, keys: Iterable[Key]) -> dict[str, Any]:
    """The ConfigMap of a set; the same for the same keys, whatever their order."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": name(set_name),
            "namespace": NAMESPACE,
            "labels": {"app.kubernetes.io/managed-by": "k8sgu", "k8sgu.io/inventory": set_name},
        },
        "data": {"objects": "\n".join(json.dumps(key._asdict(), sort_keys=True) for key in sorted(set(keys)))},
    }


def keys(config_map: dict[str, Any] | None) -> set[Key]:
    if config_map is None:
        return set()
    try:
        lines = str((config_map.get("data") or {}).get("objects") or "").splitlines()
        return {Key(**json.loads(line)) for line in lines}
    except (ValueError, TypeError) as error:
        metadata = config_map["metadata"]
        raise KubernetesError(
            f"ConfigMap {metadata['namespace']}/{metadata['name']}: is not an inventory of k8sgu ({error}); delete it, "
            f"and remove unwanted objects with the label {SET_LABEL} by hand"
        ) from error


def to_prune(recorded: set[Key], wanted: Iterable[Key]) -> set[Key]:
    """The objects to prune: those that the set had and no longer has. Pure."""
    return recorded - set(wanted)
