# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Takes the steps of a plan. A step that fails is remembered, and the others are taken."""

# Paths are text here, as in the record.
# ruff: noqa: PTH101, PTH106, PTH110, PTH112, PTH113, PTH114, PTH118, PTH120, PTH208

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import stat
import time
from typing import Callable

from ansible_collections.k8sgu.cluster.plugins.module_utils._component import accounts, packages, systemd, undo
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import (
    ComponentError,
    error_text,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.origin import (
    HOME,
    PATH,
    UNKNOWN,
    Origin,
    sysctl_path,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.undo import ABSENT, DIRECTORY_KIND
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import FileError, remove_file
from ansible_collections.k8sgu.cluster.plugins.module_utils._reset import node
from ansible_collections.k8sgu.cluster.plugins.module_utils._reset import plan as plans
from ansible_collections.k8sgu.cluster.plugins.module_utils._volume.disk import MARK

# Killed processes are gone at once, unless the kernel waits for a disk.
_END_S = 20
_PAUSE_S = 0.05
_HOLDERS_SHOWN = 3


class Application:
    """One plan's execution; `failures` says of each step that failed what it was and why."""

    def __init__(self, origin: Origin, plan: plans.Plan) -> None:
        self.origin, self.plan = origin, plan
        self.failures: list[str] = []

    def still(self) -> None:
        """Nothing of ours runs any more. Programs take some of what they made with them."""
        self._stop()
        for step in self.plan.of(plans.END):
            self._try(step, _end)
        for step in self.plan.of(plans.STOP):
            # A unit that failed and then is gone would be listed as failed until the next boot.
            with contextlib.suppress(ComponentError):
                _run("systemctl", "reset-failed", step.target)

    def clear(self) -> None:
        """Everything else but what says whose the node is."""
        one_by_one: tuple[tuple[str, Callable[[str], None]], ...] = (
            (plans.EMPTY, _empty),
            (plans.UNMOUNT, _unmount),
            (plans.INTERFACE, _interface),
            (plans.TABLE, lambda name: _run("nft", "delete", "table", *name.split(" "))),
        )
        for kind, act in one_by_one:
            for step in self.plan.of(kind):
                self._try(step, act)
        self._chains()
        for step in self.plan.of(plans.SET):
            self._try(step, lambda name: _run("ipset", "destroy", name))
        for step in self.plan.of(plans.DISABLE):
            self._try(step, lambda name: _run("systemctl", "--no-reload", "--quiet", "disable", name))
        self._purge()
        for step in self.plan.of(plans.REMOVE) + self.plan.of(plans.PATH_BACK):
            self._try(step, self._put_back)
        _run("systemctl", "daemon-reload")
        one_by_one = (
            (plans.COMMAND, lambda words: _run(*words.split(" "))),
            (plans.START, lambda name: _run("systemctl", "--no-pager", "restart", name)),
            (plans.SETTING, _set),
            (plans.SWAP, lambda area: _run("swapon", area)),
            (plans.USER, lambda name: _run("userdel", name)),
            (plans.GROUP, _group),
        )
        for kind, act in one_by_one:
            for step in self.plan.of(kind):
                self._try(step, act)

    def finish(self) -> None:
        """Whose the node was, and what it was before: only when nothing is left that this is needed for."""
        for step in self.plan.of(plans.LAST_REMOVE):
            self._try(step, _home if step.target == HOME else self._put_back)

    def _try(self, step: plans.Step, act: Callable[[str], None]) -> None:
        try:
            act(step.target)
        except (ComponentError, FileError, OSError) as error:
            self.failures.append(f"{step.kind} {step.target}: {error_text(error)}")

    def _stop(self) -> None:
        """All at once, in the order of their dependencies, which systemd knows."""
        names = [step.target for step in self.plan.of(plans.STOP)]
        if not names:
            return
        try:
            _run("systemctl", "--no-pager", "stop", *names)
        except ComponentError as error:
            # Their processes are ended below.
            left = [name for name, state in systemd.show(names).items() if state.running]
            if left:
                self.failures.append(f"stop {', '.join(left)}: {error}")

    def _chains(self) -> None:
        """Together for each table: a chain can only go when no rule leads to it."""
        chains: dict[tuple[str, str], list[str]] = {}
        for step in self.plan.of(plans.CHAIN):
            program, table, chain = step.target.split(" ")
            chains.setdefault((program, table), []).append(chain)
        for (program, table), names in chains.items():
            try:
                _drop_chains(program, table, names)
            except ComponentError as error:
                self.failures.append(f"remove the chains of {program} {table}: {error}")
        rules = self.plan.of(plans.RULE)
        for step in rules:
            self._try(step, lambda target: _drop_rule(*target.split(" ", 2)))
        for name in node.emptied_tables() if chains or rules else []:
            with contextlib.suppress(ComponentError):
                _run("nft", "delete", "table", *name.split(" "))

    def _purge(self) -> None:
        names = [step.target for step in self.plan.of(plans.PURGE)]
        if not names:
            return
        try:
            packages.purge(names)
        except ComponentError as error:
            self.failures.append(str(error))

    def _put_back(self, path: str) -> None:
        was = self.origin.paths[path]
        if was.kind == DIRECTORY_KIND:
            os.chown(path, was.uid, was.gid)
            os.chmod(path, was.mode)
        elif was.kind not in (ABSENT, UNKNOWN):
            undo.restore(path, was)
        elif not os.path.isdir(path) or os.path.islink(path):
            remove_file(path)
        elif path in self.origin.whole:
            remove_tree(path)
        else:
            os.rmdir(path)


def _group(name: str) -> None:
    # It may have gone with its user.
    if accounts.group_id(name) is not None:
        _run("groupdel", name)


def _home(path: str) -> None:
    """The record is the last: without it nobody would know what is still there."""
    for name in os.listdir(path):
        if os.path.join(path, name) != PATH:
            remove_tree(os.path.join(path, name))
    remove_tree(path)


def _run(*command: str) -> None:
    systemd.run(command)


def _end(name: str) -> None:
    """Kills what is in the control group until nothing is: what runs there may start more."""
    deadline = time.monotonic() + _END_S
    while True:
        left = node.processes_of(name)
        if not left:
            break
        if time.monotonic() >= deadline:
            raise ComponentError(f"{node.named(left)} did not end within {_END_S} s of being killed")
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(_PAUSE_S)
    if name.endswith(".slice"):
        with contextlib.suppress(ComponentError):
            _run("systemctl", "--no-pager", "stop", name)
    node.remove_groups(name)


def _empty(mount: str) -> None:
    for name in os.listdir(mount):
        if name not in (MARK, "lost+found"):
            remove_tree(os.path.join(mount, name))


def _unmount(mount: str) -> None:
    try:
        _run("umount", "--", mount)
    except ComponentError as error:
        holders = node.holders(mount)
        shown = node.named(holders[:_HOLDERS_SHOWN])
        raise ComponentError(f"{error}" + (f"; used by {shown}: end it and run again" if holders else "")) from error
    # A namespace's mount point is a file that somebody made for it.
    if os.path.isfile(mount):
        remove_file(mount)


def _interface(name: str) -> None:
    """With the pods' ends that are still plugged into it, where it is a bridge."""
    ports = f"/sys/class/net/{name}/brif"
    for port in os.listdir(ports) if os.path.isdir(ports) else []:
        with contextlib.suppress(ComponentError):
            _run("ip", "link", "delete", port)
    if os.path.exists(f"/sys/class/net/{name}"):
        _run("ip", "link", "delete", name)


def _drop_chains(program: str, table: str, names: list[str]) -> None:
    rules = systemd.run([program, "--wait", "5", "--table", table, "--list-rules"]).splitlines()
    for rule in rules:
        words = shlex.split(rule)
        leads = "-j" in words and words[words.index("-j") + 1] in names
        if words[0] == "-A" and leads and words[1] not in names:
            _drop_rule(program, table, rule[3:])
    for verb in ("--flush", "--delete-chain"):
        for name in names:
            _run(program, "--wait", "5", "--table", table, verb, name)


def _drop_rule(program: str, table: str, rule: str) -> None:
    """A rule as the program prints it: words with spaces are quoted."""
    _run(program, "--wait", "5", "--table", table, "-D", *shlex.split(rule))


def _set(setting: str) -> None:
    name, _equals, value = setting.partition("=")
    with open(sysctl_path(name), "w", encoding="utf-8") as stream:  # noqa: PTH123
        stream.write(value + "\n")


def remove_tree(path: str) -> None:
    """Removes it, unless something is mounted in it, which may be no copy."""
    inside = [mount for mount in node.mount_points() if mount == path or mount.startswith(path + "/")]
    if inside:
        raise ComponentError(f"{', '.join(inside)} is still mounted there")
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, onerror=_again)
    else:
        remove_file(path)


def _again(act: Callable[[str], object], path: str, _failure: object) -> None:
    """Files may be immutable to others, or gone meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        os.chmod(os.path.dirname(path), stat.S_IRWXU)
        act(path)
