# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks the description of a cluster and its nodes; reports all problems at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module
from ansible_collections.k8sgu.cluster.plugins.module_utils._preflight.check import check
from ansible_collections.k8sgu.cluster.plugins.module_utils._preflight.options import ARGUMENT_SPECS


class Problems(Exception):
    """Problems to correct before anything is changed."""


def run(call: Call) -> dict[str, Any]:
    """Raises Problems."""
    options = call.options
    problems = check(
        options["values"],
        options["seen"],
        options["nodes"],
        options["port_table"],
        Path(options["roles_dir"]),
        options["described"],
        options["living"],
    )
    if problems:
        # Only the message: Ansible shows the whole result, so a list would show everything twice.
        count = f"{len(problems)} problem{'' if len(problems) == 1 else 's'}"
        text = "\n".join(f"- {problem}" for problem in problems)
        raise Problems(f"{count}, and nothing was changed:\n{text}")
    return {"changed": False}


MODULE = Module(ARGUMENT_SPECS["preflight_description"], run, (Problems,))
