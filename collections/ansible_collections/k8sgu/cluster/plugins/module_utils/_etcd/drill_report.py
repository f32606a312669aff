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
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import snapshots
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.restore_plan import BUMP
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.snapshots import age

_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Promised:
    """What a user wants of a restore, in the units of the options."""

    rpo_minutes: float
    rto_seconds: float


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
    snapshot = snapshots.parse(str(told["snapshot"]))
    if snapshot is None:
        raise ValueError(f"{told['snapshot']} is no snapshot's name")
    old = max(0, int((now - snapshot.taken).total_seconds()))
    steps = {str(name): float(seconds) for name, seconds in told["steps"].items()}
    took = round(sum(steps.values()), 2)
    held, then, at = int(told["keys"]), int(told["living"]["keys"]), int(told["revision"])
    since = max(0, int(told["living"]["revision"]) - at)
    # A restore puts revisions up by at least this.
    restored = since >= BUMP
    secret = str(told["secret"]["key"])
    sealed = _sealed(told["secret"], key_file)
    problems = []
    if old > promised.rpo_minutes * 60:
        problems.append(
            f"the newest snapshot is {age(now - snapshot.taken)} old, and at most {promised.rpo_minutes:g} min may be "
            "lost (k8sgu_drill_rpo_minutes): playbooks/verify.yml says which member takes none"
        )
    if took > promised.rto_seconds:
        problems.append(
            f"the restored etcd served after {took:g} s, and may take {promised.rto_seconds:g} s "
            "(k8sgu_drill_rto_seconds)"
        )
    if then not in (-1, held):
        problems.append(f"the restored etcd has {held} keys, and at revision {at} the living one had {then}")
    if sealed:
        problems.append(
            f"the Secret {secret} could not be read after a restore: {sealed}. Put secrets/encryption-keys.json of the "
            "state directory back from a backup of it"
        )
    document = {
        "time": now.strftime(_TIME),
        "node": node,
        "snapshot": snapshot.name,
        "rpo": {"seconds": old, "revisions": None if restored else since, "limit_seconds": promised.rpo_minutes * 60},
        "rto": {"seconds": took, "steps": steps, "limit_seconds": promised.rto_seconds},
        "keys": {"restored": held, "living": then if then >= 0 else None, "revision": at},
        "secret": {"key": secret, "opens": not sealed} if secret else None,
        "last_restore": dict(last_restore) or None,
        "problems": problems,
    }
    each = ", ".join(f"{name} {seconds:g}" for name, seconds in steps.items())
    compared = f"as many as etcd had at revision {at}" if then == held else f"at revision {at}"
    lines = [
        f"{snapshot.name} on {node}",
        f"lost by a restore now   what was written in the last {age(now - snapshot.taken)}; "
        + ("etcd was restored since" if restored else f"{since} revisions"),
        f"etcd serves again       after {took:g} s ({each})",
        f"keys                    {held}, {compared}" + ("; etcd has forgotten how it was then" if then < 0 else ""),
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
