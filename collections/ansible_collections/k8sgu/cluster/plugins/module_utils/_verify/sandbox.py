# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How exposed systemd finds its units: https://www.freedesktop.org/software/systemd/man/systemd-analyze.html"""

from __future__ import annotations

import re
import subprocess

from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.checks import Check

_OVERALL = re.compile(r"Overall exposure level for \S+: ([0-9.]+)")
COMMAND_TIMEOUT_S = 60


def exposure(output: str) -> float | None:
    """The overall level of `systemd-analyze security UNIT`, from 0 (confined) to 10; None where it says none."""
    found = _OVERALL.search(output)
    return float(found.group(1)) if found else None


def check_exposure(limits: dict[str, float], where: str) -> Check:
    """Every unit of `limits` is at most as exposed as it says there."""
    above, seen = [], []
    for unit, limit in sorted(limits.items()):
        look = ["systemd-analyze", "security", "--no-pager", unit]
        try:
            done = subprocess.run(look, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
            level = exposure(done.stdout)
        except (OSError, subprocess.TimeoutExpired) as error:
            level, done = None, subprocess.CompletedProcess(look, 1, "", str(error))
        seen.append(f"{unit} {level if level is not None else done.stderr.strip() or 'says nothing'}")
        if level is None or level > float(limit):
            above.append(unit)
    return Check(
        "systemd confines the programs",
        not above,
        ", ".join(f"{unit} at most {limit}" for unit, limit in sorted(limits.items())),
        ", ".join(seen),
        where,
        f"systemd-analyze security {' '.join(above or sorted(limits))}",
    )
