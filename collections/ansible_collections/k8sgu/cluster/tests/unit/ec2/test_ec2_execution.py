# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carrying a plan out: side by side where steps do not need each other, in order where they do."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any, Callable

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import execution, plan
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description

# Steps that wait for each other in vain fail the test, and do not hang it.
PATIENCE_S = 10.0


def step(name: str, *after: str) -> plan.Step:
    return plan.Step(name, plan.CREATE, "why", name, {}, tuple(f"create {other}" for other in after))


def carry_out(steps: list[plan.Step], handlers: dict[str, Callable[[execution.Context], None]]) -> None:
    aws: Any = SimpleNamespace(client=lambda service: None)
    context = execution.Context(aws, Description("demo", "us-east-1"), {}, PATIENCE_S)
    execution.carry_out(plan.Plan(steps), context, handlers)


def test_steps_that_do_not_need_each_other_are_made_side_by_side() -> None:
    everybody = threading.Barrier(execution.PARALLEL)
    names = [str(number) for number in range(execution.PARALLEL)]
    carry_out([step(name) for name in names], dict.fromkeys(names, lambda context: everybody.wait(PATIENCE_S) and None))
    assert not everybody.broken


def test_a_step_begins_when_those_it_needs_are_done_and_does_not_wait_for_others() -> None:
    order: list[str] = []
    late = threading.Event()

    def slow(context: execution.Context) -> None:
        assert late.wait(PATIENCE_S), "the step that does not need this one did not begin"
        order.append("slow")

    def second(context: execution.Context) -> None:
        order.append("second")
        late.set()

    handlers: dict[str, Callable[[execution.Context], None]] = {
        "slow": slow,
        "first": lambda context: order.append("first"),
        "second": second,
        "last": lambda context: order.append("last"),
    }
    carry_out([step("slow"), step("first"), step("second", "first"), step("last", "second", "slow")], handlers)
    assert order == ["first", "second", "slow", "last"]


def test_after_a_failure_no_other_step_begins_and_those_under_way_end() -> None:
    failed, begun = threading.Event(), threading.Event()
    order: list[str] = []

    def fail(context: execution.Context) -> None:
        begun.wait(PATIENCE_S)
        failed.set()
        raise ValueError("no")

    def under_way(context: execution.Context) -> None:
        begun.set()
        failed.wait(PATIENCE_S)
        order.append("under way")

    handlers = {"fail": fail, "under way": under_way, "never": lambda context: order.append("never")}
    with pytest.raises(execution.StepFailed, match="create fail") as error:
        carry_out([step("fail"), step("under way"), step("never", "under way", "fail")], handlers)
    assert order == ["under way"] and [done.key for done in error.value.done] == ["create under way"]
