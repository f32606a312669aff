# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries a plan out, waits until the component is healthy, and rolls back if it does not become healthy."""

# Paths are text here, as in the options and in results.
# ruff: noqa: PTH101, PTH102, PTH118, PTH119, PTH120

from __future__ import annotations

import contextlib
import os
import shlex
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace

from ansible_collections.k8sgu.cluster.plugins.module_utils._component import accounts, health, origin, systemd, undo
from ansible_collections.k8sgu.cluster.plugins.module_utils._component import record as records
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import (
    ON_DEMAND,
    Component,
    ComponentError,
    File,
    Health,
    error_text,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.node import Current
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.plan import Action, Plan
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.undo import Undo
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import (
    FileError,
    atomic_write,
    ensure_directory,
    remove_file,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._files.present import present

# How long a unit without a health check must stay active after its start.
_SETTLE_S = 1.0
# A program may fail a few times until its dependencies are up; after this many restarts it will not recover by itself.
_CRASH_LOOP = 10
# systemd's default timeout for a stop, which is the first part of a restart.
_STOP_S = 95
_ROLLBACK_HEALTH_S = 30


class Unhealthy(ComponentError):
    """The component did not become healthy; `journal` has the last lines of its units."""

    def __init__(self, message: str, journal: list[str]) -> None:
        super().__init__(message)
        self.journal = journal


class Failed(ComponentError):
    """Components failed; `rolled_back` names the component that was rolled back, if that succeeded."""

    def __init__(self, message: str, journal: list[str], rolled_back: str | None) -> None:
        super().__init__(message)
        self.journal, self.rolled_back = journal, rolled_back


class Application:
    """The execution of one component's plan; `healthy_after` is in seconds, and None if nothing was checked."""

    def __init__(self, component: Component, current: Current, plan: Plan) -> None:
        self.component, self.current, self.plan = component, current, plan
        self.healthy_after: float | None = None
        self.touched: set[str] = set()
        self.undo = Undo()
        self.guarded = False

    def begin(self) -> None:
        """Everything up to the start of the units. Raises Failed."""
        with self._put_back_on_failure():
            self._refuse_squatter()
            # Packages and accounts are not rolled back: additional ones do no harm.
            if self.plan.packages:
                origin.install(self.plan.packages)
            for command in self.plan.user_commands:
                systemd.run(command)
            if self.plan.changed or self.current.interrupted is not None:
                self.undo = self._way_back()
                undo.write(self.component.name, self.undo)
                self.guarded = True
            self._change()

    def finish(self) -> None:
        """Waits until the component is healthy and records what it was started with. Raises Failed."""
        with self._put_back_on_failure():
            self._wait(self.component, self._timeout())
        self._remember()

    @contextlib.contextmanager
    def _put_back_on_failure(self) -> Iterator[None]:
        name = self.component.name
        try:
            yield
        except (ComponentError, FileError, OSError) as error:
            journal = error.journal if isinstance(error, Unhealthy) else []
            undoable = self.guarded and (self.plan.reversible or self.current.interrupted is not None)
            if not undoable or not self.component.rollback:
                raise Failed(f"component {name}: {error_text(error)}", journal, None) from error
            outcome = self._roll_back()
            raise Failed(f"component {name}: {error_text(error)}. {outcome}", journal, name) from error

    def _refuse_squatter(self) -> None:
        """Raises ComponentError if something else answers the health check before the unit is started."""
        check = self.component.health
        if not check or not (check.url or check.tcp):
            return
        # An answer under our CA that accepts our certificate is ours, such as an API server that answers for a kubelet.
        if check.ca and check.cert:
            return
        starting = [action.unit for action in self.plan.actions if action.verb == "start"]
        if starting and not any(state.running for state in self.current.units.values()) and not health.probe(check):
            raise ComponentError(
                f"{check.url or check.tcp} answers already, although {', '.join(starting)} is not running: another "
                "program uses its address; stop that program or choose another address"
            )

    def _way_back(self) -> Undo:
        """The state to roll back to. An interrupted run's is used first: it was the last state that worked."""
        states = self.current.units
        paths = [*(link.dest for link in self.plan.links), *(file.dest for file in self.plan.files)]
        fresh = Undo(
            {path: self.current.paths[path] for path in paths},
            {
                name: {"running": state.running, "enabled": state.enabled.startswith("enabled")}
                for name, state in states.items()
            },
        )
        earlier = self.current.interrupted or Undo()
        return Undo({**fresh.paths, **earlier.paths}, {**fresh.units, **earlier.units})

    def _change(self) -> None:
        plan = self.plan
        for action in plan.actions:
            if action.verb == "stop":
                self._act(action)
        if plan.disable:
            systemd.systemctl("--no-reload", "--quiet", "disable", *plan.disable)
        for directory in plan.directories:
            ensure_directory(os.path.dirname(directory.path), mode=0o755)
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory.path, 0o700)
            os.chown(directory.path, _uid(directory.owner), _gid(directory.group))
            os.chmod(directory.path, directory.mode)
        for link in plan.links:
            undo.replace_link(link.dest, link.target)
        for file in plan.files:
            self._write(file)
        if plan.enable:
            systemd.systemctl("--no-reload", "--quiet", "reenable", *plan.enable)
        if plan.daemon_reload or plan.enable or plan.disable:
            systemd.systemctl("daemon-reload")
        for command in plan.on_change:
            systemd.run(command)
        for action in plan.actions:
            if action.verb != "stop":
                self._act(action)

    def _write(self, file: File) -> None:
        if file.content is None:
            remove_file(file.dest)
            return
        ensure_directory(os.path.dirname(file.dest), mode=0o755)
        if file.validate:
            _validate(file)
        atomic_write(file.dest, file.content, file.mode, _uid(file.owner), _gid(file.group))

    def _act(self, action: Action) -> None:
        self.touched.add(action.unit)
        state = self.current.units.get(action.unit)
        if state is not None and state.active == "failed" and action.verb != "stop":
            # Otherwise systemd may refuse for a while to start a unit that failed often.
            systemd.systemctl("reset-failed", action.unit)
        # A package may have started its unit already, with its default settings.
        verb = "restart" if action.verb == "start" and self.plan.packages else action.verb
        command = ["systemctl", "--no-pager", verb, action.unit]
        try:
            systemd.run(command, timeout=_STOP_S + self._timeout())
        except ComponentError:
            state = systemd.show([action.unit])[action.unit]
            # A unit that fails at first may recover by its own Restart=; the health check decides.
            if action.verb in ("stop", "reload") or state.load != "loaded":
                raise
            if state.result == "start-limit-hit":
                # Interrupted runs started it often within seconds. That does not mean that it fails now.
                systemd.systemctl("reset-failed", action.unit)
                with contextlib.suppress(ComponentError):
                    systemd.run(command, timeout=_STOP_S + self._timeout())

    def _timeout(self) -> int:
        return self.component.health.timeout if self.component.health else 60

    def _wait(self, component: Component, timeout: float) -> None:
        wanted = [unit.name for unit in component.units if unit.state == "started"]
        if component.units and not wanted:
            return
        begun = time.monotonic()
        check = component.health
        if check:
            before = {name: state.restarts for name, state in systemd.show(wanted).items()}
            answer = health.wait(
                lambda limit: _healthy(component, wanted, limit), timeout, lambda: _given_up(wanted, before)
            )
            waited_for = check.describe()
        elif set(wanted) & self.touched:
            answer = _settled(wanted)
            waited_for = f"{', '.join(wanted)} to stay active"
        else:
            return
        seconds = time.monotonic() - begun
        if answer is not None:
            states = "; ".join(f"{name} is {state.describe()}" for name, state in systemd.show(wanted).items())
            message = f"not healthy after {seconds:.0f} s: waited for {waited_for}, last seen: {answer}"
            raise Unhealthy(message + (f"; {states}" if states else ""), systemd.journal(wanted) if wanted else [])
        self.healthy_after = round(seconds, 3)

    def _remember(self) -> None:
        component, record = self.component, self.current.record
        before = records.read(component.name)
        started = [unit for unit in component.units if unit.state in ("started", ON_DEMAND)]
        record.started_with = {unit.name: records.restart_items(component, unit) for unit in started}
        record.reloaded_with = records.reload_items(component)
        record.commands_for = records.command_items(component)
        record.health = asdict(component.health) if component.health else None
        if record != before:
            records.write(component.name, record)
        undo.forget(component.name)

    def _roll_back(self) -> str:
        """Restores the former state; returns a sentence that says how that went."""
        name = self.component.name
        try:
            new = [unit for unit, was in self.undo.units.items() if unit in self.touched and not was["running"]]
            self._stop(new)
            for path, state in self.undo.paths.items():
                undo.restore(path, state)
            self._restore_enablement()
            systemd.systemctl("daemon-reload")
            if self.plan.on_change:
                for command in self.plan.on_change:
                    systemd.run(command)
            outcome = self._restart_old()
        except (ComponentError, FileError, OSError) as error:
            return f"Restoring its files, links and units failed ({error}); correct that and run it again"
        undo.forget(name)
        return f"Its files, links and units were restored{outcome}"

    def _stop(self, names: list[str]) -> None:
        for name in reversed(names):
            with contextlib.suppress(ComponentError):
                systemd.systemctl("stop", name)
            with contextlib.suppress(ComponentError):
                systemd.systemctl("reset-failed", name)

    def _restore_enablement(self) -> None:
        for verb, changed, was in (
            ("disable", self.plan.enable, False),
            ("reenable", [*self.plan.disable, *self.plan.enable], True),
        ):
            names = [name for name in changed if name in self.undo.units and self.undo.units[name]["enabled"] is was]
            for name in names:
                # The unit's file may be gone again, so that there is nothing to disable.
                with contextlib.suppress(ComponentError):
                    systemd.systemctl("--no-reload", "--quiet", verb, name)

    def _restart_old(self) -> str:
        interrupted = self.current.interrupted is not None
        old = [
            name for name, was in self.undo.units.items() if was["running"] and (interrupted or name in self.touched)
        ]
        if not old:
            return ""
        for name in old:
            with contextlib.suppress(ComponentError):
                systemd.systemctl("reset-failed", name)
            with contextlib.suppress(ComponentError):
                systemd.run(["systemctl", "--no-pager", "restart", name], timeout=_STOP_S + _ROLLBACK_HEALTH_S)
        try:
            known = records.read(self.component.name).health
            before = replace(self.component, health=Health(**known) if known else None)
            self._wait(before, min(self._timeout(), _ROLLBACK_HEALTH_S))
        except Unhealthy as error:
            record = records.read(self.component.name)
            record.started_with = {}  # it is not known whether what runs now works
            records.write(self.component.name, record)
            return f", but {', '.join(old)} did not become healthy again either: {error}"
        return f", and {', '.join(old)} runs as before"


def _healthy(component: Component, wanted: list[str], limit: float) -> str | None:
    check = present(component.health, "the caller has checked")
    answer = health.probe(check, limit) or health.presented(check, limit)
    if answer is not None:
        return answer
    for name, state in systemd.show(wanted).items():
        if not state.up:
            return f"the check succeeds, but {name} is {state.describe()}; does another program answer at its address?"
    return None


def _given_up(wanted: list[str], before: dict[str, int]) -> bool:
    """Whether systemd has given up a unit or restarts it repeatedly, so that waiting longer is useless."""
    return any(
        state.active == "failed" or state.restarts - before.get(name, 0) >= _CRASH_LOOP
        for name, state in systemd.show(wanted).items()
    )


def _settled(wanted: list[str]) -> str | None:
    first = systemd.show(wanted)
    if all(state.active == "active" and state.sub == "exited" for state in first.values()):
        return None  # finished oneshot units: no process is left that could still fail
    time.sleep(_SETTLE_S)
    for name, state in systemd.show(wanted).items():
        finished = state.active == "inactive" and state.result == "success"
        if not (state.active == "active" or finished) or state.restarts != first[name].restarts:
            return f"{name} {state.describe()}"
    return None


def _validate(file: File) -> None:
    """Raises ComponentError if the file's `validate` command does not accept the content."""
    content = present(file.content, "the caller has checked")
    validate = present(file.validate, "the caller has checked")
    # In a directory that only root can enter, with the file's own name, because some programs depend on the name.
    with tempfile.TemporaryDirectory(prefix="k8sgu-") as directory:
        path = os.path.join(directory, os.path.basename(file.dest))
        atomic_write(path, content, 0o600)
        command = [word.replace("%s", path) for word in shlex.split(validate)]
        try:
            systemd.run(command)
        except ComponentError as error:
            shown = "its output is withheld, since the file is secret" if file.secret else str(error)
            raise ComponentError(
                f"files: {file.dest} is not accepted by {shlex.split(validate)[0]}: {shown}"
            ) from error


def _uid(name: str) -> int:
    number = accounts.user_id(name)
    if number is None:
        raise ComponentError(f"the user {name} does not exist on the node; name it in user, or correct the owner")
    return number


def _gid(name: str) -> int:
    number = accounts.group_id(name)
    if number is None:
        raise ComponentError(f"the group {name} does not exist on the node; name it in user, or correct the group")
    return number
