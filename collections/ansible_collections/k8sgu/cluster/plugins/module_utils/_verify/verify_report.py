# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes all checks of a run to a JUnit file, and gives the verdict."""

from __future__ import annotations

from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._files import FileError, atomic_write
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.checks import (
    failure_text,
    from_dictionaries,
    junit,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.options import ARGUMENT_SPECS


class NotProven(Exception):
    """A check failed, or the file could not be written; `result` has the counts."""

    def __init__(self, message: str, result: dict[str, Any]) -> None:
        super().__init__(message)
        self.result = result


def run(call: Call) -> dict[str, Any]:
    """Writes the file and returns the counts. Raises NotProven."""
    options = call.options
    checks = from_dictionaries(options["checks"])
    failed = sum(not check.passed for check in checks)
    counts = {"passed": len(checks) - failed, "missed": failed}
    if not call.check_mode:
        try:
            atomic_write(options["junit"], junit(checks, options["suite"]), mode=0o644)
        except FileError as error:
            raise NotProven(f"junit: {error}", counts) from error
    if not checks:
        raise NotProven("checks: none was made, so nothing is proven", counts)
    if failed:
        raise NotProven(f"{failed} of {len(checks)} checks failed\n{failure_text(checks)}", counts)
    return {"changed": False, "msg": f"{len(checks)} checks passed", **counts}


MODULE = Module(ARGUMENT_SPECS["verify_report"], run, (NotProven,))
