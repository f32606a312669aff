# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks units by systemd's exposure level: https://www.freedesktop.org/software/systemd/man/systemd-analyze.html"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.checks import Check

# The records of the module `component`.
RECORDS = Path("/var/lib/k8sgu/component")
_OVERALL = re.compile(r"Overall exposure level for (\S+): ([0-9.]+)")
COMMAND_TIMEOUT_S = 60


def exposures(output: str) -> dict[str, float]:
    """{unit: overall level} in the output of `systemd-analyze security UNIT...`, from 0 (confined) to 10."""
    return {unit: float(level) for unit, level in _OVERALL.findall(output)}


def own_units(records: Path = RECORDS) -> list[str]:
    """The services of the components that were installed here."""
    units = set()
    for record in records.glob("*.json"):
        try:
            units |= set(json.loads(record.read_text())["started_with"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # rollback data of a component, or one that was not healthy yet
    return sorted(unit for unit in units if unit.endswith(".service"))


def check_exposure(limits: dict[str, float], units: list[str], where: str) -> Check:
    """Every unit has a limit and is not more exposed than that; limits of other units are ignored."""
    look = ["systemd-analyze", "security", "--no-pager", *units]
    why = ""
    try:
        done = subprocess.run(look, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
        levels, why = exposures(done.stdout), done.stderr.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        levels, why = {}, str(error)
    above = [unit for unit in units if unit not in limits or levels.get(unit, 10.1) > float(limits[unit])]
    seen = [
        f"{unit} {levels.get(unit, why or 'says nothing')}{'' if unit in limits else ' (no limit)'}" for unit in units
    ]
    return Check(
        "systemd confines the programs",
        bool(units) and not above,
        ", ".join(f"{unit} at most {limits[unit]}" for unit in units if unit in limits)
        or "a limit for each of our units",
        ", ".join(seen) or f"no unit of ours in {RECORDS}",
        where,
        f"systemd-analyze security {' '.join(above or units)}",
    )
