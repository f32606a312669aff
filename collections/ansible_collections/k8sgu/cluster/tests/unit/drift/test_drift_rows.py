# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node is one row with three columns, by table: what they say in, the row and its holes out."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._drift.rows import Asked, Column, rows

CONTROL, WORKER = "demo-control-plane-0", "demo-worker-0"
DESCRIBED = {CONTROL: "control_plane", WORKER: "worker", "demo-bastion": "bastion"}


def instance(name: str, number: int, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "instance_id": f"i-{number}",
        "state": "running",
        "private_ip": f"10.240.0.{number}",
        "described": True,
        **more,
    }


def node(name: str, number: int, ready: str = "True", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {"providerID": f"aws:///us-east-1a/i-{number}", **spec},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }


def member(name: str, number: int, learner: bool = False) -> dict[str, Any]:
    return {"name": name, "address": f"10.240.0.{number}", "started": bool(name), "learner": learner}


FINE = Asked(
    DESCRIBED,
    Column([instance(CONTROL, 1), instance(WORKER, 2), instance("demo-bastion", 3)]),
    Column([node(CONTROL, 1), node(WORKER, 2)]),
    Column([member(CONTROL, 1)]),
)


def holes(asked: Asked) -> list[tuple[str, str]]:
    return [(hole.kind, hole.where) for row in rows(asked) for hole in row.holes]


def test_whole_rows_are_no_drift() -> None:
    assert holes(FINE) == []
    assert [tuple(row.shown().values()) for row in rows(FINE)] == [
        ("demo-bastion", "running", "-", "-"),
        (CONTROL, "running", "Ready", "voter"),
        (WORKER, "running", "Ready", "-"),
    ]


@pytest.mark.parametrize(
    ("column", "items", "expected"),
    [
        ("instances", [instance(CONTROL, 1)], [("node-without-instance", WORKER)]),
        ("instances", [instance(WORKER, 2)], [("node-without-instance", CONTROL), ("member-without-node", CONTROL)]),
        ("instances", [instance(CONTROL, 1), instance(WORKER, 9)], [("node-of-another-instance", WORKER)]),
        ("nodes", [node(CONTROL, 1)], [("instance-without-node", WORKER)]),
        ("nodes", [node(CONTROL, 1), node(WORKER, 2), node("old", 7)], [("node-without-instance", "old")]),
        # A node that somebody has cordoned, or that is not ready, has no hole.
        ("nodes", [node(CONTROL, 1), node(WORKER, 2, "Unknown", unschedulable=True)], []),
        ("members", [], [("node-without-member", CONTROL)]),
        ("members", [member(CONTROL, 1, learner=True)], [("member-without-vote", CONTROL)]),
        ("members", [member(CONTROL, 1), member("gone", 8)], [("member-without-node", "gone")]),
        ("members", [member(CONTROL, 1), member("", 8, learner=True)], [("member-without-node", "10.240.0.8")]),
        ("members", [member(CONTROL, 7)], [("member-without-node", CONTROL)]),
        ("members", [member(CONTROL, 1), member(WORKER, 2)], [("member-without-node", WORKER)]),
        # One that was just added is known by the node's address.
        ("members", [member("", 1, learner=True)], [("member-without-vote", CONTROL)]),
    ],
)
def test_a_row_with_a_hole_is_drift(column: str, items: list[Any], expected: list[tuple[str, str]]) -> None:
    asked = dataclasses.replace(FINE, **{column: Column(items)})
    found = [entry for entry in holes(asked) if entry[1] != "demo-bastion"]
    assert found == expected


def test_an_instance_that_nobody_described_has_a_row_and_no_hole() -> None:
    """That it is there at all is told by EC2's own comparison."""
    asked = dataclasses.replace(FINE, instances=Column([*FINE.instances.items, instance("stray", 9, described=False)]))
    assert holes(asked) == [] and "stray" in [row.name for row in rows(asked)]


def test_two_instances_of_one_name_have_a_row_each() -> None:
    asked = dataclasses.replace(FINE, instances=Column([*FINE.instances.items, instance(WORKER, 9, state="stopped")]))
    assert {row.name: row.ec2 for row in rows(asked) if row.name.startswith(WORKER)} == {
        WORKER: "running",
        f"{WORKER} (i-9)": "stopped",
    }
    assert holes(asked) == []


@pytest.mark.parametrize("column", ["instances", "nodes", "members"])
def test_a_column_that_did_not_answer_is_unknown_and_makes_no_hole(column: str) -> None:
    asked = dataclasses.replace(FINE, **{column: Column(problem="no answer")})
    shown = {"instances": "ec2", "nodes": "kubernetes", "members": "etcd"}[column]
    assert {row.shown()[shown] for row in rows(asked)} == {"unknown"}
    assert holes(asked) == []
