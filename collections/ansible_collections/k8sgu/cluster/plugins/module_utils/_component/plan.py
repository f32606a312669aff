# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compares desired and current state; gives the changes with their reasons. Pure: reads and writes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

from ansible_collections.k8sgu.cluster.plugins.module_utils._component import accounts
from ansible_collections.k8sgu.cluster.plugins.module_utils._component import record as records
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import (
    ON_DEMAND,
    RELOAD,
    RESTART,
    UNIT_DIRECTORY,
    UNIT_MODE,
    Artifact,
    Component,
    ComponentError,
    Directory,
    File,
    Link,
    Unit,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.node import Current
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.systemd import UnitState
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.undo import (
    ABSENT,
    DIRECTORY_KIND,
    FILE,
    LINK,
    PathState,
)

_LARGEST_DIFF = 256 * 1024
_UNIT_PLACES = (UNIT_DIRECTORY + "/", "/run/systemd/system/", "/usr/lib/systemd/system/", "/lib/systemd/system/")
_CUT_OFF = "an earlier run was interrupted before it was done"
_MAY_BE_ENABLED = ("disabled", "")
_ENABLED = ("enabled", "enabled-runtime")


@dataclass(frozen=True)
class Action:
    """A verb of systemctl (start, restart, reload, stop) for a unit."""

    unit: str
    verb: str


@dataclass
class Plan:
    """The changes in the order of their execution, with a reason for each."""

    fetch: list[Artifact] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)
    user_commands: list[list[str]] = field(default_factory=list)
    directories: list[Directory] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    files: list[File] = field(default_factory=list)
    daemon_reload: bool = False
    on_change: list[list[str]] = field(default_factory=list)
    enable: list[str] = field(default_factory=list)
    disable: list[str] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    diff: list[dict[str, str]] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        return bool(self.reasons)

    @property
    def reversible(self) -> bool:
        """Whether there is anything that a rollback could restore."""
        return bool(self.links or self.files or self.enable or self.disable)


def unit_file(unit: Unit) -> File:
    """The unit's own file; its changes concern only that unit."""
    return File(unit.path, unit.content if unit.state != "absent" else None, mode=UNIT_MODE)


def plan(component: Component, current: Current, coming: frozenset[str] = frozenset()) -> Plan:
    """The plan for a component. `coming` are accounts that earlier components are about to make.

    Raises Impossible with everything that makes the plan impossible.
    """
    return _Planner(component, current, coming).plan()


def fetching(component: Component, current: Current) -> Plan:
    """What of the component's programs is missing; a plan that disturbs nothing that runs."""
    planner = _Planner(component, current, frozenset())
    planner.programs()
    return planner.result


class Impossible(ComponentError):
    """What makes a plan impossible; `rest` is what could be planned without it."""

    def __init__(self, faults: list[str], rest: Plan) -> None:
        super().__init__("; ".join(faults))
        self.faults, self.rest = faults, rest


