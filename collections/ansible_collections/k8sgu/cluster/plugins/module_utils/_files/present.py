# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""States that an earlier step has ensured that a value is not None; unlike assert, also under python -O."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def present(value: T | None, because: str) -> T:
    """`value`, which cannot be None because of the reason. Raises AssertionError, a bug, if it is."""
    if value is None:
        raise AssertionError(because)
    return value
