# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads and compares version numbers."""

from __future__ import annotations

import re
from typing import Iterable, Tuple

Numbers = Tuple[int, ...]


def numbers(version: str) -> Numbers:
    """The numbers of a version: (22, 4) for `22.04`; empty for a release that has no number yet."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


def three(version: str) -> Numbers:
    """The first three numbers, with zeros for missing ones: (1, 26, 0) for `1.26`."""
    return (*numbers(version), 0, 0, 0)[:3]


def is_release(version: str) -> bool:
    """Whether it is a complete version, as of Kubernetes' releases: `1.36.4` or `v1.36.4`."""
    return bool(re.fullmatch(r"v?\d+\.\d+\.\d+", version))


def nearest(version: str, known: Iterable[str]) -> str:
    """The version in `known` that differs least, first numbers first; the last one if `version` has no number."""
    others = sorted(known, key=three)
    if not numbers(version):
        return others[-1]
    return min(others, key=lambda other: [abs(ours - its) for ours, its in zip(three(version), three(other))])
