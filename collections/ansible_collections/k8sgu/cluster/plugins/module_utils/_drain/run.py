# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of node_drain."""

from __future__ import annotations

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterable, Iterator, Mapping, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._drain import plan as plans
from ansible_collections.k8sgu.cluster.plugins.module_utils._drain.options import ARGUMENT_SPEC, RULES
from ansible_collections.k8sgu.cluster.plugins.module_utils._drain.work import SETTLE_S, Nodes, NotDrained
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import FileError, atomic_write
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.client import Client
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.kubeconfig import load
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module


class DrainError(KubernetesError):
    """An error with the part of the result that is known."""

    def __init__(self, message: str, result: dict[str, Any]) -> None:
        super().__init__(message)
        self.result = result


@dataclass
class Outcome:
    """The module's result and its warnings."""

    result: dict[str, Any]
    warnings: list[str] = field(default_factory=list)


class Record:
    """The names of nodes that we cordoned, in a file, so that the next run finds those of a killed one."""

    def __init__(self, path: str, check_mode: bool) -> None:
        self.path, self.check_mode = Path(path), check_mode

    def names(self) -> list[str]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
            return [str(name) for name in content["nodes"]]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise KubernetesError(
                f"record: {self.path} cannot be read ({error}); remove it, and `kubectl uncordon` the nodes with the "
                f"annotation {plans.MARK}"
            ) from error

    def add(self, names: Iterable[str]) -> None:
        self._write({*self.names(), *names})

    def drop(self, names: Iterable[str]) -> None:
        self._write(set(self.names()).difference(names))

    def _write(self, names: set[str]) -> None:
        if self.check_mode:
            return
        try:
            if names:
                content = json.dumps({"nodes": sorted(names)}) + "\n"
                atomic_write(str(self.path), content.encode(), mode=0o600, directory_mode=0o700)
            else:
                self.path.unlink(missing_ok=True)
        except (FileError, OSError) as error:
            raise KubernetesError(f"record: {error}") from error


def run(call: Call) -> dict[str, Any]:
    """Brings the nodes to the state. Raises KubernetesError, or DrainError if part of the result is known."""
    options, check_mode = call.options, call.check_mode
    for name, shown, least in (
        ("timeout", "timeout (k8sgu_drain_timeout)", 0),
        ("request_timeout", "request_timeout", 1),
    ):
        if options[name] < least:
            raise KubernetesError(f"{shown}: {options[name]} seconds are too few; give at least {least}")
    if options["batch"] < 1:
        raise KubernetesError(
            f"batch (k8sgu_ec2_options.drain_batch): {options['batch']} nodes at a time are none; give at least 1"
        )
    record = Record(options["record"], check_mode)
    work = {"drained": _drained, "serving": _serving, "absent": _absent, "matching": _matching}[options["state"]]
    outcome = work(options, check_mode, record)
    call.warnings += outcome.warnings
    return outcome.result


@contextlib.contextmanager
def _api(options: Mapping[str, Any]) -> Iterator[Nodes]:
    with contextlib.closing(Client(load(options["kubeconfig"], None), options["request_timeout"])) as client:
        yield Nodes(client)


def _drained(options: Mapping[str, Any], check_mode: bool, record: Record) -> Outcome:
    names = list(dict.fromkeys(options["nodes"]))
    if not options["timeout"]:
        return _undrained(names, "timeout (k8sgu_drain_timeout) is 0")
    if not Path(options["kubeconfig"]).exists():
        return _undrained(names, f"there is no {options['kubeconfig']}, so no cluster was made from here")
    with _api(options) as nodes:
        try:
            there = nodes.settled(names, 0 if check_mode else SETTLE_S)
            made = nodes.plan(names, there)
        except NotDrained:
            raise
        except KubernetesError as error:
            if not options["lives"]:
                return _undrained(names, f"no cluster has come up here yet ({error})")
            raise KubernetesError(
                f"{error}\n{', '.join(names)} cannot be drained before the API server answers, and nothing was "
                "changed. Repair it while they are still in the description; or, if the cluster is gone, set "
                "k8sgu_drain_timeout: 0"
            ) from error
        choice = plans.choose(made, options["returning"], options["members"], there)
        going = [plan for plan in made if plan.name in choice.now]
        outcome = _planned(going, choice, [node for node in there if node["metadata"]["name"] not in choice.now])
        if not check_mode:
            _carry_out(nodes, going, options, record, outcome.result)
    return outcome


def _undrained(names: list[str], why: str) -> Outcome:
    result = {"changed": False, "plan": [], "drained": names, "held": {}, "evicted": []}
    return Outcome(result, [f"{', '.join(names)} not drained: {why}"] if names else [])


def _planned(going: Sequence[plans.NodePlan], choice: plans.Choice, staying: Sequence[Mapping[str, Any]]) -> Outcome:
    lines = [line for plan in going for line in plan.lines()]
    lines += [f"leave node/{name}  # for now: {why}" for name, why in choice.held.items()]
    result = {
        "changed": any(plan.changes for plan in going),
        "plan": lines,
        "diff": _diff(lines),
        "drained": list(choice.now),
        "held": dict(choice.held),
        "evicted": [],
    }
    told = plans.warnings(going, staying)
    told += [f"{name} is not changed in this run, since {why}; run it again" for name, why in choice.held.items()]
    return Outcome(result, told)


