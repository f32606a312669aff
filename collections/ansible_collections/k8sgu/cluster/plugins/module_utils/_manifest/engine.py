# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Applies a set, rank by rank, with the objects of one rank at the same time; then prunes and waits."""

from __future__ import annotations

import concurrent.futures
import time
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Iterable, Sequence, TypeVar

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes import readiness
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.client import (
    ApiError,
    Client,
    conflicts,
    lacks_service_account,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.explain import (
    explain,
    explain_removal,
    node_trouble,
    one_line,
    secret_values,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._manifest import diff, inventory, objects
from ansible_collections.k8sgu.cluster.plugins.module_utils._manifest.discovery import Discovery, Resource
from ansible_collections.k8sgu.cluster.plugins.module_utils._manifest.objects import SET_LABEL, Key, Object

FIELD_MANAGER = "k8sgu"

_PARALLEL = 8
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 0.3

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Options:
    """The module's options that are needed here; times in seconds."""

    name: str
    namespace: str
    present: bool
    prune: bool
    wait: bool
    wait_timeout: float
    force_conflicts: bool
    take_over: bool
    check_mode: bool


@dataclass
class Outcome:
    """What happened to one object: created, configured, unchanged or deleted."""

    key: Key
    action: str
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    seconds_to_ready: float | None = None


@dataclass
class Result:
    server_version: str = ""
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return any(outcome.action != "unchanged" for outcome in self.outcomes)

    def diff(self) -> list[dict[str, str]]:
        return [
            diff.entry(str(outcome.key), outcome.before, outcome.after)
            for outcome in self.outcomes
            if outcome.action != "unchanged"
        ]

    def summary(self) -> list[dict[str, Any]]:
        entries = []
        for outcome in self.outcomes:
            entry: dict[str, Any] = {"object": str(outcome.key), "action": outcome.action}
            if outcome.seconds_to_ready is not None:
                entry["seconds_to_ready"] = round(outcome.seconds_to_ready, 3)
            entries.append(entry)
        return entries


class Engine:
    """One run over one set; `result` has what was done so far, also after an error."""

    def __init__(self, client: Client, options: Options) -> None:
        self.client, self.options = client, options
        self.result = Result()
        self._resources: dict[Key, Resource] = {}
        self._secrets: set[str] = set()
        self._scaled: dict[Key, tuple[int, int]] = {}

    def run(self, given: list[Object]) -> Result:
        """Apply or remove the objects. Raises KubernetesError."""
        self.result.server_version = str(self.client.get("/version").get("gitVersion", ""))
        self.discovery = Discovery(self.client)
        wanted = self._settle(given)
        self._secrets = secret_values(item.body for item in wanted)
        config_map = self.client.find(inventory.path(self.options.name))
        recorded = inventory.keys(config_map)
        with concurrent.futures.ThreadPoolExecutor(_PARALLEL) as self.pool:
            if self.options.present:
                self._present(wanted, recorded, config_map)
            else:
                self._absent({item.key for item in wanted} | recorded, config_map)
        return self.result

    def _settle(self, given: list[Object]) -> list[Object]:
        """The objects with their namespaces filled in. Raises KubernetesError that lists every unknown kind."""
        coming = self._coming = objects.defined_kinds(given)
        faults, settled = [], []
        for item in given:
            resource = self.discovery.exact(item.group, item.version, item.kind)
            if resource is None and (item.group, item.version, item.kind) in coming:
                plural, namespaced = coming[(item.group, item.version, item.kind)]
                resource = Resource(item.group, item.version, item.kind, plural, namespaced)
            if resource is None:
                advice = self.discovery.advice(item.group, item.version, item.kind)
                # An object of an unknown kind cannot exist, so it is absent already.
                if self.options.present:
                    faults.append(f"{item.origin}: the server knows no {item.kind} of {item.api_version}; {advice}")
                continue
            settled.append(objects.with_namespace(item, resource.namespaced, self.options.namespace))
            self._resources[settled[-1].key] = resource
        if faults:
            raise KubernetesError("\n".join(faults))
        objects.check_unique(settled)
        return settled

    # Applying

    def _present(self, wanted: list[Object], recorded: set[Key], config_map: dict[str, Any] | None) -> None:
        keys = {item.key for item in wanted}
        self._scaled = objects.scaled(wanted)
        doomed = inventory.to_prune(recorded, keys) if self.options.prune else set()
        # Record the objects before making any, so that those of an interrupted run are in the inventory too.
        self._record(recorded | keys, config_map)
        ranks = sorted({objects.rank(item.kind) for item in wanted})
        for rank in ranks:
            members = [item for item in wanted if objects.rank(item.kind) == rank]
            self._all(self._apply, members, self.result.outcomes)
            if rank == objects.CRD_RANK and not self.options.check_mode:
                self._await_ready(members)
                self.discovery.refresh()
        if doomed:
            self._delete(doomed)
        self._record(keys if self.options.prune else recorded | keys, None)
        if self.options.wait and not self.options.check_mode:
            self._await_ready(wanted)

    def _record(self, keys: set[Key], config_map: dict[str, Any] | None) -> None:
        """Writes the inventory unless it has these keys already."""
        if self.options.check_mode:
            return
        if config_map is None:
            config_map = self.client.find(inventory.path(self.options.name))
        body = inventory.body(self.options.name, keys)
        if config_map is not None and (config_map.get("data") or {}) == body["data"]:
            return
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        path = inventory.path(self.options.name)
        deadline = time.monotonic() + self.client.patience
        while True:
            try:
                self.client.request("PATCH", path, query, body, "application/apply-patch+yaml")
                return
            except ApiError as error:
                # A server that has just started creates the namespace a moment later.
                if error.code != 404 or time.monotonic() >= deadline:
                    raise KubernetesError(f"the inventory of the set {self.options.name}: {error.message}") from error
                time.sleep(_FIRST_PAUSE_S)

    def _apply(self, item: Object) -> Outcome:
        resource = self._resources[item.key]
        path = resource.path(item.namespace, item.name)
        before = self.client.find(path)
        self._check_owner(item.key, before)
        item = replace(item, body=objects.as_scaled(item.body, before, self._scaled.get(item.key)))
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
        if self.options.force_conflicts:
            query["force"] = "true"
        if self.options.check_mode:
            query["dryRun"] = "All"
        try:
            after = self._patch(item, path, query)
        except ApiError as error:
            if self.options.check_mode and error.code == 404 and before is None:
                return self._predicted(item, error)
            raise _refusal(item, error) from error
        if before is None:
            return Outcome(item.key, "created", None, after)
        same = before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]
        if (same and not self.options.check_mode) or diff.content(before) == diff.content(after):
            return Outcome(item.key, "unchanged", before, after)
        return Outcome(item.key, "configured", before, after)

    def _patch(self, item: Object, path: str, query: dict[str, str]) -> dict[str, Any]:
        """Patches the object; retries while its kind's definition or a service account that it needs is too new.

        A kind is served only a moment after its definition is established; until then its address is not found. A
        service account comes from the controller manager, which starts late if it must become the leader again first.
        Both waits last as long as the one for readiness.
        """
        begun = time.monotonic()
        defined_here = (item.group, item.version, item.kind) in self._coming and not self.options.check_mode
        waiting = self.options.wait and not self.options.check_mode
        while True:
            try:
                return self.client.request("PATCH", path, query, item.body, "application/apply-patch+yaml")
            except ApiError as error:
                if defined_here and error.code == 404:
                    limit = self.client.patience
                elif waiting and lacks_service_account(error):
                    limit = self.options.wait_timeout
                else:
                    raise
                if time.monotonic() >= begun + limit:
                    raise
                time.sleep(_FIRST_PAUSE_S)

    def _predicted(self, item: Object, error: ApiError) -> Outcome:
        """Check mode's outcome if the namespace or the definition of an object would be made only by this run."""
        made = {(outcome.key.kind, outcome.key.name) for outcome in self.result.outcomes if outcome.action == "created"}
        known = self.discovery.exact(item.group, item.version, item.kind)
        if known is None or ("Namespace", item.namespace) in made:
            return Outcome(item.key, "created", None, item.body)
        raise _refusal(item, error) from error

    def _check_owner(self, key: Key, live: dict[str, Any] | None) -> None:
        owner = _set_of(live)
        if owner and owner != self.options.name and not self.options.take_over:
            raise KubernetesError(
                f"{key}: belongs to the set {owner}; remove it from that set, or set take_over to move it to this one"
            )

    # Removing

    def _absent(self, keys: set[Key], config_map: dict[str, Any] | None) -> None:
        if config_map is not None:
            self._record(keys | inventory.keys(config_map), config_map)
        self._delete(keys)
        if config_map is not None and not self.options.check_mode:
            self._remove(inventory.path(self.options.name))

    def _delete(self, keys: set[Key]) -> None:
        """Deletes the highest rank first; if told to wait, each rank must be gone before the next."""
        for rank in sorted({objects.rank(key.kind) for key in keys}, reverse=True):
            members = sorted(key for key in keys if objects.rank(key.kind) == rank)
            deleted = [outcome for outcome in self._all(self._delete_one, members) if outcome is not None]
            self.result.outcomes += deleted
            if self.options.wait and not self.options.check_mode:
                self._await_gone(deleted)

    def _delete_one(self, key: Key) -> Outcome | None:
        path = self._path(key)
        live = self.client.find(path) if path else None
        if path is None or live is None:
            return None
        # It may belong to another set by now, or someone may have made a new object with the name.
        if _set_of(live) != self.options.name:
            return None
        if not self.options.check_mode and not live["metadata"].get("deletionTimestamp"):
            self._remove(path, live["metadata"]["uid"])
        return Outcome(key, "deleted", live, None)

    def _path(self, key: Key) -> str | None:
        resource = self._resources.get(key) or self.discovery.preferred(key)
        return resource.path(key.namespace, key.name) if resource else None

    def _remove(self, path: str, uid: str = "") -> None:
        body: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        try:
            self.client.request("DELETE", path, None, body)
        except ApiError as error:
            if error.code not in (404, 409):  # it is gone, or another object has the name now
                raise

    def _await_gone(self, outcomes: list[Outcome]) -> None:
        deadline = time.monotonic() + self.options.wait_timeout
        pause, left = _FIRST_PAUSE_S, outcomes
        while True:
            still = self._all(self._still_there, left)
            left = [outcome for outcome, there in zip(left, still) if there]
            if not left:
                return
            if time.monotonic() >= deadline:
                held = [f"{outcome.key}{there}" for outcome, there in zip(left, [x for x in still if x])]
                why = [line for outcome in left for line in explain_removal(self.client, self._path(outcome.key) or "")]
                raise KubernetesError(f"not gone after {self.options.wait_timeout:g} s: {'; '.join([*held, *why])}")
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE_S)

    def _still_there(self, outcome: Outcome) -> str:
        """Empty when the object is gone, otherwise why it is still there."""
        path = self._path(outcome.key)
        live = self.client.find(path) if path else None
        if live is None or live["metadata"]["uid"] != (outcome.before or {})["metadata"]["uid"]:
            return ""
        finalizers = [*(live["metadata"].get("finalizers") or []), *((live.get("spec") or {}).get("finalizers") or [])]
        return f" (held by the finalizers {', '.join(finalizers)})" if finalizers else " (being removed)"

    # Waiting

    def _await_ready(self, wanted: Sequence[Object]) -> None:
        begun = time.monotonic()
        outcomes = {outcome.key: outcome for outcome in self.result.outcomes}
        left = [item for item in wanted if readiness.waits(item.group, item.kind)]
        self._all(self._replace_failed, [item for item in left if item.kind == "DaemonSet"])
        pause = _FIRST_PAUSE_S
        while left:
            states = self._all(self._readiness, left)
            seconds = time.monotonic() - begun
            for item, state in zip(left, states):
                if state.ready:
                    outcomes[item.key].seconds_to_ready = seconds
            pending = [(item, state) for item, state in zip(left, states) if not state.ready]
            if any(state.failed for _item, state in pending) or (pending and seconds >= self.options.wait_timeout):
                raise KubernetesError(self._unready(pending, seconds))
            left = [item for item, _state in pending]
            if left:
                time.sleep(pause)
                pause = min(pause * 1.3, _LONGEST_PAUSE_S)

    def _readiness(self, item: Object) -> readiness.Readiness:
        live = self.client.find(self._resources[item.key].path(item.namespace, item.name))
        if live is None:
            return readiness.Readiness(False, "someone else has removed it", failed=True)
        state = readiness.readiness(live)
        if not state.ready and item.kind == "PersistentVolumeClaim" and self._waits_for_consumer(live):
            return readiness.Readiness(True)
        return state

    def _replace_failed(self, item: Object) -> None:
        """Deletes a DaemonSet's failed pods from nodes that are ready again.

        Its controller does so too, but up to 15 minutes later if they failed often, for example because a disk was full
        (failedPodsBackoff in https://github.com/kubernetes/kubernetes/blob/v1.36.0/pkg/controller/daemon).
        """
        path = f"/api/v1/namespaces/{item.namespace}/pods"
        for pod in self.client.get(path, {"fieldSelector": "status.phase=Failed"}).get("items") or []:
            owners = pod["metadata"].get("ownerReferences") or []
            if (item.kind, item.name) not in [(owner["kind"], owner["name"]) for owner in owners]:
                continue
            node = self.client.find(f"/api/v1/nodes/{pod['spec'].get('nodeName')}")
            if node is not None and not node_trouble(node):
                self._remove(f"{path}/{pod['metadata']['name']}", pod["metadata"]["uid"])

    def _waits_for_consumer(self, claim: dict[str, Any]) -> bool:
        name = (claim.get("spec") or {}).get("storageClassName")
        found = self.client.find(f"/apis/storage.k8s.io/v1/storageclasses/{name}") if name else None
        return bool(found) and (found or {}).get("volumeBindingMode") == "WaitForFirstConsumer"

    def _unready(self, pending: Iterable[tuple[Object, readiness.Readiness]], seconds: float) -> str:
        lines = []
        for item, state in pending:
            # The explanation of a pod includes this already.
            message = "is not ready" if item.kind == "Pod" else state.message
            lines.append(one_line(f"{item.key}: {message}", self._secrets))
            path = self._resources[item.key].path(item.namespace, item.name)
            lines += [f"  {why}" for why in explain(self.client, path, self._secrets)]
        return f"the set {self.options.name} is not ready after {seconds:.0f} s:\n" + "\n".join(lines)

    def _all(
        self, work: Callable[[_Item], _Result], items: Sequence[_Item], reached: list[_Result] | None = None
    ) -> list[_Result]:
        """Runs `work` for all items at the same time; raises all errors together; `reached` gets what succeeded."""
        futures = [self.pool.submit(work, item) for item in items]
        results, faults = [], []
        for future in futures:
            try:
                results.append(future.result())
            except KubernetesError as error:
                faults.append(str(error))
        if reached is not None:
            reached += results
        if faults:
            raise KubernetesError("\n".join(dict.fromkeys(faults)))
        return results


def _set_of(live: dict[str, Any] | None) -> str:
    return str(((live or {}).get("metadata", {}).get("labels") or {}).get(SET_LABEL) or "")


def _refusal(item: Object, error: ApiError) -> KubernetesError:
    """The server's refusal as an error that names the object and says what to do."""
    where = f"{item.key} ({item.origin})"
    owned = conflicts(error)
    if owned:
        told = "; ".join(f"{place}: {message}" for place, message in owned)
        return KubernetesError(
            f"{where}: others own fields of it: {told}. Remove these fields, or set force_conflicts to take them over"
        )
    if error.code == 404:
        return KubernetesError(
            f"{where}: the namespace {item.namespace} does not exist; add it to the set or create it first"
        )
    if lacks_service_account(error):
        return KubernetesError(
            f"{where}: {error.message}. Add that account to the set; the controller manager makes `default`: "
            "is it running?"
        )
    if "field is immutable" in error.message or "updates to" in error.message:
        return KubernetesError(
            f"{where}: {error.message}. Remove the object first (state: absent), or give it another name"
        )
    return KubernetesError(f"{where}: {error.message}")
