# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a drill has measured, held against what is promised. Pure; nodes judge theirs too."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Any, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import snapshots
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.restore_plan import BUMP
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.snapshots import Snapshot, age

TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True)
class Promised:
    """What a user wants of a restore, in the units of the options."""

    rpo_minutes: float
    rto_seconds: float


@dataclass(frozen=True)
class Measured:
    """`old` and `steps` in seconds; `held` and `then` are keys, the latter of the living etcd at `revision`, or -1."""

    now: datetime.datetime
    snapshot: Snapshot
    promised: Promised
    old: int
    steps: Mapping[str, float]
    revision: int
    held: int
    then: int
    since: int

    @property
    def took(self) -> float:
        return round(sum(self.steps.values()), 2)

    @property
    def restored(self) -> bool:
        """Whether etcd was restored since: a restore puts revisions up by at least this."""
        return self.since >= BUMP

    def problems(self) -> list[str]:
        """Where it falls short, each with the way out."""
        found = []
        if self.old > self.promised.rpo_minutes * 60:
            found.append(
                f"the newest snapshot is {age(self.now - self.snapshot.taken)} old, and at most "
                f"{self.promised.rpo_minutes:g} min may be lost (k8sgu_drill_rpo_minutes): playbooks/verify.yml says "
                "which member takes none"
            )
        if self.took > self.promised.rto_seconds:
            found.append(
                f"the restored etcd served after {self.took:g} s, and may take {self.promised.rto_seconds:g} s "
                "(k8sgu_drill_rto_seconds)"
            )
        if self.then not in (-1, self.held):
            found.append(
                f"the restored etcd has {self.held} keys, and at revision {self.revision} the living one had "
                f"{self.then}"
            )
        return found

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {
            "time": self.now.strftime(TIME),
            "snapshot": self.snapshot.name,
            "rpo": {
                "seconds": self.old,
                "revisions": None if self.restored else self.since,
                "limit_seconds": self.promised.rpo_minutes * 60,
            },
            "rto": {
                "seconds": self.took,
                "steps": dict(self.steps),
                "limit_seconds": self.promised.rto_seconds,
            },
            "keys": {
                "restored": self.held,
                "living": self.then if self.then >= 0 else None,
                "revision": self.revision,
            },
        }

    def lines(self) -> list[str]:
        """For people."""
        each = ", ".join(f"{name} {seconds:g}" for name, seconds in self.steps.items())
        at = f"at revision {self.revision}"
        compared = f"as many as etcd had {at}" if self.then == self.held else at
        return [
            f"lost by a restore now   what was written in the last {age(self.now - self.snapshot.taken)}; "
            + ("etcd was restored since" if self.restored else f"{self.since} revisions"),
            f"etcd serves again       after {self.took:g} s ({each})",
            f"keys                    {self.held}, {compared}"
            + ("; etcd has forgotten how it was then" if self.then < 0 else ""),
        ]


def measured(told: Mapping[str, Any], promised: Promised, now: datetime.datetime) -> Measured:
    """told: what the module etcd_drill returned. Raises ValueError."""
    snapshot = snapshots.parse(str(told["snapshot"]))
    if snapshot is None:
        raise ValueError(f"{told['snapshot']} is no snapshot's name")
    revision = int(told["revision"])
    return Measured(
        now=now,
        snapshot=snapshot,
        promised=promised,
        old=max(0, int((now - snapshot.taken).total_seconds())),
        steps={str(name): float(seconds) for name, seconds in told["steps"].items()},
        revision=revision,
        held=int(told["keys"]),
        then=int(told["living"]["keys"]),
        since=max(0, int(told["living"]["revision"]) - revision),
    )
