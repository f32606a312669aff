# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an earlier step has made sure of, said where it is relied on; unlike an assert it holds under python -O."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def present(value: T | None, because: str) -> T:
    """`value`, which is not None for the reason given. Raises AssertionError, a fault of the program, where it is."""
    if value is None:
        raise AssertionError(because)
    return value
