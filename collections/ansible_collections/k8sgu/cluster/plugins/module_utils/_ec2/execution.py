# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carries a plan out: steps that do not depend on each other side by side, each by its handler."""

from __future__ import annotations

import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Callable, Iterable, Mapping, TypeVar

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import session, state
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.plan import Plan, Step

# RunInstances allows two a second for long, with bursts; retries take up what is above.
PARALLEL = 8
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
# How long EC2 and IAM may take to show everywhere what was just made.
CONSISTENCY_S = 120.0

T = TypeVar("T")


class TimedOut(session.AwsError):
    """Something did not come about in time."""


class Context:
    """What handlers work with: clients, the description, ids by reference, and ways of waiting."""

    def __init__(self, aws: session.Aws, description: Description, ids: Mapping[str, str], timeout_s: float) -> None:
        self.aws = aws
        self.description = description
        self.cluster = description.name
        self.timeout_s = timeout_s
        self.stopped = threading.Event()
        self.instances: dict[str, state.Instance] = {}
        # Those that EC2 was told to end and did not refuse to.
        self.ended: set[str] = set()
        self._ids = dict(ids)
        self._lock = threading.Lock()

    @property
    def ec2(self) -> Any:
        return self.aws.client("ec2")

    @property
    def iam(self) -> Any:
        return self.aws.client("iam")

    @property
    def elbv2(self) -> Any:
        return self.aws.client("elbv2")

    def id(self, reference: str) -> str:
        """The id behind a reference ("subnet/public/eu-central-1a"), given or made by an earlier step."""
        with self._lock:
            return self._ids[reference]

    def know(self, reference: str, id: str) -> None:
        with self._lock:
            self._ids[reference] = id

    def until(self, what: str, probe: Callable[[], T | None], timeout_s: float | None = None) -> T:
        """Asks `probe` until it gives something other than None. Raises TimedOut, saying what was waited for."""
        limit = self.timeout_s if timeout_s is None else min(timeout_s, self.timeout_s)
        deadline = time.monotonic() + limit
        pause = FIRST_PAUSE_S
        while True:
            result = probe()
            if result is not None:
                return result
            if self.stopped.is_set():
                raise TimedOut(f"gave up waiting for {what}, since another step failed")
            if time.monotonic() + pause > deadline:
                raise TimedOut(
                    f"waited {limit:.0f} s for {what} in vain; look at it in the account, or give a longer wait_timeout"
                )
            self.stopped.wait(pause)
            pause = min(pause * 2, LONGEST_PAUSE_S)

    def retry(self, what: str, call: Callable[[], T], codes: Iterable[str], timeout_s: float | None = None) -> T:
        """Repeats a call while it fails with one of `codes`, which stand for "not yet". Raises what else it raises."""
        tolerated = frozenset(codes)
        last: list[BaseException] = []

        def probe() -> tuple[T] | None:
            try:
                return (call(),)
            except Exception as error:
                if session.error_code(error) not in tolerated:
                    raise
                last[:] = [error]
                return None

        try:
            return self.until(what, probe, timeout_s)[0]
        except TimedOut as error:
            detail = f" ({last[0]})" if last else ""
            raise TimedOut(f"{error}{detail}") from error

    def gone(self, call: Callable[[], Any], codes: Iterable[str]) -> None:
        """A removal: that the thing is not there any more (`codes`) is what was wanted."""
        try:
            call()
        except Exception as error:
            if session.error_code(error) not in frozenset(codes):
                raise


Handler = Callable[..., None]


class StepFailed(session.AwsError):
    """A step failed; `done` are those that were carried out, in the plan's order."""

    def __init__(self, message: str, done: list[Step]) -> None:
        super().__init__(message)
        self.done = done


def carry_out(plan: Plan, context: Context, handlers: Mapping[str, Handler]) -> None:
    """Carries out all steps.

    When one fails, those under way end, no other begins, and StepFailed says how far it came.
    """
    steps = {step.key: step for step in plan.steps}
    needs = {key: set(step.after) for key, step in steps.items()}
    needed_by: dict[str, list[str]] = {}
    for key, step in steps.items():
        for need in step.after:
            needed_by.setdefault(need, []).append(key)
    ready = [key for key, open_needs in needs.items() if not open_needs]
    done: set[str] = set()
    running: dict[Future[None], Step] = {}
    failure: tuple[Step, BaseException] | None = None
    with ThreadPoolExecutor(max_workers=PARALLEL) as pool:
        try:
            while running or (ready and failure is None):
                for key in ready if failure is None else ():
                    step = steps[key]
                    running[pool.submit(handlers[step.call], context, **step.arguments)] = step
                ready = []
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    step = running.pop(future)
                    error = future.exception()
                    if error is not None:
                        if failure is None or isinstance(failure[1], TimedOut):
                            failure = (step, error)
                        context.stopped.set()
                        continue
                    done.add(step.key)
                    for key in needed_by.get(step.key, ()):
                        needs[key].discard(step.key)
                        if not needs[key]:
                            ready.append(key)
        except BaseException:
            # An interrupt must not have to sit out what is being waited for.
            context.stopped.set()
            raise
    if failure is None:
        return
    step, error = failure
    if not isinstance(error, Exception):
        raise error
    message = session.explain(error, f"{step.action} {step.resource}")
    if isinstance(error, session.AwsError):
        message = f"{step.action} {step.resource}: {error}"
    raise StepFailed(message, [other for other in plan.changes if other.key in done]) from error
