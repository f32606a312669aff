# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of workload_restart."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, Mapping, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.client import Client
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.kubeconfig import load
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module
from ansible_collections.k8sgu.cluster.plugins.module_utils._restart import plan as plans
from ansible_collections.k8sgu.cluster.plugins.module_utils._restart.options import ARGUMENT_SPEC
from ansible_collections.k8sgu.cluster.plugins.module_utils._restart.work import NotRestarted, Workloads

# A workload is not complete for some seconds after a node was restarted or a pod moved; if it stays so, it is refused.
SETTLE_S = 30.0
PAUSE_S = 2.0
SHOWN = 10


class RestartError(KubernetesError):
    """An error with the part of the result that is known."""

    def __init__(self, message: str, result: dict[str, Any]) -> None:
        super().__init__(message)
        self.result = result


def run(call: Call) -> dict[str, Any]:
    """Restarts what is due. Raises KubernetesError, or RestartError if part of the result is known."""
    options = call.options
    _check(options)
    with contextlib.closing(Client(load(options["kubeconfig"], None), options["request_timeout"])) as client:
        workloads = Workloads(client, options["mark"], options["timeout"])
        made = _plan(workloads, options, 0 if call.check_mode else SETTLE_S)
        lines = made.lines()
        after = "".join(f"{line}\n" for line in lines)
        result = {
            "changed": any(not step.marked for step in made.steps),
            "plan": lines,
            "restarted": [step.key for step in made.steps],
            "left": [{"pod": left.pod, "why": left.why} for left in made.left],
            "diff": {"before_header": "workloads", "after_header": "plan", "before": "", "after": after},
        }
        if made.unhealthy:
            raise RestartError(plans.refusal(made.unhealthy), {**result, "changed": False, "restarted": []})
        if not call.check_mode:
            _carry_out(workloads, made, call, result)
    return result


def _check(options: Mapping[str, Any]) -> None:
    for name in ("batch", "timeout", "request_timeout"):
        if options[name] < 1:
            what = "workloads at a time are none" if name == "batch" else "seconds are too few"
            raise KubernetesError(f"{name}: {options[name]} {what}; give at least 1")
    if not options["mark"].strip():
        raise KubernetesError(
            "mark: is empty; give what tells this restart from others, such as a digest of what is new"
        )
    for number, name in enumerate(options["ignore"]):
        parts = name.split("/")
        if len(parts) not in (2, 3) or not all(parts) or (len(parts) == 3 and parts[0] not in plans.RESOURCES):
            kinds = ", ".join(plans.RESOURCES)
            raise KubernetesError(
                f"ignore[{number}]: {name!r} names no workload; give namespace/name, or kind/namespace/name, with "
                f"a kind of {kinds}"
            )


def _plan(workloads: Workloads, options: Mapping[str, Any], patience_s: float) -> plans.Plan:
    """The plan, once everything in it is healthy, or after so many seconds."""
    deadline = time.monotonic() + patience_s
    while True:
        made = plans.plan(workloads.read(), options["mark"], options["ignore"])
        if not made.unhealthy or time.monotonic() >= deadline:
            return made
        time.sleep(PAUSE_S)


def _carry_out(workloads: Workloads, made: plans.Plan, call: Call, result: dict[str, Any]) -> None:
    """Restarts a batch at a time. After a failure those that are begun are waited for, and no other is begun."""
    done: list[str] = []
    faults: dict[str, KubernetesError] = {}
    with ThreadPoolExecutor(max_workers=call.options["batch"]) as pool:
        running = {pool.submit(workloads.restart, step): step for step in made.steps}
        for future in as_completed(running):
            step, error = running[future], future.exception()
            if isinstance(error, KubernetesError):
                faults[step.key] = error
            elif error is not None:
                raise error
            elif future.result():
                done.append(step.key)
                call.say(f"{step.key} is restarted, {len(done)} of {len(made.steps)}")
    result.update(changed=bool(workloads.changed), restarted=sorted(done))
    if faults:
        waiting = [step.key for step in made.steps if step.key not in workloads.begun]
        raise RestartError(_failure(faults, waiting), result)


def _failure(faults: Mapping[str, KubernetesError], waiting: Sequence[str]) -> str:
    lines = [str(faults[key]) for key in sorted(faults)]
    if waiting:
        more = f" and {len(waiting) - SHOWN} more" if len(waiting) > SHOWN else ""
        lines.append(f"Not begun: {', '.join(waiting[:SHOWN])}{more}")
    if any(isinstance(error, NotRestarted) for error in faults.values()):
        names = ", ".join(sorted(key.partition("/")[2] for key in faults))
        lines.append(
            "Old pods go on serving where the strategy of their workload lets them. Correct it and run it again, which "
            f"goes on from here; or leave it out with ignore: [{names}]"
        )
    else:
        lines.append("Run it again, which goes on from here")
    return "\n".join(lines)


MODULE = Module(ARGUMENT_SPEC, run, (KubernetesError,))
