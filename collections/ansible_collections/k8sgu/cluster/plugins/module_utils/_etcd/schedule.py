# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When each member of etcd takes a snapshot by itself. Pure."""

from __future__ import annotations

from typing import Sequence

HOUR, DAY = 60, 24 * 60
# Only these return at the same minutes each day, without a shorter interval at the end of an hour or a day.
INTERVALS = tuple(
    minutes for minutes in range(1, DAY + 1) if HOUR % minutes == 0 or (minutes % HOUR == 0 and DAY % minutes == 0)
)


def calendar(minutes: int, member: str, members: Sequence[str]) -> str:
    """The times at which `member` is to take one every `minutes` (one of INTERVALS), as systemd's OnCalendar.

    The members share the interval evenly, so that one of them has a snapshot that is younger than its part of it, and
    no two write at the same time. https://www.freedesktop.org/software/systemd/man/systemd.time.html
    """
    start = minutes * 60 * sorted(members).index(member) // len(members)
    hour, rest = divmod(start, 3600)
    minute, second = divmod(rest, 60)
    if minutes < HOUR:
        hours, minutes_of_hour = "*", f"{minute:02}/{minutes}"
    else:
        hours = f"{hour:02}/{minutes // HOUR}" if minutes < DAY else f"{hour:02}"
        minutes_of_hour = f"{minute:02}"
    # In UTC, which no daylight saving moves.
    return f"*-*-* {hours}:{minutes_of_hour}:{second:02} UTC"


def problem(minutes: int) -> str:
    """Why snapshots cannot be taken every `minutes`; empty if they can, or if none are wanted (0)."""
    if minutes == 0 or minutes in INTERVALS:
        return ""
    listed = ", ".join(map(str, INTERVALS))
    return f"every {minutes} minutes does not fit into an hour or a day evenly; choose one of {listed}, or 0 for none"
