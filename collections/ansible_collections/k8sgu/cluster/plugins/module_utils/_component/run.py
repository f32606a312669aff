# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One execution on a node: all components of a job, in order."""

# Paths are text here, as in the options and in results.
# ruff: noqa: PTH110

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from ansible_collections.k8sgu.cluster.plugins.module_utils._component import fetch, node, origin
from ansible_collections.k8sgu.cluster.plugins.module_utils._component import record as records
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.apply import Application, Failed
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import (
    Artifact,
    Component,
    ComponentError,
    Job,
    decode,
    error_text,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.plan import Impossible, Plan, fetching, plan
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import FileError

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call


def run(call: Call) -> dict[str, Any]:
    """The module's result. Raises ComponentError."""
    if not call.options["prepared"]:
        raise ComponentError("component: runs through its action plugin only; call it as k8sgu.cluster.component")
    if os.geteuid() != 0:
        raise ComponentError("component: needs root on the node; set become: true")
    return execute(call.options["prepared"], call.check_mode, call.diff)


def execute(prepared: str, check_mode: bool, diff: bool) -> dict[str, Any]:
    """The module's result for a job that the controller has prepared."""
    job = _Run(decode(prepared), check_mode)
    failure: dict[str, Any] = {}
    try:
        job.run()
    except Failed as error:
        failure = {"msg": str(error), "journal": error.journal}
        if error.rolled_back:
            failure["rolled_back"] = error.rolled_back
    except (ComponentError, FileError, OSError) as error:
        failure = {"msg": error_text(error)}
    outcome: dict[str, Any] = {"changed": any(result["changed"] for result in job.results), "components": job.results}
    if diff:
        outcome["diff"] = job.diff
    if job.missing:
        outcome["missing"] = [{"url_path": artifact.url_path, "sha256": artifact.sha256} for artifact in job.missing]
    if failure:
        outcome.update(failure, failed=True)
    return outcome


class _Run:
    def __init__(self, job: Job, check_mode: bool) -> None:
        self.job, self.check_mode = job, check_mode
        self.results: list[dict[str, Any]] = []
        self.diff: list[dict[str, str]] = []
        self.missing: list[Artifact] = []

    def run(self) -> None:
        if self.check_mode:
            self._run()
            return
        with records.locked(self.job.lock_timeout):
            try:
                self._run()
            finally:
                if self.job.staged and not self.missing:
                    shutil.rmtree(self.job.staged, ignore_errors=True)

    def _run(self) -> None:
        components = self.job.components
        states = node.unit_states(components)
        currents = []
        for component in components:
            record = node.read_record(component)
            binaries = node.examine_binaries(component.artifacts, record)
            currents.append(node.examine(component, binaries, record, states))
        # Plan everything before changing anything, so that a fault of the last component stops the first one too.
        plans, faults = self._plan_all(currents)
        if self.check_mode:
            for component, changes in zip(components, plans):
                result = self._report(component, changes, 0.0)
                result.update(owned(component), faults=faults.get(component.name, []))
        if faults:
            raise ComponentError("\n".join(f"component {name}: {'; '.join(told)}" for name, told in faults.items()))
        if self.check_mode:
            return
        self.missing = self._to_be_pushed(plans)
        if self.missing:
            fetch.check_room_to_push(self.missing)
            return
        origin.remember(components, states)
        self._fetch(components, currents, plans)
        if self.job.only_fetch:
            for component, changes in zip(components, plans):
                self._report(component, changes, 0.0)
            return
        disturbed = False
        begun: list[_Begun] = []
        try:
            for component, current, changes in zip(components, currents, plans):
                if disturbed:
                    # An earlier component was changed, which may have changed the state that this plan was made for.
                    current = node.examine(component, current.binaries, current.record, node.unit_states([component]))
                    changes = plan(component, current)
                application = Application(component, current, changes)
                result = self._report(component, changes, 0.0)
                since = time.monotonic()
                try:
                    application.begin()
                finally:
                    result["seconds"] = round(time.monotonic() - since, 3)
                begun.append(_Begun(application, result, since))
                disturbed = disturbed or changes.changed
                if not component.overlap:
                    _finish(begun)
        except Failed as error:
            # Finish the components that were started before it: each becomes healthy or is rolled back.
            _finish(begun, error)
            raise
        _finish(begun)

    def _plan_all(self, currents: list[node.Current]) -> tuple[list[Plan], dict[str, list[str]]]:
        """The plans, and by component what makes them impossible."""
        if self.job.only_fetch:
            return [fetching(*pair) for pair in zip(self.job.components, currents)], {}
        plans: list[Plan] = []
        faults: dict[str, list[str]] = {}
        coming: frozenset[str] = frozenset()
        for component, current in zip(self.job.components, currents):
            if component.user:
                coming |= {component.user.name, component.user.group}
            try:
                plans.append(plan(component, current, coming))
            except Impossible as error:
                plans.append(error.rest)
                faults[component.name] = error.faults
        return plans, faults

    def _to_be_pushed(self, plans: list[Plan]) -> list[Artifact]:
        """The programs that are neither at a mirror's address, nor at their publisher's, nor pushed already."""
        if self.job.mirror_url:
            return []
        staged = self.job.staged
        wanted = [artifact for changes in plans for artifact in changes.fetch if not artifact.origin]
        return [a for a in wanted if not staged or not os.path.exists(fetch.staged_path(a, staged))]

    def _fetch(self, components: list[Component], currents: list[node.Current], plans: list[Plan]) -> None:
        for component, current, changes in zip(components, currents, plans):
            if node.forget_started_with(changes.fetch, current.record):
                records.write(component.name, current.record)
        wanted = [artifact for changes in plans for artifact in changes.fetch]
        job = self.job
        fetch.install(wanted, job.mirror_url, job.mirror_proxy, job.staged, job.publishers_proxy, job.mirror_ca)
        for current, changes in zip(currents, plans):
            node.remember_binaries(changes.fetch, current.record)

    def _report(self, component: Component, changes: Plan, seconds: float) -> dict[str, Any]:
        result = {"name": component.name, "changed": changes.changed, "reasons": changes.reasons, "seconds": seconds}
        self.results.append(result)
        if changes.reasons:
            lines = "".join(f"{component.name}: {reason}\n" for reason in changes.reasons)
            self.diff += [{"prepared": lines}, *changes.diff]
        return result


def owned(component: Component) -> dict[str, list[str]]:
    """Every path and unit that the component knows, those included that are to be absent."""
    paths = [file.dest for file in component.files] + [link.dest for link in component.links]
    paths += [directory.path for directory in component.directories]
    paths += [artifact.path for artifact in component.artifacts] + [unit.path for unit in component.units]
    return {"paths": sorted(set(paths)), "units": [unit.name for unit in component.units]}


class _Begun(NamedTuple):
    """A component whose units were started; `since`: the start, by the monotonic clock."""

    application: Application
    result: dict[str, Any]
    since: float


def _finish(begun: list[_Begun], earlier: Failed | None = None) -> None:
    """Waits for all of them and empties the list. Raises Failed with all failures, `earlier` first."""
    failures = []
    while begun:
        application, result, since = begun.pop(0)
        try:
            application.finish()
        except Failed as error:
            failures.append(error)
        result["seconds"] = round(time.monotonic() - since, 3)
        if application.healthy_after is not None:
            result["healthy_after"] = application.healthy_after
    if not failures:
        return
    told = [earlier, *failures] if earlier else failures
    if len(told) == 1:
        raise told[0]
    rolled_back = ", ".join(error.rolled_back for error in told if error.rolled_back)
    journal = [line for error in told for line in error.journal]
    raise Failed("\n".join(map(str, told)), journal, rolled_back or None)
