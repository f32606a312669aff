# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parses, checks, names and ranks the objects of a set. Pure."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any, Iterable, NamedTuple

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes import yaml_text
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError

SET_LABEL = "k8sgu.io/set"

# Kinds in the order in which they are applied; the last rank has every kind that is not listed.
_RANKS: list[frozenset[str]] = [
    frozenset({"Namespace"}),
    frozenset({"CustomResourceDefinition"}),
    frozenset({"PriorityClass", "StorageClass", "RuntimeClass", "IngressClass", "CSIDriver"})
    | {"ResourceQuota", "LimitRange", "NetworkPolicy"}
    | {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"},
    frozenset({"ServiceAccount", "ClusterRole", "Role", "ClusterRoleBinding", "RoleBinding"}),
    frozenset({"ConfigMap", "Secret", "PersistentVolume", "PersistentVolumeClaim"}),
    frozenset({"Service"}),
    frozenset(
        {"Deployment", "DaemonSet", "StatefulSet", "ReplicaSet", "ReplicationController", "Pod", "Job", "CronJob"}
    ),
]
CRD_RANK = 1


class Key(NamedTuple):
    """The identity of an object, independent of its API version; `namespace` is empty for cluster-scoped ones."""

    group: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace + '/' if self.namespace else ''}{self.name}"


@dataclass(frozen=True)
class Object:
    """One wanted object; `origin` says where it was read from."""

    body: dict[str, Any]
    origin: str

    @property
    def api_version(self) -> str:
        return str(self.body["apiVersion"])

    @property
    def group(self) -> str:
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        return self.api_version.rpartition("/")[2]

    @property
    def kind(self) -> str:
        return str(self.body["kind"])

    @property
    def name(self) -> str:
        return str(self.body["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.body["metadata"].get("namespace") or "")

    @property
    def key(self) -> Key:
        return Key(self.group, self.kind, self.namespace, self.name)


def rank(kind: str) -> int:
    """A kind's position in the order of application."""
    return next((number for number, kinds in enumerate(_RANKS) if kind in kinds), len(_RANKS))


def parse(text: str, origin: str) -> list[Any]:
    """The documents of a YAML (or JSON) text; empty ones are left out."""
    return yaml_text.documents(text, origin)


def collect(documents: Iterable[tuple[Any, str]], set_name: str) -> list[Object]:
    """The objects, checked, with the set's label and with Lists unfolded. Raises KubernetesError with all faults."""
    faults: list[str] = []
    found: list[Object] = []
    for document, origin in documents:
        for body in _unfold(document):
            fault = _fault(body)
            if fault:
                faults.append(f"{origin}: {fault}")
            else:
                found.append(Object(_labelled(plain(body), set_name), origin))
    if faults:
        raise KubernetesError("\n".join(faults))
    return found


def check_unique(objects: Iterable[Object]) -> None:
    """Raises KubernetesError if an object is given twice; call it when namespaces are filled in."""
    origins: dict[Key, str] = {}
    faults = []
    for item in objects:
        if item.key in origins:
            faults.append(f"{item.origin}: {item.key} is given a second time, first by {origins[item.key]}; keep one")
        origins.setdefault(item.key, item.origin)
    if faults:
        raise KubernetesError("\n".join(faults))


def _unfold(document: Any) -> list[Any]:
    if isinstance(document, list):
        return [body for item in document for body in _unfold(item)]
    if isinstance(document, dict) and document.get("kind") == "List" and isinstance(document.get("items"), list):
        return [body for item in document["items"] for body in _unfold(item)]
    return [document]


def _fault(body: Any) -> str:
    if not isinstance(body, dict):
        return f"a {type(body).__name__} is not an object with apiVersion, kind and metadata"
    for key in ("apiVersion", "kind"):
        if not isinstance(body.get(key), str) or not body[key]:
            return f"an object lacks {key} ({_hint(body)})"
    metadata = body.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str) or not metadata["name"]:
        if isinstance(metadata, dict) and metadata.get("generateName"):
            return f"a {body['kind']} has generateName, which would make a new object in every run; give metadata.name"
        return f"a {body['kind']} lacks metadata.name, a text"
    for key in ("labels", "annotations"):
        wrong = [
            f"{name}: {value!r}" for name, value in (metadata.get(key) or {}).items() if not isinstance(value, str)
        ]
        if wrong:
            return f"{body['kind']} {metadata['name']}: {key} must be strings; quote {', '.join(wrong)}"
    return ""


def _hint(body: dict[str, Any]) -> str:
    return f"it has {', '.join(sorted(str(key) for key in body)[:6])}" if body else "it is empty"


def _labelled(body: dict[str, Any], set_name: str) -> dict[str, Any]:
    metadata = dict(body["metadata"])
    metadata["labels"] = {**(metadata.get("labels") or {}), SET_LABEL: set_name}
    # The server sets these; to apply them would only cause conflicts.
    for key in ("managedFields", "resourceVersion", "uid", "generation", "creationTimestamp", "selfLink"):
        metadata.pop(key, None)
    return {key: value for key, value in {**body, "metadata": metadata}.items() if key != "status"}


def plain(value: Any) -> Any:
    """The value with builtin types in place of Ansible's tagged ones."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    return str(value)


def with_namespace(item: Object, namespaced: bool, default: str) -> Object:
    """The object with its namespace filled in, given its kind's scope."""
    metadata = dict(item.body["metadata"])
    if namespaced:
        metadata["namespace"] = metadata.get("namespace") or default
    else:
        metadata.pop("namespace", None)
    return Object({**item.body, "metadata": metadata}, item.origin)


def scaled(objects: Iterable[Object]) -> dict[Key, tuple[int, int]]:
    """{what is scaled: (fewest, most) replicas} by the set's HorizontalPodAutoscalers; namespaces are filled in."""
    found = {}
    for item in objects:
        if (item.group, item.kind) != ("autoscaling", "HorizontalPodAutoscaler"):
            continue
        spec = item.body.get("spec") or {}
        target, least, most = spec.get("scaleTargetRef") or {}, spec.get("minReplicas", 1), spec.get("maxReplicas")
        # What is amiss with it the server says.
        if isinstance(least, int) and isinstance(most, int) and least <= most:
            group = str(target.get("apiVersion") or "").rpartition("/")[0]
            key = Key(group, str(target.get("kind")), item.namespace, str(target.get("name")))
            found[key] = (least, most)
    return found


def as_scaled(body: dict[str, Any], live: dict[str, Any] | None, bounds: tuple[int, int] | None) -> dict[str, Any]:
    """The object with the replicas that its autoscaler has given the living one, if it has an autoscaler.

    https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/#migrating-deployments-and-statefulsets-to-horizontal-autoscaling
    """
    replicas = ((live or {}).get("spec") or {}).get("replicas")
    if bounds is None or not isinstance(replicas, int):
        return body
    least, most = bounds
    return {**body, "spec": {**(body.get("spec") or {}), "replicas": min(max(replicas, least), most)}}


def defined_kinds(objects: Iterable[Object]) -> dict[tuple[str, str, str], tuple[str, bool]]:
    """{(group, version, kind): (plural, namespaced)} of the set's own custom resource definitions."""
    kinds = {}
    for item in objects:
        spec = item.body.get("spec")
        if item.kind != "CustomResourceDefinition" or not isinstance(spec, dict):
            continue
        names = spec.get("names") or {}
        for version in spec.get("versions") or []:
            if version.get("served", True):
                key = (str(spec.get("group")), str(version.get("name")), str(names.get("kind")))
                kinds[key] = (str(names.get("plural")), spec.get("scope") == "Namespaced")
    return kinds