def _diff(lines: Sequence[str]) -> dict[str, str]:
    after = "".join(f"{line}\n" for line in lines)
    return {"before_header": "nodes", "after_header": "plan", "before": "", "after": after}


def _carry_out(
    nodes: Nodes, going: Sequence[plans.NodePlan], options: Mapping[str, Any], record: Record, result: dict[str, Any]
) -> None:
    there = [plan for plan in going if plan.state != plans.ABSENT]
    if not there:
        return
    # Record them before the first is cordoned, for the case that this run is killed.
    record.add(plan.name for plan in there)
    try:
        # Cordon all of them first, so that no pod moves from one that leaves to another.
        for plan in there:
            if plan.cordon:
                nodes.cordon(plan, options["reason"])
        serving = [plan for plan in there if plan.state == plans.SERVING]
        for start in range(0, len(serving), options["batch"]):
            _drain_together(nodes, serving[start : start + options["batch"]], options["timeout"], result["evicted"])
    except KubernetesError as error:
        told = _give_back(nodes, [plan.name for plan in there], record)
        failed = {**result, "drained": [], "changed": bool(result["evicted"])}
        raise DrainError(f"{error}\n{told}", failed) from error


def _drain_together(nodes: Nodes, batch: Sequence[plans.NodePlan], timeout: int, evicted: list[str]) -> None:
    """Drains a batch side by side. The eviction API keeps the budgets, whoever asks; every error is told."""
    with ThreadPoolExecutor(max_workers=len(batch)) as pool:
        running = [pool.submit(nodes.drain, plan, timeout, evicted) for plan in batch]
    faults = [error for error in (future.exception() for future in running) if error is not None]
    for error in faults:
        if not isinstance(error, KubernetesError):
            raise error
    if faults:
        raise NotDrained("\n".join(str(error) for error in faults))


def _give_back(nodes: Nodes, names: Sequence[str], record: Record) -> str:
    """Uncordons what we cordoned; returns a sentence that says how that went."""
    try:
        for name in names:
            nodes.uncordon(name)
        record.drop(names)
    except KubernetesError as error:
        return (
            f"{', '.join(names)}: could not be uncordoned ({error}). A run of site.yml does it, as does "
            "`kubectl uncordon`"
        )
    return f"These nodes accept pods again: {', '.join(names)}"


def _serving(options: Mapping[str, Any], check_mode: bool, record: Record) -> Outcome:
    names = record.names() if options["nodes"] is None else list(options["nodes"])
    opened = []
    if names:
        with _api(options) as nodes:
            if check_mode:
                opened = [node["metadata"]["name"] for node in nodes.all() if plans.mark_of(node) is not None]
                opened = [name for name in names if name in opened]
            else:
                opened = [name for name in names if nodes.uncordon(name)]
    record.drop(names)
    return _done("uncordon", opened)


def _absent(options: Mapping[str, Any], check_mode: bool, record: Record) -> Outcome:
    names = list(options["nodes"])
    gone: list[str] = []
    warnings = []
    # Nodes that were removed without the API server have no mark, and there may be no server to ask.
    if set(names) & set(record.names()):
        try:
            with _api(options) as nodes:
                if not check_mode:
                    gone = [name for name in names if nodes.remove(name)]
        except KubernetesError as error:
            warnings.append(f"Nodes of {', '.join(names)} are left to the phase worker, which removes them: {error}")
            return Outcome(_done("delete", gone).result, warnings)
    record.drop(names)
    return _done("delete", gone)


def _matching(options: Mapping[str, Any], check_mode: bool, record: Record) -> Outcome:
    instances = {str(name): str(id) for name, id in options["instances"].items()}
    if not Path(options["kubeconfig"]).exists():
        return Outcome({"changed": False, "plan": [], "nodes": []})
    with _api(options) as nodes:
        there = nodes.all()
        gone = plans.gone(there, instances, options["complete"])
        staying = {node["metadata"]["name"] for node in there} - {node.name for node in gone}
        attachments = plans.detached(nodes.attachments(), staying, instances, options["complete"])
        if not check_mode:
            for node in gone:
                nodes.delete(node.name, node.uid)
            for name, _node in attachments:
                nodes.detach(name)
    # Their record would have the next step look for Nodes that are new.
    record.drop(node.name for node in gone)
    lines = [node.line() for node in gone]
    lines += [f"delete volumeattachment/{name}  # its node {node} is gone" for name, node in attachments]
    return Outcome({"changed": bool(lines), "plan": lines, "nodes": sorted(staying), "diff": _diff(lines)})


def _done(action: str, names: Sequence[str]) -> Outcome:
    lines = [f"{action} node/{name}" for name in names]
    return Outcome({"changed": bool(lines), "plan": lines})


MODULE = Module(ARGUMENT_SPEC, run, (KubernetesError,), RULES)
