# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings the file of keys on the controller to a step of a rotation, and checks the choice for the nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._encryption import choice as choices
from ansible_collections.k8sgu.cluster.plugins.module_utils._encryption.keys import (
    KeysError,
    parse,
    plan,
    refuse_loss,
    serialize,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._encryption.options import ARGUMENT_SPECS
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import FileError, atomic_write
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module

ERRORS = (KeysError, choices.RecordError, FileError, OSError)


def run(call: Call) -> dict[str, Any]:
    """Changes the file as the options say and returns the module's result. Raises one of ERRORS."""
    options = call.options
    path, state, choice = Path(options["path"]), options["state"], options["choice"]
    before = parse(path.read_text(), str(path)) if path.exists() else []
    record = choices.read(Path(choice["record"])) if choice else None
    needs_no_key = bool(choice) and choice["provider"] == choices.KMS
    # If only a KMS provider wrote so far, the nodes have no key that could be lost.
    if not before and not needs_no_key and (record is None or set(record.reads) != {choices.KMS}):
        refuse_loss(str(path), options["in_use"])
    after, reasons = (before, []) if needs_no_key and state == "present" else plan(before, state)
    names = [[key.name for key in keys] for keys in (before, after)]
    result: dict[str, Any] = {
        "changed": bool(reasons),
        "names": names[1],
        "reasons": reasons,
        "diff": {"before": "\n".join(names[0]) + "\n", "after": "\n".join(names[1]) + "\n", "before_header": str(path)},
    }
    if choice:
        now = choices.wanted(
            choice["provider"], after[0].name if after else "", choice["resources"], choice["kms_endpoint"]
        )
        refused = choices.problems(now, choice["kms_endpoint"], record, choice["servers"])
        if refused:
            raise KeysError("\n".join(refused))
        result["stale"] = now != record
    if reasons and not call.check_mode:
        atomic_write(str(path), serialize(after).encode(), mode=0o600, directory_mode=0o700)
    return result


MODULE = Module(ARGUMENT_SPECS["encryption_keys"], run, ERRORS)
