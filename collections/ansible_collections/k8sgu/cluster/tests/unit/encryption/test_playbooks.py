# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rotation playbook's tasks; otherwise only a run with three control-plane nodes would test them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

PLAYBOOKS = Path(__file__).resolve().parents[7] / "playbooks"
ROLE = "k8sgu.cluster.cluster_facts"
EVERY = "control_plane:etcd:worker"
ROTATION = yaml.safe_load((PLAYBOOKS / "rotate_encryption_key.yml").read_text())


def pattern(play):
    """The pattern of a play's hosts, which a playbook's first play has in a template. Hosts of a plan may be any."""
    if "hostvars.localhost" in play["hosts"]:
        return EVERY
    return play["hosts"].split("'")[3] if "'" in play["hosts"] else play["hosts"]


def reads(play):
    """Whether a play reads its hosts: by the role itself, or by one that depends on it."""
    imported = [task.get("ansible.builtin.import_role", {}).get("name", "") for task in play.get("tasks", [])]
    return ROLE in (play.get("roles") or []) or "k8sgu.cluster.upgrade" in imported


@pytest.mark.parametrize("path", sorted(PLAYBOOKS.glob("*.yml")), ids=lambda path: path.name)
def test_a_play_of_one_node_at_a_time_comes_after_one_that_reads_all(path):
    """How many may restart at once is told by the facts of all of them, which a serial play has not read yet."""
    read = set()
    for play in yaml.safe_load(path.read_text()):
        if "serial" in play:
            assert pattern(play) in read, f"{play['name']}: no play over {pattern(play)} before it without serial"
        elif reads(play) and "hostvars" not in play.get("hosts", ""):
            read.add(pattern(play))


def test_nothing_is_dropped_before_it_is_rewritten_and_proven():
    steps = [
        task[module].get("state", "") if module.endswith("keys") else module.rpartition(".")[2]
        for play in ROTATION
        for task in play.get("tasks", [])
        for module in task
        if module.startswith("k8sgu.cluster.encryption_")
    ]
    assert steps == ["added", "promoted", "encryption_rewrite", "encryption_scan", "dropped"]
    assert all(play.get("any_errors_fatal") for play in ROTATION if pattern(play) != "localhost")
