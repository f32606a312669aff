# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a drill says of a restore: how much would be lost, and how long it would take. Pure, on the controller."""

from __future__ import annotations

import base64
import datetime
from dataclasses import dataclass, field
from typing import Any, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._encryption import keys, opening
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.drill_result import Promised, measured


@dataclass(frozen=True)
class Report:
    """`document` is for programs, `lines` for people; `problems` are why the drill fails."""

    document: dict[str, Any]
    lines: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def report(
    node: str,
    told: Mapping[str, Any],
    key_file: str,
    promised: Promised,
    last_restore: Mapping[str, Any],
    now: datetime.datetime,
) -> Report:
    """told: what the module etcd_drill returned. key_file: content of the file of keys; empty if there is none.

    last_restore: what playbooks/restore.yml left of its last run; empty if there was none. Raises ValueError.
    """
    found = measured(told, promised, now)
    secret = str(told["secret"]["key"])
    sealed = _sealed(told["secret"], key_file)
    problems = found.problems()
    if sealed:
        problems.append(
            f"the Secret {secret} could not be read after a restore: {sealed}. Put secrets/encryption-keys.json of the "
            "state directory back from a backup of it"
        )
    document = {
        **found.document(),
        "node": node,
        "secret": {"key": secret, "opens": not sealed} if secret else None,
        "last_restore": dict(last_restore) or None,
        "problems": problems,
    }
    lines = [
        f"{found.snapshot.name} on {node}",
        *found.lines(),
        f"Secret                  {_shown(secret, sealed)}",
        f"last restore            {_last(last_restore)}",
    ]
    return Report(document, lines, problems)


def _sealed(secret: Mapping[str, Any], key_file: str) -> str:
    """Why the Secret cannot be read after a restore; empty if it can, or there is none."""
    value = base64.b64decode(secret["value"])
    if not value:
        return ""
    try:
        known = keys.parse(key_file, "secrets/encryption-keys.json") if key_file else []
    except keys.KeysError:
        return "secrets/encryption-keys.json is not a file of encryption keys"
    return opening.problem(value, known)


def _shown(secret: str, sealed: str) -> str:
    if not secret:
        return "there is none"
    return f"{secret}: {sealed}" if sealed else f"{secret} can be read"


def _last(restore: Mapping[str, Any]) -> str:
    """The last one that was made from here, from its first step to verify's last check."""
    if not restore:
        return "none from here: how long a whole one takes was not measured"
    part = "" if restore["whole"] else "; it was cut off before, and that is its last part"
    return f"{restore['seconds']} s until all was verified, on {restore['finished']}, with {restore['snapshot']}{part}"
