# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of playbooks and roles: no option of Ansible changes where, and as which user, a task runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[7]
PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))
TASK_FILES = sorted((ROOT / "collections/ansible_collections/k8sgu/cluster/roles").glob("*/tasks/*.yml"))
# What a part of the nodes would be told of, or done to, as if it were all of them.
WHOLE = {
    "backup",
    "destroy",
    "drift",
    "etcd_capacity",
    "etcd_maintenance",
    "open_backup",
    "restore",
    "restore_drill",
    "rotate_ca",
    "rotate_encryption_key",
    "security_report",
}


# What works without a node: before there is one, and when there is none any more.
NO_NODES = {
    "artifacts": "any",
    "client_tools": "any",
    "destroy": "any",
    "open_backup": "any",
    "description": "groups",
    "drift": "groups",
}


def plays(path: Path) -> list[dict[str, Any]]:
    return [play for play in yaml.safe_load(path.read_text()) if "hosts" in play]


def every_task(tasks: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for task in tasks:
        yield task
        for part in ("block", "rescue", "always"):
            yield from every_task(task.get(part) or [])


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
def test_a_playbook_first_asks_how_it_was_called(path: Path) -> None:
    first = yaml.safe_load(path.read_text())[0]
    if "hosts" in first:
        assert first["hosts"].startswith("{{ query('k8sgu.cluster.hosts', '"), first["name"]
        assert first["hosts"].endswith(", limit=false) }}") == (path.stem in WHOLE)
        wanted = re.search(r"inventory=(?:\w+ \| default\()?'(.*?)'", first["hosts"])
        assert (wanted[1] if wanted else "nodes") == NO_NODES.get(path.stem, "nodes")
    else:
        assert path.with_name(first["ansible.builtin.import_playbook"]) in PLAYBOOKS


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
def test_a_play_is_independent_of_become_and_gathering(path: Path) -> None:
    for play in plays(path):
        assert play["gather_facts"] is False, play["name"]
        if play["hosts"] == "localhost" or "'localhost'" in play["hosts"]:
            assert (play.get("connection"), play.get("become")) == ("local", False), play["name"]


def test_what_is_done_on_the_controller_is_never_done_as_root() -> None:
    delegated = [
        (path.parent.parent.name, task)
        for path in TASK_FILES
        for task in every_task(yaml.safe_load(path.read_text()))
        if task.get("delegate_to") == "localhost"
    ]
    assert len(delegated) >= 8
    assert [(role, task["name"]) for role, task in delegated if task.get("become") is not False] == []
