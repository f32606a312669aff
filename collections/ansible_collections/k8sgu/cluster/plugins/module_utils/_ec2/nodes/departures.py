# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The nodes that a plan ends.

Between the plan and its execution others take them out of service, without knowing of EC2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Collection

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import plan, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.instances import Instance, Terminate
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.launch import Replace

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current


@dataclass(frozen=True)
class Departure:
    """A node that ends; `returns` is whether a new instance takes its name."""

    instance: Instance
    reason: str
    returns: bool

    def shown(self) -> dict[str, Any]:
        return {
            "name": self.instance.name,
            "role": self.instance.tags.get(tags.ROLE, ""),
            "address": self.instance.private_ip,
            "instance_id": self.instance.id,
            "returns": self.returns,
            "reason": self.reason,
        }


def departures(description: Description, made: plan.Plan, current: Current) -> list[Departure]:
    """Every node that is there and that the plan ends, by name.

    Control-plane nodes are among them if the cluster lives: then they are members of its etcd.
    """
    others = {tags.BASTION} if description.lives else {tags.BASTION, tags.CONTROL_PLANE}
    alive = {node.id: node for node in current.nodes().values()}
    found = [
        Departure(alive[step.id], step.reason, isinstance(step, Replace))
        for step in made.steps
        if isinstance(step, (Terminate, Replace))
        and step.id in alive
        and alive[step.id].tags.get(tags.ROLE) not in others
    ]
    return sorted(found, key=lambda departure: departure.instance.name)


def kept_back(leaving: Collection[Departure], drained: Collection[str]) -> dict[str, Instance]:
    """The nodes that stay as they are in this run, since they would be replaced and are not drained."""
    return {
        departure.instance.name: departure.instance
        for departure in leaving
        if departure.returns and departure.instance.name not in drained
    }


def warning(names: Collection[str]) -> str:
    return f"{', '.join(sorted(names))}: left as found, since not drained; run it again to have the next one replaced"
