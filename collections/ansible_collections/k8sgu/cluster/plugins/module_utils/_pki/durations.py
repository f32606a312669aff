# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Durations in Go's form, which CFSSL's documents use: https://pkg.go.dev/time#ParseDuration."""

from __future__ import annotations

import re
from datetime import timedelta

from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.errors import PkiError

_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h|d)")
# Go counts nanoseconds in 64 bits.
_LONGEST = timedelta(hours=2562047)


def parse_duration(value: object, option: str, days: bool = False, zero: bool = False) -> timedelta:
    """A positive duration such as `8760h` or `1h30m`.

    days: also allow `60d`, which Go and CFSSL do not know. zero: also allow 0. Raises PkiError that names `option`.
    """
    example = "8760h or 60d" if days else "8760h"
    text = str(value).strip() if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""
    text = text[1:] if text.startswith("+") else text
    if zero and text == "0":  # the one number that needs no unit
        return timedelta(0)
    position = 0
    seconds = 0.0
    while position < len(text):
        part = _PART.match(text, position)
        if not part:
            break
        if part.group(2) == "d" and not days:
            raise PkiError(option, f"{value!r} is in days, which CFSSL does not know; write hours, such as 8760h")
        seconds += float(part.group(1)) * _UNITS_S[part.group(2)]
        position = part.end()
    if not text or position < len(text):
        raise PkiError(option, f"{value!r} is not a duration; write a number with its unit, such as {example}")
    if seconds <= 0 and not zero:
        raise PkiError(option, f"{value!r} must be longer than nothing, such as {example}")
    try:
        duration = timedelta(seconds=seconds)
    except OverflowError:
        duration = timedelta.max
    if duration > _LONGEST:
        raise PkiError(option, f"{value!r} is longer than CFSSL can count; 2562047h is the longest")
    return duration


def format_duration(duration: timedelta) -> str:
    """A duration for messages, in hours, or in minutes if it is short."""
    minutes = int(duration.total_seconds() // 60)
    return f"{minutes // 60}h" if minutes >= 60 else f"{minutes}m"
