# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides whether an object is ready, by the rules of the controllers that set its status. Pure."""

from __future__ import annotations

from typing import Any, Callable, Mapping, NamedTuple


class Readiness(NamedTuple):
    """`message` says what is missing; `failed` is True if waiting longer is useless."""

    ready: bool
    message: str = ""
    failed: bool = False


_READY = Readiness(True)


def readiness(body: dict[str, Any]) -> Readiness:
    """The readiness of an object; kinds that have none are ready as soon as they exist."""
    group = str(body.get("apiVersion", "")).rpartition("/")[0]
    rule = _RULES.get((group, str(body.get("kind"))))
    return rule(body) if rule else _READY


def waits(group: str, kind: str) -> bool:
    """Whether objects of this kind can be unready."""
    return (group, kind) in _RULES


def condition(body: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """The condition of type `kind` in an object's status; empty if it has none."""
    conditions = (body.get("status") or {}).get("conditions") or []
    return next((entry for entry in conditions if entry.get("type") == kind), {})


def observed(body: dict[str, Any]) -> bool:
    """Whether the controller that sets the status has seen the object as it is."""
    return int((body.get("status") or {}).get("observedGeneration") or 0) >= int(
        body["metadata"].get("generation") or 0
    )


def _replicas(body: dict[str, Any]) -> int:
    replicas = (body.get("spec") or {}).get("replicas")
    return 1 if replicas is None else int(replicas)


def _count(body: dict[str, Any], field: str) -> int:
    return int((body.get("status") or {}).get(field) or 0)


_UNSEEN = Readiness(False, "its controller has not yet seen this version; is the controller manager running?")


def _deployment(body: dict[str, Any]) -> Readiness:
    if not observed(body):
        return _UNSEEN
    progress = condition(body, "Progressing")
    if progress.get("reason") == "ProgressDeadlineExceeded":
        return Readiness(False, str(progress.get("message")), failed=True)
    wanted, updated, available = _replicas(body), _count(body, "updatedReplicas"), _count(body, "availableReplicas")
    if updated < wanted:
        return Readiness(False, f"{updated} of {wanted} replicas updated")
    if _count(body, "replicas") > updated:
        return Readiness(False, f"{_count(body, 'replicas') - updated} old replicas not yet gone")
    if available < wanted:
        return Readiness(False, f"{available} of {wanted} replicas available")
    return _READY


def _replica_set(body: dict[str, Any]) -> Readiness:
    if not observed(body):
        return _UNSEEN
    wanted, ready = _replicas(body), _count(body, "readyReplicas")
    return _READY if ready >= wanted else Readiness(False, f"{ready} of {wanted} replicas ready")


def _daemon_set(body: dict[str, Any]) -> Readiness:
    if not observed(body):
        return _UNSEEN
    wanted, updated = _count(body, "desiredNumberScheduled"), _count(body, "updatedNumberScheduled")
    strategy = ((body.get("spec") or {}).get("updateStrategy") or {}).get("type")
    if strategy != "OnDelete" and updated < wanted:
        return Readiness(False, f"{updated} of {wanted} nodes updated")
    available = _count(body, "numberAvailable")
    return _READY if available >= wanted else Readiness(False, f"available on {available} of {wanted} nodes")


def _stateful_set(body: dict[str, Any]) -> Readiness:
    if not observed(body):
        return _UNSEEN
    wanted, ready = _replicas(body), _count(body, "readyReplicas")
    strategy = (body.get("spec") or {}).get("updateStrategy") or {}
    partition = int((strategy.get("rollingUpdate") or {}).get("partition") or 0)
    updated = _count(body, "updatedReplicas")
    if strategy.get("type") != "OnDelete" and updated < wanted - partition:
        return Readiness(False, f"{updated} of {wanted - partition} replicas updated")
    return _READY if ready >= wanted else Readiness(False, f"{ready} of {wanted} replicas ready")


def _job(body: dict[str, Any]) -> Readiness:
    failed = condition(body, "Failed")
    if failed.get("status") == "True":
        return Readiness(False, f"failed: {failed.get('message') or failed.get('reason')}", failed=True)
    if condition(body, "Complete").get("status") == "True" or (body.get("spec") or {}).get("suspend"):
        return _READY
    done = _count(body, "succeeded")
    return Readiness(
        False, f"not complete: {done} succeeded, {_count(body, 'active')} active, {_count(body, 'failed')} failed"
    )


def _pod(body: dict[str, Any]) -> Readiness:
    status = body.get("status") or {}
    phase = status.get("phase")
    if phase == "Succeeded" or condition(body, "Ready").get("status") == "True":
        return _READY
    if phase == "Failed":
        return Readiness(False, f"failed: {status.get('message') or status.get('reason') or ''}", failed=True)
    return Readiness(False, pod_trouble(body) or f"phase {phase}")


def _definition(body: dict[str, Any]) -> Readiness:
    accepted = condition(body, "NamesAccepted")
    if accepted.get("status") == "False":
        return Readiness(False, f"names not accepted: {accepted.get('message')}", failed=True)
    return _READY if condition(body, "Established").get("status") == "True" else Readiness(False, "not established")


def _api_service(body: dict[str, Any]) -> Readiness:
    available = condition(body, "Available")
    if available.get("status") == "True":
        return _READY
    return Readiness(False, f"not available: {available.get('message') or 'not checked yet'}")


def _namespace(body: dict[str, Any]) -> Readiness:
    phase = (body.get("status") or {}).get("phase")
    return _READY if phase == "Active" else Readiness(False, f"phase {phase}")


def _volume_claim(body: dict[str, Any]) -> Readiness:
    phase = (body.get("status") or {}).get("phase")
    if phase == "Lost":
        return Readiness(False, "its volume is lost", failed=True)
    return _READY if phase == "Bound" else Readiness(False, f"phase {phase}")


_RULES: dict[tuple[str, str], Callable[[dict[str, Any]], Readiness]] = {
    ("apps", "Deployment"): _deployment,
    ("apps", "ReplicaSet"): _replica_set,
    ("apps", "DaemonSet"): _daemon_set,
    ("apps", "StatefulSet"): _stateful_set,
    ("batch", "Job"): _job,
    ("", "Pod"): _pod,
    ("", "ReplicationController"): _replica_set,
    ("", "Namespace"): _namespace,
    ("", "PersistentVolumeClaim"): _volume_claim,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _definition,
    ("apiregistration.k8s.io", "APIService"): _api_service,
}


def pod_trouble(pod: dict[str, Any]) -> str:
    """Why a pod does not run, in the words of the kubelet or the scheduler; empty if they report nothing."""
    status = pod.get("status") or {}
    if status.get("phase") == "Failed" and (status.get("reason") or status.get("message")):
        return ": ".join(str(status[key]) for key in ("reason", "message") if status.get(key))
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return f"not scheduled: {scheduled.get('message')}"
    if (pod.get("metadata") or {}).get("deletionTimestamp"):
        return f"has been terminating since {pod['metadata']['deletionTimestamp']}"
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        trouble = _container_trouble(container)
        if trouble:
            return f"container {container.get('name')}: {trouble}"
    if status.get("phase") != "Pending":
        return ""
    if not (pod.get("spec") or {}).get("nodeName"):
        return "not scheduled, without a reason; is the scheduler running?"
    return "" if status.get("containerStatuses") else "its node's kubelet has not started it"


def _container_trouble(container: dict[str, Any]) -> str:
    state = container.get("state") or {}
    waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
    if waiting and waiting.get("reason") != "PodInitializing":
        last = _end((container.get("lastState") or {}).get("terminated") or {})
        told = f"{waiting.get('reason')} {waiting.get('message') or ''}".strip()
        return f"{told}, ended before: {last}" if last else told
    if ended.get("exitCode"):
        return _end(ended)
    return "runs and is not ready" if not container.get("ready") and state.get("running") else ""


def _end(terminated: dict[str, Any]) -> str:
    """How a container ended, such as "exit code 137 OOMKilled"; empty if it has not."""
    if "exitCode" not in terminated:
        return ""
    words = [terminated.get("reason") if terminated.get("reason") != "Error" else "", terminated.get("message")]
    return " ".join([f"exit code {terminated['exitCode']}", *[str(word).strip() for word in words if word]])
