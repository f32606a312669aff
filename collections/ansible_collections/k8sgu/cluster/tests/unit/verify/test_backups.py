# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""verify finds a member of etcd that takes no snapshots, and knows that a new one has none yet."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.snapshots import Snapshot
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.backups import (
    DRILL,
    DRILL_TIMER,
    SERVICE,
    TIMER,
    UPLOAD,
    judge_backups,
    judge_drill,
    judge_upload,
    parse_units,
)

NOW = datetime.datetime(2026, 11, 29, 12, 0, 0, tzinfo=datetime.timezone.utc)
UPTIME_S = 100_000.0


def name(minutes_ago: float, series: str = "backup") -> str:
    return Snapshot(NOW - datetime.timedelta(minutes=minutes_ago), "3.6.14", 7, series).name


def units(minutes_ago: float = 600, active: str = "active", failed: bool = False) -> dict[str, dict[str, str]]:
    """The timer's state, since when, and whether the service's last run failed."""
    started = int((UPTIME_S - minutes_ago * 60) * 1e6)
    last = (
        {"ActiveState": "failed", "Result": "exit-code", "ExecMainStatus": "1"}
        if failed
        else {"ActiveState": "inactive"}
    )
    return {TIMER: {"ActiveState": active, "ActiveEnterTimestampMonotonic": str(started)}, SERVICE: last}


@pytest.mark.parametrize(
    ("names", "state", "passed", "seen"),
    [
        ([name(3), name(18)], units(), True, f"the newest is {name(3)}, 3 min old"),
        # One run may be missed.
        ([name(34)], units(), True, "34 min old"),
        ([name(36)], units(), False, f"did not fail; the newest is {name(36)}, 36 min old"),
        ([name(3, "upgrade")], units(), False, "did not fail; there is none yet"),
        # It is a new member, or the machine was off.
        ([], units(2), True, f"{TIMER} is active for 2 min, its last run did not fail; there is none yet"),
        ([name(5000)], units(34), True, "5000 min old"),
        ([name(5000)], units(36), False, "active for 36 min"),
        ([name(3)], units(active="inactive"), False, f"{TIMER} is inactive"),
        ([name(3)], units(active="failed"), False, f"{TIMER} is failed"),
        ([name(3)], {}, False, f"{TIMER} is not there"),
        ([name(3)], units(failed=True), False, "its last run failed (exit-code, status 1); the newest is"),
        ([], units(2, failed=True), False, "its last run failed"),
        # A file from a clock that ran ahead would look young for ever.
        ([name(-60)], units(), False, "there is none yet"),
        ([name(-60), name(3)], units(), True, f"the newest is {name(3)}"),
    ],
)
def test_backups(names: list[str], state: dict[str, Any], passed: bool, seen: str) -> None:
    check = judge_backups([*names, "note.txt", ".taking.7.01234567"], NOW, state, UPTIME_S, 15, "node-0")
    assert (check.passed, check.where) == (passed, "node-0")
    assert seen in check.seen
    assert "at most 35 min old, or the timer was started no longer ago" in check.expected


TO = "s3://backups/demo/etcd/"


@pytest.mark.parametrize(
    ("record", "active", "waited", "passed", "seen"),
    [
        ({"name": name(3), "to": TO}, "inactive", 600, True, f"did not fail; the newest is {name(3)}, 3 min old"),
        ({"name": name(34), "to": TO}, "activating", 600, True, "34 min old"),
        ({"name": name(36), "to": TO}, "inactive", 600, False, "36 min old"),
        # The bucket has just been described, or the member is new.
        ({}, "inactive", 34, True, "none was put there yet"),
        ({}, "inactive", 36, False, "none was put there yet"),
        ({"name": name(3), "to": "s3://other/demo/etcd/"}, "inactive", 600, False, "none was put there yet"),
        ({"name": name(-60), "to": TO}, "inactive", 600, False, "none was put there yet"),
        ({"name": name(3), "to": TO}, "failed", 600, False, "its last run failed (exit-code, status 1)"),
        ({}, "failed", 2, False, "its last run failed"),
        ({"name": name(3), "to": TO}, "", 2, False, f"{UPLOAD} is not there"),
    ],
)
def test_uploads(record: dict[str, str], active: str, waited: float, passed: bool, seen: str) -> None:
    """`waited` in minutes; `active`: the service's state, empty where there is no such unit."""
    last = {"Result": "exit-code", "ExecMainStatus": "1"} if active == "failed" else {}
    state = {UPLOAD: {"ActiveState": active, **last}} if active else {}
    check = judge_upload(record, TO, NOW, state, waited * 60, 15, "node-0")
    assert (check.passed, check.where) == (passed, "node-0")
    assert seen in check.seen
    assert (
        f"the newest snapshot below {TO} is at most 35 min old, or that was asked for no longer ago" in check.expected
    )


def drilled(minutes_ago: float, *problems: str) -> str:
    at = NOW - datetime.timedelta(minutes=minutes_ago)
    return json.dumps({"time": at.strftime("%Y-%m-%dT%H:%M:%SZ"), "problems": problems})


@pytest.mark.parametrize(
    ("text", "timer", "active_for", "service", "passed", "seen"),
    [
        (drilled(60), "active", 6000, "inactive", True, "did not fail; the last drill was 60 min ago"),
        (drilled(60), "active", 6000, "activating", True, "60 min ago"),
        (drilled(1446), "active", 6000, "inactive", False, "1446 min ago"),
        (drilled(1446), "active", 1444, "inactive", True, "active for 1444 min"),
        ("", "active", 10, "inactive", True, "there was none yet"),
        ("", "active", 1446, "inactive", False, "there was none yet"),
        ("{}", "active", 1446, "inactive", False, "there was none yet"),
        (drilled(-60), "active", 6000, "inactive", False, "there was none yet"),
        (drilled(60, "too old", "too slow"), "active", 6000, "failed", False, "60 min ago; too old; too slow"),
        # One is at work again, or the machine was started since.
        (drilled(60, "too old"), "active", 10, "activating", False, "60 min ago; too old"),
        ("", "active", 10, "failed", False, "its last run failed (exit-code, status 1)"),
        (drilled(60), "inactive", 6000, "inactive", False, f"{DRILL_TIMER} is inactive"),
        (drilled(60), "", 6000, "inactive", False, f"{DRILL_TIMER} is not there"),
    ],
)
def test_drills(text: str, timer: str, active_for: float, service: str, passed: bool, seen: str) -> None:
    """`active_for` in minutes."""
    started = str(int((UPTIME_S - active_for * 60) * 1e6))
    last = {"Result": "exit-code", "ExecMainStatus": "1"} if service == "failed" else {}
    state = {DRILL: {"ActiveState": service, **last}}
    if timer:
        state[DRILL_TIMER] = {"ActiveState": timer, "ActiveEnterTimestampMonotonic": started}
    check = judge_drill(text, NOW, state, UPTIME_S, "node-0")
    assert (check.passed, check.where) == (passed, "node-0")
    assert seen in check.seen
    assert "at most 1445 min ago, or the timer was started no longer ago" in check.expected


def test_units_as_systemctl_shows_them() -> None:
    said = f"Id={TIMER}\nActiveState=active\n\nId={SERVICE}\nActiveState=inactive\nResult=success\n"
    assert parse_units(said) == {
        TIMER: {"Id": TIMER, "ActiveState": "active"},
        SERVICE: {"Id": SERVICE, "ActiveState": "inactive", "Result": "success"},
    }
    assert parse_units("") == {}
