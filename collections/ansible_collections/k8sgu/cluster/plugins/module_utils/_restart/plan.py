# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides which workloads are restarted and which pods cannot be, given the API server's objects. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Collection, Iterable, Iterator, Mapping, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._drain.plan import MIRROR_ANNOTATION
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.readiness import observed, readiness

# The annotation of pod templates, and with that of pods.
MARK = "k8sgu.io/restarted-for"
# The ConfigMap that kube-controller-manager makes in every namespace.
AUTHORITY = "kube-root-ca.crt"
# What can be restarted, with the name of its resource.
RESOURCES = {"Deployment": "deployments", "StatefulSet": "statefulsets", "DaemonSet": "daemonsets"}
_INDEX = "apps.kubernetes.io/pod-index"

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Seen:
    """The cluster's objects. `secrets` has namespace/name of those with a service account's token; of ReplicaSets the
    metadata will do.
    """

    pods: Sequence[Object]
    secrets: Collection[str]
    replica_sets: Sequence[Object]
    workloads: Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Step:
    """A workload to restart, for so many pods; `marked` if an earlier run has begun to."""

    kind: str
    namespace: str
    name: str
    pods: int
    marked: bool
    trouble: str = ""

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"

    @property
    def path(self) -> str:
        return f"/apis/apps/v1/namespaces/{self.namespace}/{RESOURCES[self.kind]}/{self.name}"

    def line(self) -> str:
        pods = "1 pod has" if self.pods == 1 else f"{self.pods} pods have"
        earlier = ", and an earlier run has begun to" if self.marked else ""
        return f"restart {self.key}  # {pods} what is replaced{earlier}"


@dataclass(frozen=True, order=True)
class Left:
    """A pod that cannot be restarted this way, and why."""

    pod: str
    why: str

    def line(self) -> str:
        return f"leave pod/{self.pod}  # {self.why}"


@dataclass(frozen=True)
class Plan:
    """What is restarted, and what is left, each sorted."""

    steps: tuple[Step, ...]
    left: tuple[Left, ...]

    @property
    def unhealthy(self) -> tuple[Step, ...]:
        """Those whose rollout is not complete, without those that an earlier run has begun."""
        return tuple(step for step in self.steps if step.trouble and not step.marked)

    def lines(self) -> list[str]:
        return [step.line() for step in self.steps] + [left.line() for left in self.left]


def plan(seen: Seen, mark: str, ignore: Collection[str]) -> Plan:
    """`ignore` has workloads to leave, as namespace/name or kind/namespace/name."""
    replica_sets = {entry["metadata"]["uid"]: entry for entry in seen.replica_sets}
    workloads = {entry["metadata"]["uid"]: entry for entry in seen.workloads}
    counts: dict[str, int] = {}
    left = []
    for pod in seen.pods:
        if not is_due(pod, seen.secrets, mark):
            continue
        uid, why = _workload(pod, replica_sets, workloads)
        why = why or _hindrance(workloads[uid], pod, ignore)
        if why:
            left.append(Left(_key(pod), why))
        else:
            counts[uid] = counts.get(uid, 0) + 1
    steps = [_step(workloads[uid], count, mark) for uid, count in counts.items()]
    return Plan(tuple(sorted(steps, key=lambda step: step.key)), tuple(sorted(left)))


def _step(workload: dict[str, Any], pods: int, mark: str) -> Step:
    metadata, state = workload["metadata"], readiness(workload)
    marked = mark_of(workload) == mark
    return Step(workload["kind"], metadata["namespace"], metadata["name"], pods, marked, state.message)


def mark_of(workload: Object) -> str | None:
    """The mark of a workload's template."""
    found = ((workload["spec"]["template"].get("metadata") or {}).get("annotations") or {}).get(MARK)
    return None if found is None else str(found)


