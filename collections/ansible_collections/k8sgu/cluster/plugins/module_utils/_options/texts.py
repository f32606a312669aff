# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds text options that YAML read as something else: 1234, yes, 2026-01-31, 1.30."""

from __future__ import annotations

import datetime
from typing import Any, Collection, Iterator, Mapping


def text_fault(value: Any) -> str:
    """What is wrong with `value` as text; empty for text and for None.

    Does not show the value: it may be secret, and YAML may have changed it (0644 becomes 420).
    """
    if isinstance(value, bool):
        what = "a truth value (as yes, no, on, off, true and false are)"
    elif isinstance(value, (int, float)):
        what = "a number"
    elif isinstance(value, (datetime.date, datetime.datetime)):
        what = "a date"
    else:
        return ""
    return f"is {what} to YAML, not text; put it in quotes"


def text_faults(
    options: Mapping[str, Any],
    spec: Mapping[str, Mapping[str, Any]],
    numbers: Collection[str] = (),
    prefix: str = "",
) -> Iterator[str]:
    """Every text option of `options`, as the user wrote them, that is not text; `spec` is an argument specification.

    Options in `numbers` may be whole numbers. A module cannot check this: it gets 0644 as the text 420, yes as True.
    """
    for name, value in options.items():
        option = spec.get(name)
        if option is None or (name in numbers and isinstance(value, int) and not isinstance(value, bool)):
            continue
        kind, elements, below = option.get("type", "str"), option.get("elements"), option.get("options")
        items = value if isinstance(value, list) else []
        if kind in ("str", "path"):
            found = [(f"{prefix}{name}", value)]
        elif kind == "list" and elements in ("str", "path"):
            found = [(f"{prefix}{name}[{index}]", item) for index, item in enumerate(items)]
        else:
            found = []
        yield from (f"{where}: {text_fault(item)}" for where, item in found if text_fault(item))
        if below and isinstance(value, Mapping):
            yield from text_faults(value, below, numbers, f"{prefix}{name}.")
        if below:
            for index, item in enumerate(items):
                if isinstance(item, Mapping):
                    yield from text_faults(item, below, numbers, f"{prefix}{name}[{index}].")
