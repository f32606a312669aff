# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which snapshots there are, which of them serves already, how much room a new one needs, and which go. Pure.

A snapshot's name says all that has to be known to find it: when it was taken, by which etcd, at which revision, and
what for. There is no second file that could be missing or say something else.
"""

from __future__ import annotations

import datetime
import json
import re
from dataclasses import dataclass
from typing import Iterable, Mapping

# Where they are on a member.
DIRECTORY = "/var/lib/k8sgu/snapshots"
# What a member put into the bucket last, which it may not list.
UPLOADED = "/var/lib/k8sgu/uploaded.json"
# What a member's own drill found last.
DRILLED = "/var/lib/k8sgu/restore-drill.json"
# Where one is on its way there from the controller, on the same file system.
INCOMING = "/var/lib/k8sgu/incoming"
# The series of those that each member takes by itself.
BACKUP = "backup"
_WORD = r"[a-z0-9][a-z0-9.+-]*"
_NAME = re.compile(
    rf"(?P<time>\d{{8}}T\d{{6}}Z)_etcd-(?P<version>[0-9][0-9a-z.+-]*)_rev-(?P<revision>\d+)_(?P<series>{_WORD})"
    rf"(?:_(?P<label>{_WORD}))?\.db"
)
TIME = "%Y%m%dT%H%M%SZ"
# What is left to others on the file system, beside a tenth of the snapshot: etcd writes on while it is taken.
_SPARE = 100 * 2**20
MIB = 2**20


@dataclass(frozen=True)
class Snapshot:
    """`taken` is UTC."""

    taken: datetime.datetime
    version: str
    revision: int
    series: str
    label: str = ""

    @property
    def name(self) -> str:
        label = f"_{self.label}" if self.label else ""
        when = self.taken.strftime(TIME)
        return f"{when}_etcd-{self.version}_rev-{self.revision}_{self.series}{label}.db"


def parse(name: str) -> Snapshot | None:
    """The snapshot of this file name; None if it is another file."""
    match = _NAME.fullmatch(name)
    if not match:
        return None
    try:
        taken = datetime.datetime.strptime(match["time"], TIME).replace(tzinfo=datetime.timezone.utc)
    except ValueError:
        return None
    return Snapshot(taken, match["version"], int(match["revision"]), match["series"], match["label"] or "")


def listed(names: Iterable[str]) -> list[Snapshot]:
    """The snapshots among file names, the newest first."""
    found = [snapshot for snapshot in map(parse, names) if snapshot]
    return sorted(found, key=lambda snapshot: (snapshot.taken, snapshot.revision), reverse=True)


def uploaded(text: str) -> dict[str, str]:
    """Of the content of UPLOADED: `name` of the snapshot, and `to`, the place; empty if it cannot be read."""
    try:
        found = json.loads(text)
        return {"name": str(found["name"]), "to": str(found["to"])}
    except (ValueError, LookupError, TypeError):
        return {}


def wrong_word(option: str, word: str) -> str:
    """Why a word cannot be part of a file's name; empty if it can."""
    if re.fullmatch(_WORD, word):
        return ""
    return f"{option}: {word} cannot be part of a file's name; use small letters, digits, and . + - between them"


def serving(found: Iterable[Snapshot], series: str, label: str, now: datetime.datetime, max_age: int) -> list[Snapshot]:
    """Snapshots that make another one needless if they are whole, the newest first.

    Only with a label, since without one each call is for a snapshot of its own. `max_age` is in seconds.
    """
    if not label:
        return []
    oldest = now - datetime.timedelta(seconds=max_age)
    return [one for one in found if one.series == series and one.label == label and oldest <= one.taken <= now]


def with_spare(size: int) -> int:
    """Bytes that have to be free for a snapshot of `size` bytes, or for the data in it."""
    return size + size // 10 + _SPARE


def room(size: int, free: int, directory: str) -> str:
    """Why a snapshot of `size` bytes does not fit where `free` bytes are free; empty if it does."""
    needed = with_spare(size)
    if free >= needed:
        return ""
    return (
        f"etcd's database has {-(-size // MIB)} MiB, so that its snapshot needs {-(-needed // MIB)} MiB with room to "
        f"spare, and {directory} has {free // MIB} MiB free; make room, or name another directory"
    )


def surplus(
    found: Iterable[Snapshot], series: str, keep: int, sizes: Mapping[str, int], free: int, percent: int
) -> list[tuple[Snapshot, str]]:
    """Snapshots of a series, the newest first, that go when the newest has been verified, each with the reason.

    At most `keep` stay, and together they have at most `percent` of the bytes that would be free without them; the
    newest stays in any case. `sizes`: {name: bytes}, the newest's included, beside which `free` bytes are free.
    """
    own = [one for one in found if one.series == series]
    most = (free + sum(sizes[one.name] for one in own)) * percent // 100
    gone: list[tuple[Snapshot, str]] = []
    together = 0
    for number, one in enumerate(own):
        together += sizes[one.name]
        if number >= keep:
            gone.append((one, f"{keep} of {series} are kept"))
        elif number and together > most:
            gone.append(
                (one, f"those of {series} may have {most // MIB} MiB, {percent} % of what is free without them")
            )
    return gone


def age(passed: datetime.timedelta) -> str:
    """As people say it: 90 s, 10 min, 24 h."""
    seconds = max(0, int(passed.total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
