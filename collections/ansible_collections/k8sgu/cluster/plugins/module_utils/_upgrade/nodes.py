# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gates of nodes: there, Ready, nobody else's work, with room, files, and certificates that last. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster.architectures import mirror_name
from ansible_collections.k8sgu.cluster.plugins.module_utils._drain.plan import (
    Unevictable,
    budget_of,
    is_ready,
    mark_of,
    node_plan,
    ready_condition,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.readiness import condition
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import expiry
from ansible_collections.k8sgu.cluster.plugins.module_utils._upgrade.members import mebibytes
from ansible_collections.k8sgu.cluster.plugins.module_utils._upgrade.model import Asked, Gate, Machine, Object, some

# An upgrade takes minutes, but one that is cut off on a Friday has to be able to go on, or back, after the weekend.
CERTIFICATE_DAYS = 7
# Free on each file system when everything is fetched: logs and the runtime go on writing meanwhile.
SPARE = 512 << 20
# An image is kept compressed and unpacked; the mirror knows its compressed size.
UNPACKED = 3
PRESSURES = ("DiskPressure", "MemoryPressure", "PIDPressure")


def reached(asked: Asked) -> Gate:
    """Every node of the inventory answered over SSH."""
    silent = [machine.name for machine in asked.machines if not machine.answered]
    problems = [
        f"{name}: does not answer over SSH; start it, or look at its console and its security groups" for name in silent
    ]
    if not asked.machines:
        problems.append("the inventory has no node of this cluster; give the one that it was made with (-i)")
    return Gate("reached", tuple(problems), f"{len(asked.machines)} nodes answered")


def ready(asked: Asked) -> Gate:
    """Every node has a Node object that is Ready, and nobody else cordoned it."""
    return Gate("nodes", tuple(_ready(asked)), f"{len(asked.api.nodes)} are Ready, and nobody else cordoned one")


def _ready(asked: Asked) -> Iterator[str]:
    there = {node["metadata"]["name"]: node for node in asked.api.nodes}
    names = {machine.name for machine in asked.machines}
    for name in sorted(names - set(there)):
        yield f"{name}: has no Node object; look at its kubelet (journalctl -u kubelet), then site.yml"
    for name in sorted(set(there) - names):
        yield (
            f"{name}: is a Node of the cluster and not in the inventory, so it would keep its version; if its machine "
            f"is gone for good: kubectl delete node {name}"
        )
    for name in sorted(names & set(there)):
        node = there[name]
        ours = mark_of(node) is not None
        # What an earlier run of ours left so, the next one goes on with.
        if not is_ready(node) and not ours:
            why = str(ready_condition(node).get("message") or "its kubelet never reported").rstrip(".")
            yield f"{name}: is not Ready ({why}); look at its kubelet: journalctl -u kubelet"
        if (node.get("spec") or {}).get("unschedulable") and not ours:
            yield f"{name}: somebody cordoned it, and may be at work there; when that is done: kubectl uncordon {name}"
        for kind in PRESSURES:
            if condition(node, kind).get("status") == "True":
                message = str(condition(node, kind).get("message") or kind).rstrip(".")
                yield f"{name}: has {kind} ({message}), and its kubelet evicts pods; make room there first"


def architecture(asked: Asked) -> Gate:
    """The release has programs for every node's processor."""
    found: dict[str, str] = {machine.name: str(machine.facts["architecture"]) for machine in asked.answered}
    problems = [
        f"{name}: is of the architecture {machine}, and {asked.target} has {', '.join(asked.architectures)}; replace "
        "it by one of these"
        for name, machine in sorted(found.items())
        if asked.architectures and mirror_name(machine) not in asked.architectures
    ]
    return Gate("architecture", tuple(problems), ", ".join(sorted(set(found.values()))))


def certificates(asked: Asked, controller: Sequence[Mapping[str, str]], now: datetime.datetime) -> Gate:
    """Every certificate outlasts an upgrade that is cut off. `controller`: those in the state directory."""
    scans = {machine.name: machine.facts["certificates"] for machine in asked.answered}
    found = expiry.report({"the controller": controller, **scans}, CERTIFICATE_DAYS, now)
    problems = [
        f"{item['host']}:{item['path']}: "
        + (f"{item['days_left']} days left" if item["not_after"] else item["subject"])
        + f", and an upgrade needs {CERTIFICATE_DAYS}; site.yml renews it"
        for item in found["below"]
    ]
    problems += [
        f"{machine.name}: certificates cannot be read: {'; '.join(machine.facts['certificates_unread'])}"
        for machine in asked.answered
        if machine.facts["certificates_unread"]
    ]
    least = min((item["days_left"] for item in found["certificates"]), default=0)
    return Gate("certificates", tuple(problems), f"{len(found['certificates'])}, the first ends in {least} days")


def disk(asked: Asked) -> Gate:
    """Each file system has room for what is still to be fetched."""
    problems, least = [], None
    for machine in asked.answered:
        for device in _devices(machine).values():
            need = device["need"] + SPARE
            least = min(device["free"] - need, least if least is not None else device["free"] - need)
            if device["free"] < need:
                problems.append(
                    f"{machine.name}: {device['path']} has {mebibytes(device['free'])} free, and "
                    f"{mebibytes(device['need'])} are still to be fetched with {mebibytes(SPARE)} to spare; make room "
                    "(crictl rmi --prune, journalctl --vacuum-size=100M), or give it a larger disk"
                )
    return Gate("disk", tuple(problems), f"at least {mebibytes(least or 0)} more than needed everywhere")


def _devices(machine: Machine) -> dict[Any, dict[str, Any]]:
    """Each file system once, with what is still to be fetched onto it."""
    facts = machine.facts
    needs = {
        "programs": sum(item["size"] for item in facts["files"] if item["state"] != "there"),
        "images": UNPACKED * sum(item["size"] for item in facts["images"]["images"] if item["state"] != "there"),
        "root": 0,
    }
    found: dict[Any, dict[str, Any]] = {}
    for name, need in needs.items():
        place = facts["disks"][name]
        device = found.setdefault(place["device"], {"path": place["path"], "free": place["free"], "need": 0})
        device["need"] += need
    return found


def files(asked: Asked) -> Gate:
    """Every program and image of the release is on its nodes, with the right checksum, once they were staged."""
    problems, count, lack = [], 0, 0
    for machine in asked.answered:
        lacking = []
        runtime = machine.facts["images"]
        if runtime["problem"]:
            problems.append(
                f"{machine.name}: its runtime does not list its images ({runtime['problem']}); look at crictl images"
            )
        for item in [*machine.facts["files"], *runtime["images"]]:
            count += 1
            if item["state"] != "there":
                how = {"different": " (with another checksum)", "unmirrored": " (the mirror lacks it)"}
                lacking.append(f"{item.get('path') or item['name']}{how.get(item['state'], '')}")
        lack += len(lacking)
        if lacking:
            problems.append(
                f"{machine.name}: {len(lacking)} of {asked.target}'s files and images are not there: {some(lacking, 3)}"
                "; run this again, which fetches them before anything is changed"
            )
    if not asked.staged:
        problems = []
    return Gate(
        "files", tuple(problems), f"{count - lack} of {count} are on the nodes" + ("" if asked.staged else " yet")
    )


def budgets(asked: Asked) -> Gate:
    """Each pod on a node that will be drained can be evicted."""
    all_budgets = [budget_of(item) for item in asked.api.budgets]
    there = {node["metadata"]["name"]: node for node in asked.api.nodes}
    names = [machine.name for machine in asked.machines if asked.drained is None or machine.name in asked.drained]
    held: dict[str, list[str]] = {}
    problems: list[str] = []
    pods = 0
    for name in names:
        node = there.get(name)
        for pod in asked.api.pods:
            if node is None or pod["spec"].get("nodeName") != name:
                continue
            try:
                steps = node_plan(name, node, [pod], all_budgets).leaving
            except Unevictable as error:
                problems.append(f"{name} cannot be drained: {error}")
                continue
            pods += len(steps)
            for step in steps:
                for key in step.budgets:
                    if not next(budget.allowed for budget in all_budgets if budget.key == key):
                        held.setdefault(key, []).append(f"{step.key} on {name}")
    statuses = {f"{item['metadata']['namespace']}/{item['metadata']['name']}": item for item in asked.api.budgets}
    problems += [
        f"PodDisruptionBudget {key}: allows no eviction now ({_standing(statuses[key])}), and these have to leave "
        f"their nodes: {some(held[key])}; give it more replicas, or let the budget allow one to be away"
        for key in sorted(held)
    ]
    return Gate("budgets", tuple(problems), f"{pods} pods on {len(names)} nodes can be evicted")


def _standing(item: Object) -> str:
    status = item.get("status") or {}
    return f"{status.get('currentHealthy', 0)} healthy, {status.get('desiredHealthy', 0)} needed"
