# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The planner: description and current state in, plan out. Pure: no clock, no chance, no API."""

from __future__ import annotations

import dataclasses
from typing import Collection

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import departures, members, state
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.plan import Draft, Facts, Plan
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.plan_access import plan_access
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.plan_balancer import plan_balancer
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.plan_groups import plan_groups
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.plan_network import plan_network, plan_pod_routes
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.plan_nodes import (
    check_twins,
    nodes_wanted,
    plan_nodes,
    replacements,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.plan_removal import plan_removal


def make(
    description: Description,
    current: state.Current,
    facts: Facts,
    removing: bool = False,
    drained: Collection[str] | None = None,
) -> Plan:
    """The steps that turn `current` into what `description` says; with `removing` into nothing.

    With `drained` no worker is replaced whose name is not in it. Raises DescriptionError.
    """
    if removing:
        return _make(Draft(description, current, facts, removing))
    check_twins(current)
    whole = _make(Draft(description, current, facts, removing))
    held = members.held_back(description, current, whole)
    kept = {} if drained is None else departures.kept_back(departures.departures(whole, current), drained)
    if not held and not kept:
        return whole
    if members.keep_balancer(description, current, held):
        description = dataclasses.replace(description, keeps_balancer=True)
    rest = _make(Draft(description, current, facts, removing, {**held, **kept}))
    rest.warnings += [members.warning(held)] if held else []
    rest.warnings += [departures.warning(kept)] if kept else []
    return rest


def _make(draft: Draft) -> Plan:
    plan_network(draft)
    nodes = nodes_wanted(draft)
    draft.replaced = replacements(draft, nodes)
    plan_groups(draft, nodes)
    plan_access(draft)
    plan_nodes(draft, nodes)
    routes = plan_pod_routes(draft, nodes)
    plan_balancer(draft, nodes)
    plan_removal(draft, nodes, routes)
    draft.plan.nodes = nodes
    draft.plan.balanced = draft.description.balanced
    return draft.finished()
