# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls of systemctl and journalctl for components."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import Iterable, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import ComponentError

# By default systemd ends a start or stop job after 90 s.
_JOB_TIMEOUT_S = 200

_PROPERTIES = "Id,LoadState,ActiveState,SubState,UnitFileState,NeedDaemonReload,NRestarts,Result,ExecMainStatus"


@dataclass(frozen=True)
class UnitState:
    """The state of a unit; the names are those of `systemctl show`."""

    load: str = "not-found"
    active: str = "inactive"
    sub: str = "dead"
    enabled: str = ""
    needs_reload: bool = False
    restarts: int = 0
    result: str = "success"
    exit_status: str = "0"

    @property
    def running(self) -> bool:
        return self.up or self.active == "activating"

    @property
    def up(self) -> bool:
        """Whether it has started: systemd reloads nothing else."""
        return self.active in ("active", "reloading", "refreshing")

    def describe(self) -> str:
        text = f"{self.active} ({self.sub})"
        if self.result not in ("success", ""):
            text += f", result {self.result}, exit status {self.exit_status}"
        if self.restarts:
            text += f", restarted {self.restarts} times"
        return text


def show(names: Sequence[str]) -> dict[str, UnitState]:
    """{name: state} of the units, read by one call."""
    if not names:
        return {}
    done = run(["systemctl", "show", "--no-pager", f"--property={_PROPERTIES}", "--", *names])
    states = {}
    # An alias has another Id in its answer, so match answers to names by their order.
    for name, block in zip(names, done.strip("\n").split("\n\n")):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        states[name] = UnitState(
            load=values.get("LoadState", "not-found"),
            active=values.get("ActiveState", "inactive"),
            sub=values.get("SubState", "dead"),
            enabled=values.get("UnitFileState", ""),
            needs_reload=values.get("NeedDaemonReload") == "yes",
            restarts=int(values.get("NRestarts") or 0),
            result=values.get("Result", ""),
            exit_status=values.get("ExecMainStatus", ""),
        )
    return states


def systemctl(*arguments: str) -> None:
    run(["systemctl", "--no-pager", *arguments])


def journal(names: Iterable[str], lines: int = 40) -> list[str]:
    """The last lines of the units' journal, or the reason why it cannot be read."""
    units = [word for name in names for word in ("--unit", name)]
    try:
        done = run(
            ["journalctl", "--no-pager", "--quiet", "--output=short-iso", f"--lines={lines}", *units], timeout=30
        )
    except ComponentError as error:
        return [str(error)]
    return done.splitlines()


def run(command: Sequence[str], timeout: int = _JOB_TIMEOUT_S) -> str:
    """Standard output of a command. Raises ComponentError with its output when it fails or does not end."""
    shown = " ".join(command)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ComponentError(f"{shown}: did not end within {timeout} s") from error
    except OSError as error:
        raise ComponentError(f"{shown}: cannot be run: {error.strerror}") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()
        raise ComponentError(f"{shown}: failed with status {done.returncode}" + (f": {said[-2000:]}" if said else ""))
    return done.stdout.decode("utf-8", "replace")
