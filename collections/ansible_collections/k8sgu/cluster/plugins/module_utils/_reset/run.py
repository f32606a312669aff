# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of node_reset."""

# Paths are text here, as in the record.
# ruff: noqa: PTH112, PTH123, PTH208

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._component import origin as origins
from ansible_collections.k8sgu.cluster.plugins.module_utils._component import record as records
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import ComponentError
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.origin import HOME, Origin
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.undo import PathState
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import remove_file
from ansible_collections.k8sgu.cluster.plugins.module_utils._node.membership import OWNER, owner
from ansible_collections.k8sgu.cluster.plugins.module_utils._reset import node
from ansible_collections.k8sgu.cluster.plugins.module_utils._reset import plan as plans
from ansible_collections.k8sgu.cluster.plugins.module_utils._reset.apply import Application, remove_tree

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call

# Compiled code of modules, which any playbook leaves, and which is no work for a reset by itself.
_COMPILED = "python"


def run(call: Call) -> dict[str, Any]:
    """The module's result. Raises ComponentError."""
    if os.geteuid() != 0:
        raise ComponentError("node_reset: needs root on the node; set become: true")
    if call.check_mode:
        return _run(call)
    with records.locked(call.options["lock_timeout"]):
        result = _run(call)
    if not result.get("failed"):
        remove_file(records.LOCK)
    return result


def _run(call: Call) -> dict[str, Any]:
    origin = _origin(call.options["cluster"])
    if origin is None:
        _forget_compiled(call.check_mode)
        return {"changed": False, "steps": [], "stays": []}
    plan = plans.plan(origin, node.read(origin))
    result: dict[str, Any] = {
        "changed": bool(plan.steps),
        "steps": [str(step) for step in plan.steps],
        "stays": plan.stays,
    }
    if call.diff:
        lines = [*result["steps"], *(f"leave {reason}" for reason in plan.stays)]
        result["diff"] = {"before": "", "after": "".join(f"{line}\n" for line in lines)}
    if not call.check_mode:
        _carry_out(origin, plan, result)
    return result


def _carry_out(origin: Origin, plan: plans.Plan, result: dict[str, Any]) -> None:
    # From here on what read our files has to read once more, also if this run is killed between the two.
    origin.resetting = True
    origins.write(origin)
    first = Application(origin, plan)
    first.still()
    work = Application(origin, plans.plan(origin, node.read(origin)))
    work.clear()
    now = node.read(origin)
    after = plans.plan(origin, now)
    again = {step.target for step in after.of(plans.START)}
    left = [
        str(step)
        for step in after.steps
        if step.kind not in (plans.COMMAND, plans.START, plans.LAST_REMOVE)
        and not (step.kind in (plans.STOP, plans.END) and step.target in again)
    ]
    result["stays"] = after.stays + plans.still_there(origin, now)
    if not left and not work.failures:
        work.finish()
    if left or work.failures:
        told = "\n".join(
            f"- {line}"
            for line in dict.fromkeys([*first.failures, *work.failures, *(f"still to do: {s}" for s in left)])
        )
        result.update(
            failed=True,
            msg=f"Not everything could be taken back. Everything else was, and the next run goes on here:\n{told}",
        )


def _origin(cluster: str) -> Origin | None:
    """The record, if there is anything of ours. Raises ComponentError for a node that is another cluster's."""
    try:
        with open("/" + OWNER, encoding="utf-8") as stream:
            known = owner(stream.read())
    except OSError:
        known = {}
    if known and known.get("cluster") != cluster:
        raise ComponentError(
            f"cluster: this node belongs to the cluster {known.get('cluster')!r}, not to {cluster!r} (/{OWNER}), and "
            "nothing was changed; run this with that cluster's inventory"
        )
    origin = origins.read()
    if origin is not None:
        # What an installation has brought that was cut off; written with the rest before the first step.
        origins.end_installation(origin)
        # It is not in itself.
        origin.paths[HOME] = PathState()
        origin.whole = [*(path for path in origin.whole if path != HOME), HOME]
        return origin
    if known:
        raise ComponentError(
            f"{origins.PATH}: this node was built before k8sgu recorded what was there before it. Run site.yml once, "
            "which records what it owns, then this again; packages that came with k8sgu stay on such a node"
        )
    return None


def _forget_compiled(check_mode: bool) -> None:
    if check_mode or not os.path.isdir(HOME):
        return
    if set(os.listdir(HOME)) <= {_COMPILED}:
        remove_tree(HOME)