def is_due(pod: Object, secrets: Collection[str], mark: str) -> bool:
    """Whether a pod has what is replaced, and from before."""
    metadata = pod["metadata"]
    annotations = metadata.get("annotations") or {}
    if (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed") or metadata.get("deletionTimestamp"):
        return False
    if MIRROR_ANNOTATION in annotations or annotations.get(MARK) == mark:
        return False
    return any(
        what == "token"
        or (what == "configMap" and name == AUTHORITY)
        or (what == "secret" and f"{metadata['namespace']}/{name}" in secrets)
        for what, name in _sources(pod["spec"])
    )


def _sources(spec: Object) -> Iterator[tuple[str, str]]:
    """("token" | "configMap" | "secret", name) of everything that a pod's volumes and environments are made of."""
    for volume in spec.get("volumes") or ():
        yield "configMap", str((volume.get("configMap") or {}).get("name"))
        yield "secret", str((volume.get("secret") or {}).get("secretName"))
        for source in (volume.get("projected") or {}).get("sources") or ():
            if "serviceAccountToken" in source:
                yield "token", ""
            yield "configMap", str((source.get("configMap") or {}).get("name"))
            yield "secret", str((source.get("secret") or {}).get("name"))
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(kind) or ():
            given = [entry.get("valueFrom") or {} for entry in container.get("env") or ()]
            for source in (*given, *(container.get("envFrom") or ())):
                for what in ("configMap", "secret"):
                    for reference in (source.get(f"{what}KeyRef"), source.get(f"{what}Ref")):
                        yield what, str((reference or {}).get("name"))


def _key(body: Object) -> str:
    return f"{body['metadata']['namespace']}/{body['metadata']['name']}"


def _controller(body: Object) -> Object:
    owners: Iterable[Object] = body["metadata"].get("ownerReferences") or ()
    return next((owner for owner in owners if owner.get("controller")), {})


def _workload(pod: Object, replica_sets: Mapping[str, Object], workloads: Collection[str]) -> tuple[str, str]:
    """The uid of the workload that a pod is of; else why there is none that can be restarted."""
    owner = _controller(pod)
    if not owner:
        return "", "no controller has it: delete it, and make it again"
    named = f"{owner.get('kind')} {owner.get('name')}"
    if not _is_app(owner, "ReplicaSet"):
        if any(_is_app(owner, kind) for kind in RESOURCES):
            return _there(owner, named, workloads)
        if owner.get("kind") == "Job" and str(owner.get("apiVersion")).startswith("batch/"):
            return "", f"of the {named}, which has no rolling update: wait for its end, or delete the pod"
        return "", f"of the {named}, which is not known here: restart it with what has made it"
    replica_set = replica_sets.get(str(owner.get("uid")))
    if replica_set is None:
        return "", f"its {named} is not there any more"
    above = _controller(replica_set)
    if _is_app(above, "Deployment"):
        return _there(above, f"{above.get('kind')} {above.get('name')}", workloads)
    whose = f"a {above['kind']} {above['name']} has" if above else "no Deployment has"
    return "", f"of the {named}, which {whose}: delete the pod, and another one is made"


def _is_app(owner: Object, kind: str) -> bool:
    return owner.get("kind") == kind and str(owner.get("apiVersion")).startswith("apps/")


def _there(owner: Object, named: str, workloads: Collection[str]) -> tuple[str, str]:
    uid = str(owner.get("uid"))
    return (uid, "") if uid in workloads else ("", f"its {named} is not there any more")


def _hindrance(workload: Object, pod: Object, ignore: Collection[str]) -> str:
    """Why a workload's rolling update would not reach a pod; empty if it would."""
    key, spec = _key(workload), workload["spec"]
    kind, (namespace, name) = workload["kind"], key.split("/")
    named = f"{kind} {key}"
    if key in ignore or f"{kind}/{key}" in ignore:
        return f"{named} is in ignore"
    if workload["metadata"].get("deletionTimestamp"):
        return f"{named} is being deleted"
    if spec.get("paused"):
        return f"{named} is paused (kubectl --namespace {namespace} rollout resume deployment/{name})"
    strategy = spec.get("updateStrategy") or {}
    if strategy.get("type") == "OnDelete":
        return f"{named} has the strategy OnDelete: delete the pod, and another one is made"
    partition = int((strategy.get("rollingUpdate") or {}).get("partition") or 0)
    if kind == "StatefulSet" and _ordinal(pod) - int((spec.get("ordinals") or {}).get("start") or 0) < partition:
        return f"{named} has the partition {partition}: delete the pod, and another one is made"
    return ""


def _ordinal(pod: Object) -> int:
    metadata = pod["metadata"]
    return int((metadata.get("labels") or {}).get(_INDEX) or metadata["name"].rpartition("-")[2])


def progress(workload: dict[str, Any]) -> tuple[int, int, int] | None:
    """How far a rollout is: larger is farther. None before its controller has seen it."""
    if not observed(workload):
        return None
    status = workload.get("status") or {}

    def count(*fields: str) -> int:
        return int(next((status[field] for field in fields if status.get(field)), 0))

    updated = count("updatedReplicas", "updatedNumberScheduled")
    surplus = count("replicas", "currentNumberScheduled") - updated
    return updated, -surplus, count("availableReplicas", "numberAvailable")


def refusal(unhealthy: Sequence[Step]) -> str:
    """The error for workloads whose rollout is not complete."""
    lines = [f"  {step.key}: {step.trouble}" for step in unhealthy]
    names = ", ".join(f"{step.namespace}/{step.name}" for step in unhealthy)
    return "\n".join(
        [
            "Nothing was restarted, since these workloads do not run as they should already, and a restart may end "
            "what still works of them:",
            *lines,
            f"Repair them, or leave them out: ignore: [{names}]",
        ]
    )
