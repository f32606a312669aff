# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which nodes a plan ends, and that none is replaced before it is drained."""

from __future__ import annotations

import dataclasses

import pytest
from test_ec2_plan import FACTS, description, finished, instance, pool

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import cluster, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.departures import departures
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.instances import Terminate
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.launch import Replace

BIG = {"instance_type": "m5.xlarge"}
CONTROL_PLANE = pool("control_plane", 1)
BIG_WORKERS = description(pools=(CONTROL_PLANE, pool("workers", 2, **BIG)), allow_replace=True)
EVERYTHING_BIG = description(pools=(pool("control_plane", 1, **BIG), pool("workers", 2, **BIG)), allow_replace=True)


def with_pool() -> Current:
    """An account with a worker of a pool of its own, too."""
    current = finished()
    current.instances.append(instance("demo-gpu-0", 7, tags.WORKER, "gpu"))
    return current


def changed(**more: object) -> Current:
    current = finished()
    current.instances = [
        dataclasses.replace(node, **more) if node.name == "demo-worker-1" else node for node in current.instances
    ]
    return current


TABLE: list[tuple[str, Description, Current, list[tuple[str, bool]]]] = [
    ("nothing", description(), finished(), []),
    ("fewer workers", description(1), finished(), [("demo-worker-1", False)]),
    ("no workers", description(0), finished(), [("demo-worker-0", False), ("demo-worker-1", False)]),
    ("a pool less", description(), with_pool(), [("demo-gpu-0", False)]),
    ("another type", BIG_WORKERS, finished(), [("demo-worker-0", True), ("demo-worker-1", True)]),
    ("not the control plane", EVERYTHING_BIG, finished(), [("demo-worker-0", True), ("demo-worker-1", True)]),
    ("but that of a living cluster", dataclasses.replace(EVERYTHING_BIG, lives=True), finished(),
     [("demo-control-plane-0", True), ("demo-worker-0", True), ("demo-worker-1", True)]),
    ("one that is stopped too", description(1), changed(state="stopped"), [("demo-worker-1", False)]),
    ("not one that is gone", description(1), changed(state="terminated"), []),
    ("not one on its way", description(1), changed(state="shutting-down"), []),
    ("one without a role", description(1), changed(tags={**finished().instances[2].tags, tags.ROLE: ""}),
     [("demo-worker-1", False)]),
]  # fmt: skip


@pytest.mark.parametrize(("case", "given", "current", "expected"), TABLE, ids=[row[0] for row in TABLE])
def test_who_leaves(case: str, given: Description, current: Current, expected: list[tuple[str, bool]]) -> None:
    found = departures(given, cluster.make(given, current, FACTS), current)
    assert [(departure.instance.name, departure.returns) for departure in found] == expected
    ids = {node.name: node.id for node in current.instances}
    assert all(departure.shown()["instance_id"] == ids[departure.instance.name] for departure in found)


@pytest.mark.parametrize("drained", [[], ["demo-worker-0"], ["demo-worker-0", "demo-worker-1"]])
def test_what_is_not_drained_is_not_replaced(drained: list[str]) -> None:
    made = cluster.make(BIG_WORKERS, finished(), FACTS, drained=drained)
    assert [step.name for step in made.of(Replace)] == drained
    left = sorted({"demo-worker-0", "demo-worker-1"} - set(drained))
    assert [warning.partition(":")[0] for warning in made.warnings] == ([", ".join(left)] if left else [])
    assert [node.name for node in made.nodes] == ["demo-control-plane-0", "demo-worker-0", "demo-worker-1"]


@pytest.mark.parametrize("lives", [False, True])
def test_what_is_held_back_of_the_control_plane_and_of_workers_goes_together(lives: bool) -> None:
    pools = (pool("control_plane", 3, **BIG), pool("workers", 2, **BIG))
    given = description(pools=pools, allow_replace=True, lives=lives)
    current = finished()
    current.instances += [
        instance(f"demo-control-plane-{number}", 9 + number, tags.CONTROL_PLANE, "control_plane") for number in (1, 2)
    ]
    made = cluster.make(given, current, FACTS, drained=["demo-control-plane-0", "demo-worker-1"])
    assert [step.name for step in made.of(Replace)] == ["demo-control-plane-0", "demo-worker-1"]
    assert [warning.partition(":")[0] for warning in made.warnings] == [
        "demo-control-plane-1, demo-control-plane-2",
        "demo-worker-0",
    ]


def test_a_removal_is_never_held_back_by_the_plan() -> None:
    made = cluster.make(description(1), finished(), FACTS, drained=[])
    assert [step.resource for step in made.of(Terminate)] == ["instance/demo-worker-1"]
    assert made.warnings == []


def test_nothing_is_asked_when_everything_is_removed() -> None:
    everything = cluster.make(description(), finished(), FACTS, removing=True)
    assert len(everything.of(Terminate)) == 3
