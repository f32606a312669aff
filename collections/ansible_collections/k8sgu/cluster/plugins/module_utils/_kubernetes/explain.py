# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Explains in a few lines why a workload does not run: what controllers, scheduler and kubelets report about it.

`explanation` is pure; `explain` reads what it needs. Call it when a wait for the workload has timed out.
https://kubernetes.io/docs/tasks/debug/debug-application/debug-pods/
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any, Collection, Iterable

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.client import Client
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.readiness import (
    condition,
    pod_trouble,
    readiness,
)

# Limits: pods, nodes, events of one object, characters of a line.
MOST_PODS, MOST_NODES, MOST_EVENTS, LONGEST_LINE = 3, 5, 2, 400
# Pods to read; after many evictions there are more.
_PAGE = 200
CORDONED = "is cordoned"
# Shorter secrets are not masked: they would occur in ordinary words.
_SHORTEST_SECRET = 4
_PRESSURES = ("DiskPressure", "MemoryPressure", "PIDPressure", "NetworkUnavailable")


@dataclass(frozen=True)
class Seen:
    """The API's objects that an explanation needs; `events` are warnings of the workload and of its pods."""

    workload: dict[str, Any]
    pods: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    nodes: list[dict[str, Any]] = field(default_factory=list)


def explain(client: Client, path: str, secrets: Collection[str] = ()) -> list[str]:
    """Lines that say why the object at `path` of the API is not ready; `secrets` are values to mask.

    Empty if it is ready. Raises nothing: an error of the API ends the explanation and is its last line.
    """
    seen = Seen({})
    try:
        seen = Seen(client.find(path) or {})
        if readiness(seen.workload).ready:
            return []
        _read(client, seen)
    except KubernetesError as error:
        return [*explanation(seen, secrets), one_line(f"nothing more could be read: {error}", secrets)]
    return explanation(seen, secrets)


def _read(client: Client, seen: Seen) -> None:
    namespace = (seen.workload.get("metadata") or {}).get("namespace")
    if not namespace:
        return
    seen.pods.extend(_pods(client, seen.workload, namespace))
    waiting = [pod for pod in seen.pods if not _finished(pod) and not _ready(pod)]
    for each in [seen.workload, *[pod for pod in waiting[:MOST_PODS] if pod is not seen.workload]]:
        query = {"fieldSelector": f"involvedObject.uid={each['metadata'].get('uid')},type=Warning"}
        seen.events.extend(client.get(f"/api/v1/namespaces/{namespace}/events", query).get("items") or [])
    if any(not pod["spec"].get("nodeName") for pod in waiting):
        seen.nodes.extend(client.get("/api/v1/nodes", {"limit": str(_PAGE)}).get("items") or [])
        return
    for name in sorted(_nodes_of(seen.pods))[:MOST_NODES]:
        node = client.find(f"/api/v1/nodes/{name}")
        seen.nodes.append(node or {"metadata": {"name": name}, "status": None})


def _pods(client: Client, workload: dict[str, Any], namespace: str) -> list[dict[str, Any]]:
    if workload.get("kind") == "Pod":
        return [workload]
    selector = (workload.get("spec") or {}).get("selector") or {}
    # A ReplicationController's selector is the labels themselves, and a volume claim's does not select pods.
    labels = selector if workload.get("kind") == "ReplicationController" else selector.get("matchLabels")
    if not labels or workload.get("kind") == "PersistentVolumeClaim":
        return []
    query = {"labelSelector": ",".join(f"{key}={value}" for key, value in labels.items()), "limit": str(_PAGE)}
    path = f"/api/v1/namespaces/{namespace}/pods"
    # Up to a thousand evicted pods stay as objects: they must not hide the one that should run.
    found: list[dict[str, Any]] = []
    for phases in ("status.phase!=Failed,status.phase!=Succeeded", "status.phase=Failed"):
        found += client.get(path, {**query, "fieldSelector": phases}).get("items") or []
    return found


def explain_removal(client: Client, path: str) -> list[str]:
    """Why the object at `path` still exists: what a namespace still contains, or the node that does not end its pod."""
    try:
        live = client.find(path) or {}
        if live.get("kind") == "Pod" and live["spec"].get("nodeName"):
            name = live["spec"]["nodeName"]
            trouble = node_trouble(client.find(f"/api/v1/nodes/{name}") or {"status": None})
            return [one_line(f"Node {name}: {'; '.join(trouble)}", ())] if trouble else []
    except KubernetesError:
        return []
    # https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/namespace-v1/#NamespaceStatus
    conditions = (live.get("status") or {}).get("conditions") or [] if live.get("kind") == "Namespace" else []
    told = [entry for entry in conditions if entry.get("status") == "True" and entry.get("message")]
    return [one_line(f"Namespace {live['metadata']['name']}: {entry['message']}", ()) for entry in told]


