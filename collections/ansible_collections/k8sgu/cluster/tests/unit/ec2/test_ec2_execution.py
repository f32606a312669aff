# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carrying a plan out: side by side where steps do not need each other, in order where they do."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Callable

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import plan, run
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.context import Context

# Steps that wait for each other in vain fail the test, and do not hang it.
PATIENCE_S = 10.0


@dataclass
class Step(plan.Step):
    work: Callable[[Context], object]
    action = plan.CREATE

    def apply(self, context: Context) -> None:
        self.work(context)

    def needs(self, place: Any) -> list[Any]:
        return []


def step(name: str, work: Callable[[Context], object], *after: str) -> plan.Step:
    made = Step(name, "why", work)
    made.after = tuple(f"create {other}" for other in after)
    return made


def carry_out(*steps: plan.Step) -> None:
    aws: Any = SimpleNamespace(client=lambda service: None)
    run.carry_out(plan.Plan(list(steps)), Context(aws, "demo", {}, PATIENCE_S))


def test_steps_that_do_not_need_each_other_are_made_side_by_side() -> None:
    everybody = threading.Barrier(run.PARALLEL)
    carry_out(*(step(str(number), lambda context: everybody.wait(PATIENCE_S)) for number in range(run.PARALLEL)))
    assert not everybody.broken


def test_a_step_begins_when_those_it_needs_are_done_and_does_not_wait_for_others() -> None:
    order: list[str] = []
    late = threading.Event()

    def slow(context: Context) -> None:
        assert late.wait(PATIENCE_S), "the step that does not need this one did not begin"
        order.append("slow")

    def second(context: Context) -> None:
        order.append("second")
        late.set()

    carry_out(
        step("slow", slow),
        step("first", lambda context: order.append("first")),
        step("second", second, "first"),
        step("last", lambda context: order.append("last"), "second", "slow"),
    )
    assert order == ["first", "second", "slow", "last"]


def test_after_a_failure_no_other_step_begins_and_those_under_way_end() -> None:
    failed, begun = threading.Event(), threading.Event()
    order: list[str] = []

    def fail(context: Context) -> None:
        begun.wait(PATIENCE_S)
        failed.set()
        raise ValueError("no")

    def under_way(context: Context) -> None:
        begun.set()
        failed.wait(PATIENCE_S)
        order.append("under way")

    with pytest.raises(run.StepFailed, match="create fail") as error:
        carry_out(
            step("fail", fail),
            step("under way", under_way),
            step("never", lambda context: order.append("never"), "under way", "fail"),
        )
    assert order == ["under way"] and [done.key for done in error.value.done] == ["create under way"]
