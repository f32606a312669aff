# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries a plan out by the API server: marks the templates of workloads and waits for their rollouts."""

from __future__ import annotations

import threading
import time
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.client import ApiError, Client
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.explain import explain
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.lists import METADATA, every
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.readiness import readiness
from ansible_collections.k8sgu.cluster.plugins.module_utils._restart import plan as plans

FIELD_MANAGER = "k8sgu-restart"
PAUSE_S = 1.0
_TOKENS = {"fieldSelector": "type=kubernetes.io/service-account-token"}


class NotRestarted(KubernetesError):
    """A rollout did not complete; the text names the workload and what it waited for."""


class Workloads:
    """The workloads of a cluster; `timeout_s` is how long a rollout may go without progress."""

    def __init__(self, client: Client, mark: str, timeout_s: float) -> None:
        self.client, self.mark, self.timeout_s = client, mark, timeout_s
        # The keys of those that this run has begun with, and of those that it has changed.
        self.begun: set[str] = set()
        self.changed: set[str] = set()
        # Set when one has failed: no other is begun then.
        self.stop = threading.Event()

    def read(self) -> plans.Seen:
        """Pods come first: what they are of exists by then, or is gone."""
        pods = list(every(self.client, "/api/v1/pods"))
        # Of Secrets nothing but the names is read.
        secrets = [entry["metadata"] for entry in every(self.client, "/api/v1/secrets", _TOKENS, METADATA)]
        return plans.Seen(
            pods,
            {f"{entry['namespace']}/{entry['name']}" for entry in secrets},
            list(every(self.client, "/apis/apps/v1/replicasets", accept=METADATA)),
            [entry for name in plans.RESOURCES.values() for entry in every(self.client, f"/apis/apps/v1/{name}")],
        )

    def restart(self, step: plans.Step) -> bool:
        """Restarts a workload and waits for its rollout; returns whether it is restarted.

        It may be gone, or another one may have failed. Raises KubernetesError.
        """
        if self.stop.is_set():
            return False
        self.begun.add(step.key)
        try:
            return (step.marked or self._mark(step)) and self._wait(step)
        except BaseException:
            self.stop.set()
            raise

    def _mark(self, step: plans.Step) -> bool:
        """Marks the template; returns whether the workload is there."""
        body = {"spec": {"template": {"metadata": {"annotations": {plans.MARK: self.mark}}}}}
        query = {"fieldManager": FIELD_MANAGER}
        try:
            self.client.request("PATCH", step.path, query, body, content_type="application/merge-patch+json")
        except ApiError as error:
            if error.code == 404:
                return False
            raise
        self.changed.add(step.key)
        return True

    def _wait(self, step: plans.Step) -> bool:
        """Waits until `kubectl rollout status` would end; False if the workload is gone. Raises NotRestarted."""
        farthest: tuple[int, int, int] | None = None
        deadline = time.monotonic() + self.timeout_s
        while True:
            workload = self.client.find(step.path)
            if workload is None:
                return False
            if plans.mark_of(workload) != self.mark:
                raise NotRestarted(_taken_away(step, workload))
            state = readiness(workload)
            if state.ready:
                return True
            reached = plans.progress(workload)
            if reached and (farthest is None or reached > farthest):
                farthest, deadline = reached, time.monotonic() + self.timeout_s
            # What an earlier run has begun may have failed then, and still complete now.
            ended = state.failed and not step.marked
            if ended or time.monotonic() >= deadline:
                how = "" if ended else f" after {self.timeout_s:g} s without progress"
                lines = [f"{step.key} is not restarted{how}: {state.message}", *explain(self.client, step.path)]
                raise NotRestarted("\n  ".join(lines))
            time.sleep(PAUSE_S)


def _taken_away(step: plans.Step, workload: dict[str, Any]) -> str:
    owners = [f"{owner['kind']} {owner['name']}" for owner in workload["metadata"].get("ownerReferences") or ()]
    fields = workload["metadata"].get("managedFields") or ()
    managers = [str(entry.get("manager")) for entry in fields if entry.get("manager") != FIELD_MANAGER]
    who = f"its owner {owners[0]}, or " if owners else ""
    return (
        f"{step.key} is not restarted: {who}one of {', '.join(dict.fromkeys(managers))} has taken the annotation "
        f"{plans.MARK} away from its template again; restart it by what manages it"
    )