def explanation(seen: Seen, secrets: Collection[str] = ()) -> list[str]:
    """The explanation, limited in number and length of lines. Pure."""
    waiting = [pod for pod in seen.pods if not _finished(pod) and not _ready(pod)]
    lines = [
        f"{entry.get('reason')}: {entry.get('message')}"
        for entry in (seen.workload.get("status") or {}).get("conditions") or []
        if entry.get("type") == "ReplicaFailure" and entry.get("status") == "True"
    ]
    if seen.workload.get("kind") != "Pod":
        lines += _told(seen.workload, seen.events)
    alike: dict[str, list[str]] = {}
    for pod in waiting[:MOST_PODS]:
        place = f" on {pod['spec']['nodeName']}" if pod["spec"].get("nodeName") else ""
        trouble = pod_trouble(pod) or f"phase {(pod.get('status') or {}).get('phase')}"
        events = [told for told in _told(pod, seen.events) if not _repeats(told, trouble)]
        alike.setdefault(f"{place}: {'; '.join([trouble, *events])}", []).append(pod["metadata"]["name"])
    for told, names in alike.items():
        lines.append(f"Pod{'' if len(names) == 1 else 's'} {', '.join(names)}{told}")
    if len(waiting) > MOST_PODS:
        lines.append(f"{len(waiting) - MOST_PODS} more pods are not ready")
    lines += _failed([pod for pod in seen.pods if (pod.get("status") or {}).get("phase") == "Failed"])
    troubled = [(node["metadata"]["name"], node_trouble(node)) for node in seen.nodes]
    lines += [f"Node {name}: {'; '.join(trouble)}" for name, trouble in troubled if trouble][:MOST_NODES]
    return [one_line(line, secrets) for line in lines]


def node_trouble(node: dict[str, Any]) -> list[str]:
    """What keeps pods from running on a node, one phrase each."""
    if node.get("status", {}) is None:
        return ["is not registered"]
    ready = condition(node, "Ready")
    trouble = []
    if ready.get("status") != "True":
        trouble.append(f"NotReady: {ready.get('message') or ready.get('reason') or 'never reported'}")
    for kind in _PRESSURES:
        found = condition(node, kind)
        if found.get("status") == "True":
            trouble.append(f"{kind}: {found.get('message') or found.get('reason')}")
    if (node.get("spec") or {}).get("unschedulable"):
        trouble.append(CORDONED)
    return trouble


def secret_values(bodies: Iterable[dict[str, Any]]) -> set[str]:
    """The values of the Secrets among some objects, in clear text and encoded; each line of longer texts too."""
    found: set[str] = set()
    for body in bodies:
        if body.get("kind") == "Secret":
            for value in [*(body.get("stringData") or {}).values(), *(body.get("data") or {}).values()]:
                found |= {str(value), *str(value).split("\n")}
            found |= {_decoded(str(value)) for value in (body.get("data") or {}).values()}
    return {value for value in found if len(value) >= _SHORTEST_SECRET}


def _decoded(value: str) -> str:
    try:
        return base64.b64decode(value, validate=True).decode()
    except ValueError:  # not base64, or not text
        return ""


def one_line(text: str, secrets: Collection[str]) -> str:
    """`text` as one line of limited length, with the secrets masked."""
    for value in sorted(secrets, key=len, reverse=True):
        text = text.replace(value, "(secret)")
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_LINE else f"{text[: LONGEST_LINE - 4]} ..."


def _finished(pod: dict[str, Any]) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded")


def _ready(pod: dict[str, Any]) -> bool:
    return condition(pod, "Ready").get("status") == "True"


def _nodes_of(pods: Iterable[dict[str, Any]]) -> set[str]:
    return {str(pod["spec"]["nodeName"]) for pod in pods if pod["spec"].get("nodeName") and not _ready(pod)}


def _failed(pods: list[dict[str, Any]]) -> list[str]:
    """Failed pods, counted by reason: after many evictions a line each would hide everything else."""
    by_reason: dict[str, list[dict[str, Any]]] = {}
    for pod in pods:
        by_reason.setdefault(str(pod["status"].get("reason") or pod_trouble(pod) or "failed"), []).append(pod)
    lines = []
    for reason, members in sorted(by_reason.items(), key=lambda item: -len(item[1]))[:MOST_PODS]:
        count = f"{len(members)}{' or more' if len(pods) >= _PAGE else ''} pod{'' if len(members) == 1 else 's'}"
        last = max(members, key=lambda pod: str(pod["metadata"].get("creationTimestamp") or ""))
        places = sorted(_nodes_of(members))
        where = f" on {', '.join(places[:MOST_NODES])}" if places else ""
        message = str(last["status"].get("message") or "")
        lines.append(f"{count} ended{where}: {reason}{f': {message}' if message else ''}")
    return lines


def _told(about: dict[str, Any], events: Iterable[dict[str, Any]]) -> list[str]:
    """The newest warnings of an object, one for each reason."""
    uid = about["metadata"].get("uid") if about else None
    own = [event for event in events if uid and (event.get("involvedObject") or {}).get("uid") == uid]
    newest: dict[str, str] = {}
    for event in sorted(own, key=_when, reverse=True):
        count = int((event.get("series") or {}).get("count") or event.get("count") or 1)
        times = f" ({count} times)" if count > 1 else ""
        newest.setdefault(str(event.get("reason")), f"{event.get('reason')}{times}: {event.get('message')}")
    return list(newest.values())[:MOST_EVENTS]


def _repeats(told: str, trouble: str) -> bool:
    """Whether an event repeats the pod's own status."""
    return told.partition(": ")[2] in trouble


def _when(event: dict[str, Any]) -> str:
    return str(
        (event.get("series") or {}).get("lastObservedTime")
        or event.get("lastTimestamp")
        or event.get("eventTime")
        or (event.get("metadata") or {}).get("creationTimestamp")
        or ""
    )
