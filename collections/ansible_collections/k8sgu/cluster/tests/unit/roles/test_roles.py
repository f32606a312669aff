# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every role has, and what the roles' files do to their units."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster.ports import PORTS

ROLES = sorted((Path(__file__).resolve().parents[3] / "roles").iterdir())


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_a_role_is_explained(role: Path) -> None:
    text = (role / "README.md").read_text()
    assert text.startswith(f"# {role.name}\n")
    # How it is run, or how to look at what it shows.
    assert "playbooks/" in text or "\n    ansible" in text
    assert yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]


def test_only_modules_and_settings_restart_the_kernels_unit() -> None:
    """The names in /etc/hosts change on every node when a node joins."""
    role = next(role for role in ROLES if role.name == "node")
    components: list[dict[str, Any]] = yaml.safe_load((role / "vars" / "main.yml").read_text())["node_components"]
    restarting = [
        file["dest"] for each in components if "unit" in each for file in each["files"] if file.get("restart", True)
    ]
    assert restarting == ["/etc/modules-load.d/90-k8sgu.conf", "/etc/sysctl.d/90-k8sgu.conf"]


def test_the_apis_port_is_the_port_tables() -> None:
    facts = next(role for role in ROLES if role.name == "cluster_facts") / "vars" / "main.yml"
    [row] = [row for row in PORTS if row.name == "api"]
    assert yaml.safe_load(facts.read_text())["cluster_facts_api_port"] == row.first == row.last


# With their operand, in which no parenthesis is nested deeper than the second level.
SET_FILTER = re.compile(
    r"\|\s*(?:union|intersect|difference|symmetric_difference)\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)"
)


def unordered(text: str) -> list[str]:
    return [
        text[found.start() : found.end() + 20]
        for found in SET_FILTER.finditer(text)
        if not re.match(r"\s*(\|\s*(sort|length)\b|== \[\])", text[found.end() :])
    ]


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_what_a_set_filter_gives_is_sorted(role: Path) -> None:
    """Ansible's set filters give another order in every run: a flag made from one would restart a healthy program.

    https://docs.ansible.com/ansible/latest/playbook_guide/playbooks_filters.html#selecting-from-sets-or-lists-set-theory
    """
    files = [path for path in role.rglob("*") if path.suffix in {".yml", ".j2"} and path.parent.name != "meta"]
    assert {path.name: found for path in files if (found := unordered(path.read_text()))} == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{{ a | difference([b]) | map('c') }}", 1),
        ("{{ a | union(b | map('c', d(e))) | first }}", 1),
        ("{{ a | union(b | map('c', d(e))) | sort }}", 0),
        ("{{ a | intersect(b) == [] }}", 0),
    ],
)
def test_an_unsorted_set_is_seen(text: str, found: int) -> None:
    assert len(unordered(text)) == found