class _Planner:
    def __init__(self, component: Component, current: Current, coming: frozenset[str]) -> None:
        self.component, self.current, self.coming = component, current, coming
        self.result = Plan()
        self.faults: list[str] = []
        # Paths whose content changes now, by the effect of the change on the units.
        self.changed: dict[str, list[str]] = {RESTART: [], RELOAD: []}
        self.changed_units: dict[str, list[str]] = {}

    def plan(self) -> Plan:
        self.programs()
        self._accounts()
        for directory in self.component.directories:
            self._directory(directory)
        for link in self.component.links:
            self._link(link)
        for file in self.component.files:
            if self._file(file) and file.effect in self.changed:
                self.changed[file.effect].append(file.dest)
        for unit in self.component.units:
            if (unit.content is not None or unit.state == "absent") and self._file(unit_file(unit)):
                self.changed_units[unit.name] = [unit.path]
        self._systemd()
        if self.faults:
            raise Impossible(self.faults, self.result)
        return self.result

    def _because(self, text: str) -> None:
        self.result.reasons.append(text)

    def programs(self) -> None:
        for artifact in self.component.artifacts:
            seen = self.current.binaries.get(artifact.path, "")
            if seen == artifact.sha256:
                continue
            self.result.fetch.append(artifact)
            why = {"": "missing", "permissions": "not owned by root with mode 0755"}.get(
                seen, "content differs from the mirror's"
            )
            self._because(f"program {artifact.path}: {why}")
            if artifact.effect == RESTART:
                self.changed[RESTART].append(artifact.path)

    def _accounts(self) -> None:
        for name in self.component.packages:
            if not self.current.packages.get(name, "").endswith(" ok installed"):
                self.result.packages.append(name)
                self._because(f"package {name}: not installed")
        user = self.component.user
        if user:
            self.result.user_commands = accounts.user_commands(user, self.current.account, self.current.groups)
            for command in self.result.user_commands:
                self._because("account: " + " ".join(command))

    def _known_account(self, path: str, kind: str, name: str, number: int | None) -> None:
        user = self.component.user
        made = {user.name, user.group} if user else set()
        # A package may create the account; that is only known once it is installed.
        if number is None and name not in made and name not in self.coming and not self.result.packages:
            self.faults.append(f"{path}: its {kind} {name} does not exist on the node; name it in user, or correct it")

    def _access_differs(self, path: str, wanted: File | Directory, now: PathState) -> str:
        uid, gid = self.current.uids.get(wanted.owner), self.current.gids.get(wanted.group)
        self._known_account(path, "owner", wanted.owner, uid)
        self._known_account(path, "group", wanted.group, gid)
        if now.kind == ABSENT:
            return ""
        differing = []
        if now.uid != uid:
            differing.append(f"owner {now.uid} instead of {wanted.owner}")
        if now.gid != gid:
            differing.append(f"group {now.gid} instead of {wanted.group}")
        if now.mode != wanted.mode:
            differing.append(f"mode {now.mode:04o} instead of {wanted.mode:04o}")
        return ", ".join(differing)

    def _directory(self, directory: Directory) -> None:
        now = self.current.paths[directory.path]
        if now.kind not in (ABSENT, DIRECTORY_KIND):
            self.faults.append(f"{directory.path}: is a {now.kind}, not a directory; remove it")
            return
        differs = self._access_differs(directory.path, directory, now)
        if now.kind == ABSENT or differs:
            self.result.directories.append(directory)
            self._because(f"directory {directory.path}: {differs or 'missing'}")

    def _link(self, link: Link) -> None:
        now = self.current.paths[link.dest]
        if now.kind not in (ABSENT, LINK):
            self.faults.append(f"{link.dest}: is a {now.kind} where a link should be; remove it")
            return
        if (now.target if now.kind == LINK else None) == link.target:
            return
        self.result.links.append(link)
        why = "missing" if now.kind == ABSENT else f"points to {now.target} instead of {link.target}"
        self._because(f"link {link.dest}: {why}")
        if link.effect == RESTART:
            self.changed[RESTART].append(link.dest)

    def _file(self, file: File) -> bool:
        """Plans the file; returns whether its content changes."""
        now = self.current.paths[file.dest]
        if now.kind == LINK and now.target == "/dev/null" and file.dest.startswith(_UNIT_PLACES):
            self.faults.append(f"{file.dest}: is masked; run systemctl unmask {file.dest.rsplit('/', 1)[1]}")
            return False
        if now.kind not in (ABSENT, FILE) and not (now.kind == LINK and file.content is None):
            self.faults.append(f"{file.dest}: is a {now.kind} where a file should be; remove it")
            return False
        if file.content is None:
            if now.kind != ABSENT:
                self.result.files.append(file)
                self._because(f"file {file.dest}: to be absent")
                self._show(file, now)
            return now.kind != ABSENT
        differs = (
            self._access_differs(file.dest, file, now)
            if file.dest not in self._unit_paths()
            else self._unit_access(now)
        )
        other_content = now.kind == ABSENT or now.content != file.content
        if not other_content and not differs:
            return False
        self.result.files.append(file)
        why = [differs] if differs else []
        if other_content:
            why.insert(0, "missing" if now.kind == ABSENT else "content differs")
            self._show(file, now)
        self._because(f"file {file.dest}: {', '.join(why)}")
        return other_content

    def _unit_paths(self) -> list[str]:
        return [unit.path for unit in self.component.units]

    def _unit_access(self, now: PathState) -> str:
        if now.kind == ABSENT or (now.uid, now.gid, now.mode) == (0, 0, UNIT_MODE):
            return ""
        return f"owner {now.uid}, group {now.gid}, mode {now.mode:04o} instead of root, root, {UNIT_MODE:04o}"

    def _show(self, file: File, now: PathState) -> None:
        before = None if now.kind == ABSENT else now.content
        secret = file.secret or (before or b"").find(b"PRIVATE KEY-----") >= 0
        self.result.diff.append(
            {
                "before_header": file.dest,
                "after_header": file.dest,
                "before": _shown(before, secret, "before"),
                "after": _shown(file.content, secret, "after"),
            }
        )

    def _systemd(self) -> None:
        component, now, result = self.component, self.current, self.result
        result.daemon_reload = any(file.dest.startswith(_UNIT_PLACES) for file in result.files) or any(
            state.needs_reload for state in now.units.values()
        )
        if any(state.needs_reload for state in now.units.values()):
            self._because("systemd: unit files changed since it read them")
        if component.on_change:
            self._commands()
        started = []
        for unit in component.units:
            state = now.units[unit.name]
            self._exists(unit, state)
            self._enablement(unit, state)
            if unit.state == "started":
                self._run(unit, state)
                started.append(unit)
            elif unit.state != ON_DEMAND and (state.running or state.active == "deactivating"):
                # The last one first, so that units stop before those that they depend on.
                result.actions.insert(0, Action(unit.name, "stop"))
                self._because(f"stop {unit.name}: to be {unit.state}")
        self._reload(started)

    def _exists(self, unit: Unit, state: UnitState) -> None:
        if unit.state == "absent" or unit.content is not None:
            return
        if state.load == "masked" and unit.state == "started":
            self.faults.append(f"unit {unit.name} is masked on the node; run systemctl unmask {unit.name}")
        elif (
            state.load == "not-found"
            and not self.result.packages
            and unit.path not in {f.dest for f in self.component.files}
        ):
            self.faults.append(f"unit {unit.name} does not exist on the node; give its content or install its package")

    def _enablement(self, unit: Unit, state: UnitState) -> None:
        if unit.enabled and unit.installable and state.enabled in _MAY_BE_ENABLED:
            self.result.enable.append(unit.name)
            self._because(f"enable {unit.name}: not started with the node")
        elif unit.enabled and state.enabled in _ENABLED and self.changed_units.get(unit.name):
            before = self.current.paths[unit.path].content.partition(b"[Install]")[2]
            if unit.content is not None and before != unit.content.partition(b"[Install]")[2]:
                self.result.enable.append(unit.name)
                self._because(f"enable {unit.name} again: its [Install] section changed")
        elif not unit.enabled and state.enabled in _ENABLED:
            self.result.disable.append(unit.name)
            self._because(
                f"disable {unit.name}: " + ("to be absent" if unit.state == "absent" else "started with the node")
            )

    def _run(self, unit: Unit, state: UnitState) -> None:
        if not state.running:
            self.result.actions.append(Action(unit.name, "start"))
            self._because(f"start {unit.name}: it is {state.describe() if state.load == 'loaded' else 'missing'}")
            return
        changed = self.changed[RESTART] + self.changed_units.get(unit.name, [])
        why = f"{', '.join(changed)} changed" if changed else self._started_with_another(unit)
        if why:
            self.result.actions.append(Action(unit.name, "restart"))
            self._because(f"restart {unit.name}: {why}")

    def _started_with_another(self, unit: Unit) -> str:
        wanted, known = records.restart_items(self.component, unit), self.current.record.started_with.get(unit.name)
        if known is None:
            return "it is not known what it was started with"
        differing = sorted(name for name in {*wanted, *known} if wanted.get(name) != known.get(name))
        if differing:
            return f"it was started with another {', '.join(differing)}"
        return _CUT_OFF if self._may_have_been_restarted() else ""

    def _may_have_been_restarted(self) -> bool:
        """Whether a run was interrupted that did more than place files that its units are not restarted for.

        Whether those were read again is in the record (`reloaded_with`).
        """
        if self.current.interrupted is None:
            return False
        mild = {file.dest for file in self.component.files if file.effect != RESTART}
        return not self.current.interrupted.paths or not mild.issuperset(self.current.interrupted.paths)

    def _commands(self) -> None:
        wanted, known = records.command_items(self.component), self.current.record.commands_for
        why = ""
        if self.result.files or self.result.links:
            why = "files changed"
        elif wanted != known:
            why = "not yet run for these files"
        elif self.current.interrupted is not None:
            why = _CUT_OFF
        if why:
            self.result.on_change = self.component.on_change
            for command in self.component.on_change:
                self._because(f"run {' '.join(command)}: {why}")

    def _reload(self, started: list[Unit]) -> None:
        wanted = records.reload_items(self.component)
        touched = {action.unit for action in self.result.actions}
        if self.changed[RELOAD]:
            why = f"{', '.join(self.changed[RELOAD])} changed"
        elif wanted and wanted != self.current.record.reloaded_with:
            why = "it has not yet read its changed files"
        else:
            return
        for unit in started:
            if unit.name in touched:
                continue
            # systemd reloads only what has come up. What does not work may not notice for minutes that it could:
            # clients wait longer and longer between their attempts.
            ready = self.current.healthy and self.current.units[unit.name].up
            self.result.actions.append(Action(unit.name, "reload" if ready else "restart"))
            self._because(
                f"reload {unit.name}: {why}" if ready else f"restart {unit.name}: {why}, and it is not healthy"
            )


def _shown(content: bytes | None, secret: bool, side: str) -> str:
    if content is None:
        return ""
    if secret or b"PRIVATE KEY-----" in content:
        return f"(secret, {side})\n"
    if len(content) > _LARGEST_DIFF:
        return f"({len(content)} bytes, {side}, {records.sha256(content)})\n"
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return f"({len(content)} bytes that are not text, {side}, {records.sha256(content)})\n"
