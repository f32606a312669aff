# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds variables that no role reads: with a misspelt name the default would silently stay in effect."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Iterable

from ansible.module_utils.common.yaml import yaml_load

PREFIX = "k8sgu_"
# Set by the module node_facts.
FACTS = frozenset({"k8sgu_node"})


def options(roles: Path) -> dict[str, dict[str, Any]]:
    """{name: its option} of every variable of every role, from the argument specs."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(roles.glob("*/meta/argument_specs.yml")):
        for spec in (yaml_load(path.read_text()) or {}).get("argument_specs", {}).values():
            found.update(spec.get("options") or {})
    return found


def derived(roles: Path) -> set[str]:
    """Names with our prefix that roles derive from other variables."""
    names = set(FACTS)
    for path in sorted(roles.glob("*/vars/main.yml")):
        # Only top-level keys are needed, and parsing these long files would be slow.
        lines = (line.partition(":") for line in path.read_text().splitlines() if line.startswith(PREFIX))
        names |= {name for name, colon, _value in lines if colon}
    return names


def check_names(seen: Iterable[str], known: Iterable[str]) -> list[str]:
    """A problem for each name with our prefix that no role has."""
    there = sorted(known)
    problems = []
    for name in sorted({name for name in seen if name.startswith(PREFIX)} - set(there)):
        near = difflib.get_close_matches(name, there, n=1)
        hint = f"did you mean {near[0]}?" if near else "remove it"
        problems.append(f"{name}: there is no such variable; {hint} docs/variables.md lists all")
    return problems
