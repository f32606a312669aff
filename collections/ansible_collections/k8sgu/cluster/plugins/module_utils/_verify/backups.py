# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that a member of etcd takes snapshots by itself, puts them where the loss of the machine does not reach, and
tries to restore them.

Standard library only.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import time
from pathlib import Path
from typing import Iterable, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import snapshots
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.checks import Check

TIMER, SERVICE, UPLOAD = "etcd-snapshot.timer", "etcd-snapshot.service", "etcd-upload.service"
DRILL_TIMER, DRILL = "etcd-drill.timer", "etcd-drill.service"
_UNIT = Path("/etc/systemd/system") / UPLOAD
# As long as a large database and a busy disk may take, beyond two intervals: one snapshot may be late.
SLACK_S = 300
DAY_S = 86400
COMMAND_TIMEOUT_S = 30
_PROPERTIES = "Id,LoadState,ActiveState,Result,ExecMainStatus,ActiveEnterTimestampMonotonic"

UNITS = (TIMER, SERVICE, UPLOAD, DRILL_TIMER, DRILL)

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
    most = _most(minutes)
    timer, service = units.get(TIMER, {}), units.get(SERVICE, {})
    runs = timer.get("ActiveState") == "active"
    since = _since(timer, uptime)
    # One that is dated later is of a clock that ran ahead, and nobody knows its age.
    own = [one for one in snapshots.listed(names) if one.series == snapshots.BACKUP and one.taken <= now]
    age = (now - own[0].taken).total_seconds() if own else None
    young = age is not None and age <= most
    failed = service.get("ActiveState") == "failed"
    newest = f"the newest is {own[0].name}, {_shown(age)} old" if own and age is not None else "there is none yet"
    state = f"active for {_shown(since)}" if runs else timer.get("ActiveState") or "not there"
    last = _last(service)
    return Check(
        "this member of etcd takes snapshots by itself",
        runs and not failed and (young or since <= most),
        f"{TIMER} is active, its last run did not fail, and the newest backup is at most {_shown(most)} old, or the "
        "timer was started no longer ago",
        f"{TIMER} is {state}, its last run {last}; {newest}",
        where,
        f"systemctl status {TIMER} {SERVICE}; journalctl -u {SERVICE}; ls -l {snapshots.DIRECTORY}",
    )


def judge_upload(
    record: Mapping[str, str], to: str, now: datetime.datetime, units: Units, waited: float, minutes: int, where: str
) -> Check:
    """Pure. `record`: the last upload's. `to`: where they go. `waited`: seconds since they could have gone there."""
    most = _most(minutes)
    service = units.get(UPLOAD, {})
    last = snapshots.parse(record.get("name", "")) if record.get("to") == to else None
    age = (now - last.taken).total_seconds() if last and last.taken <= now else None
    newest = f"the newest is {last.name}, {_shown(age)} old" if last and age is not None else "none was put there yet"
    young = age is not None and age <= most
    return Check(
        "this member's snapshots are put into the bucket",
        bool(service) and service.get("ActiveState") != "failed" and (young or waited <= most),
        f"the last run of {UPLOAD} did not fail, and the newest snapshot below {to} is at most {_shown(most)} old, or "
        "that was asked for no longer ago",
        f"its last run {_last(service)}; {newest}" if service else f"{UPLOAD} is not there; {newest}",
        where,
        f"journalctl -u {UPLOAD}; cat {snapshots.UPLOADED}; systemctl start {UPLOAD}",
    )


def judge_drill(text: str, now: datetime.datetime, units: Units, uptime: float, where: str) -> Check:
    """Pure. `text`: what the last drill left. `uptime`: seconds of the clock that systemd counts with."""
    most = DAY_S + _most(0)
    timer, service = units.get(DRILL_TIMER, {}), units.get(DRILL, {})
    runs = timer.get("ActiveState") == "active"
    since = _since(timer, uptime)
    at, problems = _drilled(text)
    age = (now - at).total_seconds() if at and at <= now else None
    # Of a service that is at work the last result counts, which is in the file too.
    failed = bool(problems) or service.get("ActiveState") == "failed"
    last = f"the last drill was {_shown(age)} ago" if age is not None else "there was none yet"
    return Check(
        "this member's snapshots can be restored",
        runs and not failed and ((age is not None and age <= most) or since <= most),
        f"{DRILL_TIMER} is active, its last drill did not fail, and was at most {_shown(most)} ago, or the timer was "
        "started no longer ago",
        f"{DRILL_TIMER} is {f'active for {_shown(since)}' if runs else timer.get('ActiveState') or 'not there'}, "
        + "; ".join([last, *problems] if problems else [f"its last run {_last(service)}", last]),
        where,
        f"journalctl -u {DRILL}; systemctl start {DRILL}",
    )


def _drilled(text: str) -> tuple[datetime.datetime | None, list[str]]:
    """When the last drill was, and what it found; None if that cannot be read."""
    try:
        found = json.loads(text)
        at = datetime.datetime.strptime(found["time"], "%Y-%m-%dT%H:%M:%SZ")
        return at.replace(tzinfo=datetime.timezone.utc), [str(one) for one in found["problems"]]
    except (ValueError, LookupError, TypeError):
        return None, []


def _most(minutes: int) -> float:
    return 2 * minutes * 60 + SLACK_S


def _since(timer: Mapping[str, str], uptime: float) -> float:
    return uptime - int(timer.get("ActiveEnterTimestampMonotonic") or 0) / 1e6


def _last(service: Mapping[str, str]) -> str:
    if service.get("ActiveState") != "failed":
        return "did not fail"
    return f"failed ({service.get('Result')}, status {service.get('ExecMainStatus')})"


def _shown(seconds: float | None) -> str:
    return f"{(seconds or 0) / 60:.0f} min"


def check_backups(minutes: int, to: str, drills: bool, where: str) -> list[Check]:
    """`to` is where snapshots are put (s3://BUCKET/PREFIX), empty if they stay on the node; `drills`: once a day."""
    try:
        said = subprocess.run(
            ["systemctl", "show", "--no-pager", f"--property={_PROPERTIES}", "--", *UNITS],
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
    units, uptime = parse_units(said), time.monotonic()
    checks = [judge_backups(names, now, units, uptime, minutes, where)]
    if to:
        # Since the timer was started, or since a bucket was described or became another one.
        described = time.time() - _UNIT.stat().st_mtime if _UNIT.is_file() else 0
        waited = min(_since(units.get(TIMER, {}), uptime), described)
        there = {name: unit for name, unit in units.items() if unit.get("LoadState") != "not-found"}
        record = snapshots.uploaded(_read(Path(snapshots.UPLOADED)))
        checks.append(judge_upload(record, to, now, there, waited, minutes, where))
    if drills:
        checks.append(judge_drill(_read(Path(snapshots.DRILLED)), now, units, uptime, where))
    return checks


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
