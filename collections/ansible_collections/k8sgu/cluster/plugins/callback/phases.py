# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: phases
type: aggregate
short_description: Shows the running phase, and at the end the time of phases and tasks
version_added: 0.1.0
description:
  - Each play of a playbook counts as a phase. Its number, name and the time elapsed are shown when it starts.
  - At the end the phases and the slowest tasks are listed with their times.
author:
  - The k8sgu authors (@k8sgu)
requirements:
  - Enable it in C(ansible.cfg) with C(callbacks_enabled = k8sgu.cluster.phases).
options:
  timings_file:
    description: A JSON file to which the times are also written.
    type: path
    env:
      - name: K8SGU_TIMINGS_FILE
  slowest_tasks:
    description: Number of tasks to list at the end.
    type: int
    default: 5
    env:
      - name: K8SGU_SLOWEST_TASKS
"""

import json
import time
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase


def clock(seconds: float) -> str:
    """Seconds as m:ss."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class Stopwatch:
    """Times of named spans that follow each other; one ends where the next begins."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, float]] = []
        self._name: str | None = None
        self._since = 0.0

    def start(self, name: str, now: float) -> None:
        self.stop(now)
        self._name, self._since = name, now

    def stop(self, now: float) -> None:
        if self._name is not None:
            self.spans.append((self._name, now - self._since))
        self._name = None


def totals(spans: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Spans of one name added up, in order of first appearance."""
    added: dict[str, float] = {}
    for name, seconds in spans:
        added[name] = added.get(name, 0.0) + seconds
    return list(added.items())


def table(title: str, rows: list[tuple[str, float]]) -> str:
    width = max([len(title), *(len(name) for name, _seconds in rows)])
    lines = [f"{title:<{width}}  seconds", *(f"{name:<{width}}  {seconds:7.1f}" for name, seconds in rows)]
    return "\n".join(lines)


class CallbackModule(CallbackBase):  # type: ignore[misc]
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "k8sgu.cluster.phases"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.phases, self.tasks = Stopwatch(), Stopwatch()
        self.number, self.count = 0, 0
        # The play that runs, and which of its batches (`serial`).
        self.play, self.batch = "", 0
        # The phase of each task that was started, in their order.
        self.phase, self.phase_of_task = "", list[str]()
        self.began = time.monotonic()

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self.began = time.monotonic()
        self.count = len(playbook.get_plays())

    def v2_playbook_on_play_start(self, play: Any) -> None:
        now = time.monotonic()
        self.batch = self.batch + 1 if play._uuid == self.play else 1
        self.number += self.batch == 1
        self.play, self.phase = play._uuid, play.get_name().strip()
        self.tasks.stop(now)
        self.phases.start(self.phase, now)
        phase = self.phase if self.batch == 1 else f"{self.phase}, batch {self.batch}"
        self._display.banner(f"PHASE {self.number} of {self.count}: {phase} ({clock(now - self.began)} elapsed)")

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self.phase_of_task.append(self.phase)
        self.tasks.start(task.get_name().strip(), time.monotonic())

    def v2_playbook_on_stats(self, stats: Any) -> None:
        now = time.monotonic()
        self.phases.stop(now)
        self.tasks.stop(now)
        phases, tasks = totals(self.phases.spans), totals(self.tasks.spans)
        slowest = sorted(tasks, key=lambda row: -row[1])[: self.get_option("slowest_tasks")]
        self._display.banner(f"{self.number} PHASES in {clock(now - self.began)}")
        self._display.display(table("phase", phases) + "\n\n" + table("slowest tasks", slowest))
        if self.get_option("timings_file"):
            rows = [(phase, *span) for phase, span in zip(self.phase_of_task, self.tasks.spans)]
            document = {"total": now - self.began, "phases": phases, "tasks": tasks, "tasks_by_phase": rows}
            Path(self.get_option("timings_file")).write_text(json.dumps(document, indent=2))
