# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which cgroup driver a node gets: the variable of cluster_facts, and where the role upgrade sets it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROLES = Path(__file__).resolve().parents[3] / "roles"
EXPRESSION = yaml.safe_load((ROLES / "cluster_facts" / "vars" / "main.yml").read_text())["k8sgu_cgroup_driver"]


@pytest.mark.parametrize(
    ("has", "pods", "given", "driver"),
    [
        ("", 0, {}, "systemd"),
        ("cgroupfs", 0, {}, "systemd"),
        ("cgroupfs", 3, {}, "cgroupfs"),
        ("systemd", 3, {}, "systemd"),
        ("", 3, {}, "systemd"),
        ("cgroupfs", 3, {"upgrade_node_cgroup_driver": "systemd"}, "systemd"),
    ],
)
def test_a_node_with_pods_keeps_what_they_were_started_with(
    has: str, pods: int, given: dict[str, Any], driver: str
) -> None:
    node = {"membership": {"cgroup_driver": has, "pods": pods}}
    templar = Templar(loader=DataLoader(), variables={"k8sgu_node": node, **given})
    assert templar.template(trust_as_template(EXPRESSION)) == driver


def test_it_changes_on_a_drained_node_and_is_put_back_where_the_node_fails() -> None:
    [block, _uncordon] = yaml.safe_load((ROLES / "upgrade" / "tasks" / "node.yml").read_text())
    drain, stop, change, _prove = block["block"]
    assert drain["k8sgu.cluster.node_drain"]
    assert stop["vars"] == {"upgrade_driver_before": "cgroupfs"}
    assert change["vars"] == {"upgrade_node_cgroup_driver": "systemd"}
    included = [task for task in block["rescue"] if "ansible.builtin.include_tasks" in task]
    stop, back = included
    assert stop["vars"] == {"upgrade_driver_before": "systemd"}
    assert back["ansible.builtin.include_tasks"] == "programs.yml"
    assert "upgrade_node_cgroup_driver" not in back["vars"]


@pytest.mark.parametrize(
    ("status", "before", "fails"),
    [(0, "cgroupfs", False), (1, "cgroupfs", True), (0, "systemd", False), (1, "systemd", False)],
)
def test_pods_that_cannot_be_stopped_keep_no_node_from_its_release_before(
    status: int, before: str, fails: bool
) -> None:
    [task] = yaml.safe_load((ROLES / "upgrade" / "tasks" / "driver.yml").read_text())
    variables = {"upgrade_stopped_pods": {"rc": status}, "upgrade_driver_before": before}
    templar = Templar(loader=DataLoader(), variables=variables)
    assert templar.template(trust_as_template("{{ " + task["failed_when"] + " }}")) is fails
