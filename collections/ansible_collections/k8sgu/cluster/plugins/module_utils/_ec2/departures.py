# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The workers that a plan ends. What drains them comes between the plan and its execution, and knows of no EC2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Collection

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import plan, state, tags


@dataclass(frozen=True)
class Departure:
    """A worker that ends; `returns` is whether a new instance takes its name."""

    instance: state.Instance
    reason: str
    returns: bool

    def shown(self) -> dict[str, Any]:
        return {
            "name": self.instance.name,
            "instance_id": self.instance.id,
            "returns": self.returns,
            "reason": self.reason,
        }


def departures(made: plan.Plan, current: state.Current) -> list[Departure]:
    """Every worker that there is and that the plan ends, by name: those of one second have no order of their own.

    Control-plane nodes are not among them: what ends one of those is not a matter of its pods, see `members`.
    """
    alive = {node.id: node for node in current.nodes().values()}
    ending = [step for step in made.steps if step.call in ("terminate", "replace")]
    found = [
        Departure(alive[step.arguments["id"]], step.reason, step.call == "replace")
        for step in ending
        if step.arguments["id"] in alive and alive[step.arguments["id"]].tags.get(tags.ROLE) != tags.CONTROL_PLANE
    ]
    return sorted(found, key=lambda departure: departure.instance.name)


def kept_back(leaving: Collection[Departure], drained: Collection[str]) -> dict[str, state.Instance]:
    """The workers that stay as they are in this run, since they would be replaced and are not drained."""
    return {
        departure.instance.name: departure.instance
        for departure in leaving
        if departure.returns and departure.instance.name not in drained
    }


def warning(names: Collection[str]) -> str:
    return f"{', '.join(sorted(names))}: left as found, since not drained; run it again to have the next one replaced"
