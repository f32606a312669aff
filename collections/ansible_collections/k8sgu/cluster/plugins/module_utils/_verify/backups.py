# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that a member of etcd takes snapshots by itself. Standard library only."""

from __future__ import annotations

import datetime
import subprocess
import time
from pathlib import Path
from typing import Iterable, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import snapshots
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.checks import Check

TIMER, SERVICE = "etcd-snapshot.timer", "etcd-snapshot.service"
# As long as a large database and a busy disk may take, beyond two intervals: one snapshot may be late.
SLACK_S = 300
COMMAND_TIMEOUT_S = 30
_PROPERTIES = "Id,LoadState,ActiveState,Result,ExecMainStatus,ActiveEnterTimestampMonotonic"

# {unit: {property of `systemctl show`: value}}
Units = Mapping[str, Mapping[str, str]]


def parse_units(text: str) -> dict[str, dict[str, str]]:
    """The answer of `systemctl show`, by unit. Pure."""
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in text.split("\n\n")]
    return {block["Id"]: block for block in blocks if "Id" in block}


def judge_backups(
    names: Iterable[str], now: datetime.datetime, units: Units, uptime: float, minutes: int, where: str
) -> Check:
    """Pure. `names`: files of the directory. `uptime`: seconds of the clock that systemd counts with."""
    most = 2 * minutes * 60 + SLACK_S
    timer, service = units.get(TIMER, {}), units.get(SERVICE, {})
    runs = timer.get("ActiveState") == "active"
    since = uptime - int(timer.get("ActiveEnterTimestampMonotonic") or 0) / 1e6
    # One that is dated later is of a clock that ran ahead, and nobody knows its age.
    own = [one for one in snapshots.listed(names) if one.series == snapshots.BACKUP and one.taken <= now]
    age = (now - own[0].taken).total_seconds() if own else None
    young = age is not None and age <= most
    failed = service.get("ActiveState") == "failed"
    newest = f"the newest is {own[0].name}, {_shown(age)} old" if own and age is not None else "there is none yet"
    state = f"active for {_shown(since)}" if runs else timer.get("ActiveState") or "not there"
    last = f"failed ({service.get('Result')}, status {service.get('ExecMainStatus')})" if failed else "did not fail"
    return Check(
        "this member of etcd takes snapshots by itself",
        runs and not failed and (young or since <= most),
        f"{TIMER} is active, its last run did not fail, and the newest backup is at most {_shown(most)} old, or the "
        "timer was started no longer ago",
        f"{TIMER} is {state}, its last run {last}; {newest}",
        where,
        f"systemctl status {TIMER} {SERVICE}; journalctl -u {SERVICE}; ls -l {snapshots.DIRECTORY}",
    )


def _shown(seconds: float | None) -> str:
    return f"{(seconds or 0) / 60:.0f} min"


def check_backups(minutes: int, where: str) -> Check:
    try:
        said = subprocess.run(
            ["systemctl", "show", "--no-pager", f"--property={_PROPERTIES}", "--", TIMER, SERVICE],
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        said = f"Id={TIMER}\nActiveState={error}"
    directory = Path(snapshots.DIRECTORY)
    names = [path.name for path in directory.iterdir()] if directory.is_dir() else []
    now = datetime.datetime.now(datetime.timezone.utc)
    return judge_backups(names, now, parse_units(said), time.monotonic(), minutes, where)
