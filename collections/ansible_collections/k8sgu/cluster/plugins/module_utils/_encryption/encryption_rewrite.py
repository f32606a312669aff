# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rewrites every object of a resource, so that it is encrypted with the key that writes now.

The API server writes an unchanged object only if its stored form is stale, that is, encrypted with another key:
https://kubernetes.io/docs/tasks/administer-cluster/encrypt-data/#ensure-all-secrets-are-encrypted
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._encryption import choice as choices
from ansible_collections.k8sgu.cluster.plugins.module_utils._encryption.keys import KeysError
from ansible_collections.k8sgu.cluster.plugins.module_utils._encryption.options import ARGUMENT_SPECS
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import FileError, atomic_write
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.client import ApiError, Client
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.kubeconfig import load
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.lists import every
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module

WORKERS = 8


class NotRewritten(Exception):
    """Not everything was rewritten; `result` has what was done by then."""

    def __init__(self, message: str, result: dict[str, Any]) -> None:
        super().__init__(message)
        self.result = result


def run(call: Call) -> dict[str, Any]:
    """Rewrites everything and writes the record. Raises NotRewritten."""
    counts: dict[str, dict[str, int]] = {}
    try:
        _rewrite_all(call, counts)
    except (KubernetesError, KeysError, choices.RecordError, FileError, OSError) as error:
        raise NotRewritten(str(error), {"objects": counts}) from error
    return {"changed": any(count["rewritten"] for count in counts.values()), "objects": counts}


def _rewrite_all(call: Call, counts: dict[str, dict[str, int]]) -> None:
    options = call.options
    record = Path(options["choice"]["record"])
    now, before = choices.from_options(options["choice"]), choices.read(record)
    gone = set(before.resources) - set(now.resources) if before else set()
    client = Client(load(options["kubeconfig"], None), options["patience"])
    for resource in (*now.resources, *sorted(gone)):
        if resource in gone and not exists(client, resource):
            continue
        if call.check_mode:
            found, stale = sum(1 for _item in every(client, collection_path(client, resource))), 0
        else:
            found, stale = rewrite(client, resource)
        counts[resource] = {"found": found, "rewritten": stale}
    if now != before and not call.check_mode:
        atomic_write(str(record), choices.serialize(now).encode(), mode=0o600, directory_mode=0o700)


def collection_path(client: Client, resource: str) -> str:
    """The API path of a resource, named as in EncryptionConfiguration: "secrets" or "deployments.apps"."""
    name, _dot, group = resource.partition(".")
    if not group:
        return f"/api/v1/{name}"
    for entry in client.get("/apis")["groups"]:
        if entry["name"] == group:
            return f"/apis/{entry['preferredVersion']['groupVersion']}/{name}"
    raise KubernetesError(f"resources: the API server has no group {group} (of {resource})")


def exists(client: Client, resource: str) -> bool:
    """Whether the API server has a resource: a custom one may be gone, with all its objects."""
    try:
        client.get(collection_path(client, resource), {"limit": "1"})
    except ApiError as error:
        if error.code == 404:
            return False
        raise
    except KubernetesError as error:
        if "has no group" in str(error):
            return False
        raise
    return True


def object_path(path: str, item: dict[str, Any]) -> str:
    """The API path of an object of the collection at `path`."""
    base, _slash, plural = path.rpartition("/")
    namespace = item["metadata"].get("namespace")
    middle = f"/namespaces/{namespace}" if namespace else ""
    return f"{base}{middle}/{plural}/{item['metadata']['name']}"


def store_again(client: Client, path: str, item: dict[str, Any]) -> bool:
    """Writes the object; returns whether it was stale. One that was written or removed meanwhile needs nothing."""
    try:
        after = client.request("PUT", object_path(path, item), body=item)
    except ApiError as error:
        if error.code in (404, 409):
            return False
        raise
    return bool(after["metadata"]["resourceVersion"] != item["metadata"]["resourceVersion"])


def rewrite(client: Client, resource: str) -> tuple[int, int]:
    """Rewrites one resource; returns (number of objects, number of stale ones)."""
    path = collection_path(client, resource)
    with ThreadPoolExecutor(max_workers=WORKERS) as pool:
        stale = list(pool.map(lambda item: store_again(client, path, item), every(client, path)))
    return len(stale), sum(stale)


MODULE = Module(ARGUMENT_SPECS["encryption_rewrite"], run, (NotRewritten,))
