# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads from the API server what the gates judge; changes are tried with dryRun alone, which makes none.

https://kubernetes.io/docs/reference/using-api/api-concepts/#dry-run
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.client import ApiError, Client
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.kubeconfig import load
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.lists import METADATA
from ansible_collections.k8sgu.cluster.plugins.module_utils._upgrade import objects
from ansible_collections.k8sgu.cluster.plugins.module_utils._upgrade.model import Api

_LISTS = {
    "nodes": "/api/v1/nodes",
    "pods": "/api/v1/pods",
    "budgets": "/apis/policy/v1/poddisruptionbudgets",
    "definitions": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "services": "/apis/apiregistration.k8s.io/v1/apiservices",
    "namespaces": "/api/v1/namespaces",
}
_WEBHOOKS = (
    ("ValidatingWebhookConfiguration", "validatingwebhookconfigurations"),
    ("MutatingWebhookConfiguration", "mutatingwebhookconfigurations"),
)
# A load balancer sends each new connection to any server. With 15 a server, one of five is missed once in a million.
_TRIES = 15
# Enough to know who writes objects of a kind.
_OBJECTS = "500"
_MERGE = "application/merge-patch+json"
_POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"generateName": "k8sgu-upgrade-"},
    "spec": {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65534, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "pause",
                "image": "registry.k8s.io/pause",
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
    },
}


def read(kubeconfig: str, patience: float, servers: int, target: str) -> Api:
    """Everything; an `Api` with a problem if the server does not answer. `servers`: how many API servers run."""
    try:
        with contextlib.closing(Client(load(kubeconfig, None), patience)) as client:
            found = _lists(client)
            metrics = _metrics(kubeconfig, patience, servers)
            managers = {objects.name_of(item): _managers(client, item) for item in objects.going(metrics, target)}
            return replace(found, metrics=metrics, managers=managers, probes=list(_probes(client, found)))
    except KubernetesError as error:
        return Api(problem=str(error))


def _lists(client: Client) -> Api:
    found = {name: client.get(path)["items"] for name, path in _LISTS.items()}
    hooks = [
        {**item, "kind": kind}
        for kind, path in _WEBHOOKS
        for item in client.get(f"/apis/admissionregistration.k8s.io/v1/{path}")["items"]
    ]
    return Api(**found, webhooks=hooks, backends=_backends(client, hooks))


def _backends(client: Client, hooks: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """{namespace/name: endpoints that are ready} of the Services of webhooks."""
    services = {
        (service["namespace"], service["name"])
        for configuration in hooks
        for hook in configuration.get("webhooks") or ()
        for service in [hook["clientConfig"].get("service")]
        if service
    }
    found = {}
    for namespace, name in sorted(services):
        path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        slices = client.get(path, {"labelSelector": f"kubernetes.io/service-name={name}"})["items"]
        found[f"{namespace}/{name}"] = sum(
            (endpoint.get("conditions") or {}).get("ready") is not False
            for one in slices
            for endpoint in one.get("endpoints") or ()
        )
    return found


def _metrics(kubeconfig: str, patience: float, servers: int) -> list[list[dict[str, str]]]:
    """The deprecated APIs that each API server was asked for; servers are told apart by the time of their start."""
    found: dict[str, list[dict[str, str]]] = {}
    for _try in range(_TRIES * servers if servers > 1 else 1):
        with contextlib.closing(Client(load(kubeconfig, None), patience)) as client:
            started, items = objects.deprecated_of(client.text("/metrics"))
        found[started] = items
        if len(found) >= servers:
            break
    return list(found.values())


def _managers(client: Client, item: Mapping[str, str]) -> list[str]:
    """ "MANAGER wrote NAMESPACE/NAME", of objects that somebody wrote by an API that goes.

    They are read by the group's preferred version, so that the question is not counted itself.
    """
    group, version = item["group"], item["version"]
    try:
        preferred = client.get(f"/apis/{group}")["preferredVersion"]["version"] if group else "v1"
        base = f"/apis/{group}/{preferred}" if group else "/api/v1"
        answer = client.get(f"{base}/{item['resource']}", {"limit": _OBJECTS}, accept=METADATA)
    except (ApiError, KeyError):
        return []  # the resource exists in this version alone, or the version was turned off since
    wrote: dict[str, list[str]] = {}
    old = f"{group}/{version}" if group else version
    # Without objects, a list of metadata has null.
    for one in answer["items"] or ():
        metadata = one["metadata"]
        name = "/".join(part for part in (metadata.get("namespace"), metadata["name"]) if part)
        for entry in metadata.get("managedFields") or ():
            if entry.get("apiVersion") == old:
                wrote.setdefault(str(entry.get("manager")), []).append(name)
    return [f"{manager} wrote {', '.join(dict.fromkeys(names[:3]))}" for manager, names in sorted(wrote.items())]


def _probes(client: Client, found: Api) -> Iterator[dict[str, str]]:
    """What the API server says to changes of the kinds that an upgrade makes; each has an empty error if it would."""
    for node in found.nodes[:1]:
        name = node["metadata"]["name"]
        yield _tried(client, f"change the node {name}", "PATCH", f"/api/v1/nodes/{name}", {})
        yield _tried(client, f"change the status of {name}", "PATCH", f"/api/v1/nodes/{name}/status", {})
        lease = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}"
        yield _tried(client, f"renew the lease of {name}", "PATCH", lease, {})
    for namespace in ("kube-system", "default"):
        yield _tried(client, f"make a pod in {namespace}", "POST", f"/api/v1/namespaces/{namespace}/pods", _POD)
    for pod in found.pods[:1]:
        metadata = pod["metadata"]
        key = {"namespace": metadata["namespace"], "name": metadata["name"]}
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": key, "deleteOptions": {"dryRun": ["All"]}}
        path = f"/api/v1/namespaces/{key['namespace']}/pods/{key['name']}/eviction"
        yield _tried(client, f"evict {key['namespace']}/{key['name']}", "POST", path, body)
    coredns = "/apis/apps/v1/namespaces/kube-system/deployments/coredns"
    yield _tried(client, "change kube-system's Deployment coredns", "PATCH", coredns, {})


def _tried(client: Client, what: str, method: str, path: str, body: Mapping[str, Any]) -> dict[str, str]:
    kind = _MERGE if method == "PATCH" else "application/json"
    try:
        client.request(method, path, {"dryRun": "All"}, body, kind, passes=lambda _refusal: False)
    except ApiError as error:
        return {"what": what, "error": error.message}
    return {"what": what, "error": ""}
