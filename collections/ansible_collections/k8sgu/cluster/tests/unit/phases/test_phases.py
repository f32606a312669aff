# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The phases, their times and the table: the parts, and what a user sees of a playbook with two plays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.k8sgu.cluster.plugins.callback.phases import Stopwatch, clock, table, totals

ROOT = Path(__file__).resolve().parents[7]
PLAYS = """\
- name: First
  hosts: localhost
  gather_facts: false
  tasks:
    - {name: Wait, ansible.builtin.wait_for: {timeout: 1}}
    - {name: Say, ansible.builtin.debug: {msg: one}}
- name: Second
  hosts: localhost
  gather_facts: false
  tasks:
    - {name: Say, ansible.builtin.debug: {msg: two}}
"""


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (59.9, "0:59"), (60, "1:00"), (754, "12:34")])
def test_clock(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


def test_a_span_ends_where_the_next_begins() -> None:
    watch = Stopwatch()
    watch.stop(5.0)
    assert watch.spans == []
    watch.start("a", 10.0)
    watch.start("b", 12.5)
    watch.stop(13.0)
    # What lies between is nobody's time, and what was stopped is not counted again.
    watch.stop(20.0)
    watch.start("a", 21.0)
    watch.stop(22.0)
    assert watch.spans == [("a", 2.5), ("b", 0.5), ("a", 1.0)]
    assert totals(watch.spans) == [("a", 3.5), ("b", 0.5)]


def test_table() -> None:
    assert table("phase", [("Workers", 12.34), ("DNS", 0.0)]).splitlines() == [
        "phase    seconds",
        "Workers     12.3",
        "DNS          0.0",
    ]
    assert table("phase", []) == "phase  seconds"


def run(folder: Path, plays: str, *arguments: str) -> list[str]:
    """The lines that a playbook prints, without the stars of banners; its times are in timings.json."""
    (folder / "plays.yml").write_text(plays)
    (folder / "ansible.cfg").write_text("[defaults]\ncallbacks_enabled = k8sgu.cluster.phases\n")
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "--connection=local",
            f"--extra-vars=ansible_python_interpreter={sys.executable}",
            *arguments,
            "plays.yml",
        ],
        cwd=folder,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(folder / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
            "ANSIBLE_NOCOLOR": "1",
            "K8SGU_TIMINGS_FILE": str(folder / "timings.json"),
            "K8SGU_SLOWEST_TASKS": "1",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [line.rstrip("* ") for line in done.stdout.splitlines()]


def test_a_play_in_batches_is_one_phase(tmp_path: Path) -> None:
    play = {"hosts": "all", "gather_facts": False, "tasks": [{"ansible.builtin.debug": {"msg": "x"}}]}
    plays = json.dumps([{"name": "Nodes", "serial": 1, **play}, {"name": "End", **play}])
    shown = [line for line in run(tmp_path, plays, "--inventory=a,b,") if line.startswith("PHASE ")]
    assert [line.partition(" (")[0] for line in shown] == [
        "PHASE 1 of 2: Nodes",
        "PHASE 1 of 2: Nodes, batch 2",
        "PHASE 2 of 2: End",
    ]


def test_a_playbook_shows_its_phases_and_writes_their_times(tmp_path: Path) -> None:
    shown = run(tmp_path, PLAYS, "--inventory=localhost,")
    assert any(line.startswith("PHASE 1 of 2: First (0:0") for line in shown)
    assert any(line.startswith("PHASE 2 of 2: Second (") for line in shown)
    assert any(line.startswith("2 PHASES in ") for line in shown)
    # One task was asked for, and it is the one that took longest.
    slowest = shown[shown.index("slowest tasks  seconds") + 1 :]
    assert [line.split()[0] for line in slowest if line] == ["Wait"]

    written = json.loads((tmp_path / "timings.json").read_text())
    assert [name for name, _seconds in written["phases"]] == ["First", "Second"]
    assert [name for name, _seconds in written["tasks"]] == ["Wait", "Say"]
    where = [(phase, name) for phase, name, _seconds in written["tasks_by_phase"]]
    assert where == [("First", "Wait"), ("First", "Say"), ("Second", "Say")]
    times = dict(written["tasks"])
    assert times["Wait"] >= 1 > times["Say"]
    assert sum(times.values()) <= sum(seconds for _name, seconds in written["phases"]) <= written["total"]
