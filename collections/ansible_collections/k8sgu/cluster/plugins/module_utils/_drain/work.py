# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries a plan out by the API server: cordons, evicts and waits, uncordons, removes."""

from __future__ import annotations

import time
from typing import Any, Collection, Iterable, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._drain import plan as plans
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes import readiness
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.client import ApiError, Client
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError

# Field manager that owns only what a cordon sets, so that uncordoning changes nothing that others have set.
FIELD_MANAGER = "k8sgu-drain"
PAUSE_S = 0.5
# A node is not Ready for some seconds while its kubelet restarts; if it stays so for longer, it cannot be drained.
SETTLE_S = 20.0
SHOWN = 5

_NODES, _PODS = "/api/v1/nodes", "/api/v1/pods"
_BUDGETS = "/apis/policy/v1/poddisruptionbudgets"
_ATTACHMENTS = "/apis/storage.k8s.io/v1/volumeattachments"
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


class NotDrained(KubernetesError):
    """A node's pods did not leave in time, or never will; the text names what keeps them."""


class Nodes:
    """The nodes of a cluster, read and changed through its API server."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def all(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.client.get(_NODES)["items"]
        return items

    def budgets(self) -> list[plans.Budget]:
        return [plans.budget_of(item) for item in self.client.get(_BUDGETS)["items"]]

    def pods(self, node: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.client.get(_PODS, {"fieldSelector": f"spec.nodeName={node}"})["items"]
        return items

    def plan(self, names: Iterable[str], nodes: Iterable[Mapping[str, Any]]) -> list[plans.NodePlan]:
        """The plan for each of these nodes. Raises NotDrained for pods that can never be evicted."""
        there = {node["metadata"]["name"]: node for node in nodes}
        budgets = self.budgets()
        made, faults = [], []
        for name in names:
            try:
                pods = self.pods(name) if name in there else []
                made.append(plans.node_plan(name, there.get(name), pods, budgets))
            except plans.Unevictable as error:
                faults.append(f"{name} cannot be drained: {error}")
        if faults:
            raise NotDrained("\n".join(faults))
        return made

    def settled(self, names: Collection[str], patience_s: float) -> list[dict[str, Any]]:
        """All nodes, once each existing one of `names` is Ready, or after `patience_s` seconds."""
        deadline = time.monotonic() + patience_s
        while True:
            nodes = self.all()
            waiting = [node for node in nodes if node["metadata"]["name"] in names and not plans.is_ready(node)]
            if not waiting or time.monotonic() >= deadline:
                return nodes
            time.sleep(PAUSE_S)

    def cordon(self, node: plans.NodePlan, why: str) -> None:
        """Cordons a node and marks it as cordoned by us."""
        body = {"metadata": {"annotations": {plans.MARK: why}}, "spec": {"unschedulable": True}}
        self._apply(node.name, node.uid, body)

    def uncordon(self, name: str) -> bool:
        """Uncordons a node that we cordoned; returns whether we had. If someone else cordoned it too, it stays so."""
        node = self.client.find(f"{_NODES}/{name}")
        if node is None or plans.mark_of(node) is None:
            return False
        self._apply(name, node["metadata"]["uid"], {})
        return True

    def _apply(self, name: str, uid: str, body: Mapping[str, Any]) -> None:
        # Without the uid this would create a Node that was just deleted.
        metadata = {"name": name, "uid": uid, **body.get("metadata", {})}
        self.client.request(
            "PATCH",
            f"{_NODES}/{name}",
            {"fieldManager": FIELD_MANAGER, "force": "true"},
            {"apiVersion": "v1", "kind": "Node", **body, "metadata": metadata},
            content_type="application/apply-patch+yaml",
        )

    def remove(self, name: str) -> bool:
        """Removes a Node that we drained, with its lease and its volumes' attachments; returns whether there was one.

        The garbage collector removes the rest: https://kubernetes.io/docs/concepts/architecture/garbage-collection/
        """
        node = self.client.find(f"{_NODES}/{name}")
        if node is None or plans.mark_of(node) is None:
            return False
        self.delete(name, node["metadata"]["uid"])
        for attachment, _node in plans.detached(self.attachments(), (), {name: ""}, complete=False):
            self.detach(attachment)
        return True

    def delete(self, name: str, uid: str) -> None:
        """Deletes the Node with this uid, and its lease."""
        self._delete(f"{_NODES}/{name}", {"preconditions": {"uid": uid}})
        self._delete(f"{_LEASES}/{name}")

    def attachments(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.client.get(_ATTACHMENTS)["items"]
        return items

    def detach(self, attachment: str) -> None:
        """Deletes a VolumeAttachment; its driver, if there is one, detaches the volume first."""
        self._delete(f"{_ATTACHMENTS}/{attachment}")

    def _delete(self, path: str, body: Mapping[str, Any] | None = None) -> None:
        try:
            self.client.request("DELETE", path, body=body)
        except ApiError as error:
            if error.code != 404:
                raise

    def drain(self, node: plans.NodePlan, timeout_s: float, evicted: list[str]) -> None:
        """Evicts the pods that must leave and waits until they are gone; adds evicted pods to `evicted`.

        An eviction that a budget refuses is retried: the budget allows it once another replica runs elsewhere. Raises
        NotDrained.
        """
        deadline = time.monotonic() + timeout_s
        known = {pod.uid for pod in node.pods}
        while True:
            found = self.pods(node.name)
            budgets = self.budgets() if found else []
            try:
                steps = [plans.pod_step(pod, budgets, known) for pod in found]
            except plans.Unevictable as error:
                raise NotDrained(f"{node.name} cannot be drained: {error}") from error
            steps = [step for step in steps if step.action != plans.LEAVE]
            if not steps:
                return
            held: dict[str, str] = {}
            for step in steps:
                if step.action == plans.EVICT:
                    refusal = self._evict(step)
                    if refusal:
                        held[step.uid] = refusal
                    else:
                        evicted.append(step.key)
            if time.monotonic() >= deadline:
                raise NotDrained(self._what_holds(node.name, timeout_s, found, steps, held))
            time.sleep(PAUSE_S)

    def _evict(self, step: plans.PodStep) -> str:
        """Requests a pod's eviction. Returns why it is refused for now; empty if it is granted or the pod is gone."""
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": step.name, "namespace": step.namespace},
            "deleteOptions": {"preconditions": {"uid": step.uid}},
        }
        path = f"{_PODS.replace('/pods', '')}/namespaces/{step.namespace}/pods/{step.name}/eviction"
        try:
            # The caller reads the pods again before it retries.
            self.client.request("POST", path, body=body, passes=lambda refusal: refusal.code in (502, 503, 504))
        except ApiError as error:
            if error.code in (404, 409):  # it is gone, or another pod has the name
                return ""
            if error.code in (429, 500):
                causes = [str(cause.get("message")) for cause in error.details.get("causes") or ()]
                return "; ".join(causes) or error.message
            raise
        return ""

    def _what_holds(
        self,
        name: str,
        timeout_s: float,
        found: list[dict[str, Any]],
        steps: list[plans.PodStep],
        held: Mapping[str, str],
    ) -> str:
        """The message when a drain does not finish: what keeps the pods, and what to do."""
        bodies = {pod["metadata"]["uid"]: pod for pod in found}
        lines: list[str] = []
        budgets: set[str] = set()
        for step in steps:
            if step.uid in held:
                covering = " and ".join(f"PodDisruptionBudget {key}" for key in step.budgets)
                lines.append(f"Pod {step.key} is kept by {covering or 'the API server'}: {held[step.uid]}")
                budgets.update(step.budgets)
            else:
                lines.append(f"Pod {step.key} does not terminate{_why_it_stays(bodies[step.uid])}")
        lines = [*lines[:SHOWN], *([f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else [])]
        lines += self._waiting(budgets)
        text = f"{name} is not drained after {timeout_s:g} s:\n" + "\n".join(f"  {line}" for line in lines)
        ways = [
            "give timeout more seconds (k8sgu_drain_timeout)",
            "skip the drain (k8sgu_drain_timeout: 0)",
        ]
        if budgets:
            namespace, budget = sorted(budgets)[0].split("/")
            ways.insert(
                0,
                "make the budget allow it: one more replica, a node for it, or a different budget "
                f"(kubectl --namespace {namespace} edit poddisruptionbudget {budget})",
            )
        else:
            ways.insert(0, "see what the pod waits for (kubectl describe pod)")
        return f"{text}\nTo go on, {', or '.join(ways)}, and run it again"

    def _waiting(self, budgets: Collection[str]) -> list[str]:
        """Pods of these budgets that do not run, with the reason: often the budget only needs a place for one."""
        told = []
        for item in self.client.get(_BUDGETS)["items"] if budgets else ():
            budget = plans.budget_of(item)
            if budget.key not in budgets:
                continue
            for pod in self.client.get(f"/api/v1/namespaces/{budget.namespace}/pods")["items"]:
                trouble = readiness.pod_trouble(pod)
                if trouble and budget.covers(pod):
                    told.append(f"Pod {budget.namespace}/{pod['metadata']['name']}, of the same budget: {trouble}")
        return told[:SHOWN]


def _why_it_stays(pod: Mapping[str, Any]) -> str:
    metadata = pod["metadata"]
    reasons = []
    if metadata.get("finalizers"):
        reasons.append(f"finalizers {', '.join(metadata['finalizers'])}")
    if metadata.get("deletionGracePeriodSeconds"):
        reasons.append(f"it has {metadata['deletionGracePeriodSeconds']} s to terminate")
    return f" ({'; '.join(reasons)})" if reasons else ""
