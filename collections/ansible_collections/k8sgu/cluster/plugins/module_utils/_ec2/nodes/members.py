# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The members of etcd, which are the control-plane nodes: at most one of them is replaced in a run.

What runs after this module joins the new member to etcd; if a second one ended before that, three members would lose
their quorum. Of a cluster that lives any number can be removed in a run: they leave etcd before they end.
https://etcd.io/docs/v3.6/op-guide/runtime-configuration/
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import plan, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.instances import Instance, Terminate
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.launch import Replace

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current


def held_back(description: Description, current: Current, whole: plan.Plan) -> dict[str, Instance]:
    """The members that the whole plan ends and that a later run has to end, by name."""
    if whole.replacements() and not description.allow_replace:
        return {}  # The run is refused, and names every replacement.
    wanted = {node.name for node in whole.nodes if node.role == tags.CONTROL_PLANE}
    there = {
        name: node
        for name, node in current.nodes().items()
        if name in wanted or node.tags.get(tags.ROLE) == tags.CONTROL_PLANE
    }
    replaced = {step.name for step in whole.of(Replace)}
    removed = {step.id for step in whole.of(Terminate)}
    leaving = [name for name, node in there.items() if name in replaced or node.id in removed]
    if not leaving:
        return {}
    down = {name for name, node in there.items() if node.state != "running"}
    coming = wanted - there.keys()
    # A member that is down goes first, since it costs no vote; then those to be replaced, while there are more members;
    # then those to be removed, the highest number first.
    leaving.sort(key=lambda name: (name not in down, name not in replaced, _number(name, name in replaced), name))
    if description.lives and not replaced.intersection(leaving):
        unsure = coming | (down - set(leaving))
        return {name: there[name] for name in leaving if name not in down and unsure}
    first = leaving[0]
    may_go = first in down or not (down | coming)
    return {name: there[name] for name in (leaving[1:] if may_go else leaving)}


def ending(current: Current, made: plan.Plan) -> list[plan.Step]:
    """The steps of a plan that end a control-plane node which is there, running or not."""
    members = {node.name for node in made.nodes if node.role == tags.CONTROL_PLANE}
    there = {
        name: node.id
        for name, node in current.nodes().items()
        if node.tags.get(tags.ROLE) == tags.CONTROL_PLANE or name in members
    }
    return [
        step
        for step in made.steps
        if (isinstance(step, Replace) and step.name in there)
        or (isinstance(step, Terminate) and step.id in there.values())
    ]


def _number(name: str, upwards: bool) -> int:
    found = re.search(r"\d+$", name)
    number = int(found.group()) if found else 0
    return number if upwards else -number


def keep_balancer(description: Description, current: Current, held: Mapping[str, Instance]) -> bool:
    """Whether a load balancer that the description has no more stays: more than one member still uses it, or the
    cluster lives, whose every kubelet and kubeconfig has its address.
    """
    wanted = {pool.node_name(description.name, number) for pool in description.pools for number in range(pool.count)}
    surplus = held.keys() - wanted
    ours = any(tags.cluster_tag(description.name) in balancer.tags for balancer in current.load_balancers)
    return ours and (description.lives or description.control_plane_count + len(surplus) > 1)


def warning(held: Mapping[str, Instance]) -> str:
    return (
        f"{', '.join(sorted(held))}: left as found, since one member of etcd at most is replaced in a run, and none "
        "ends while another is yet to come or does not run; run it again when the control plane is healthy"
    )
