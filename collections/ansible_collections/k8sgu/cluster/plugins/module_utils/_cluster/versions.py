# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How version numbers are read and compared."""

from __future__ import annotations

import re
from typing import Iterable, Tuple

Numbers = Tuple[int, ...]


def numbers(version: str) -> Numbers:
    """The numbers of a version, such as (22, 4) of `22.04`; none of a release that has no number yet."""
    return tuple(int(number) for number in re.findall(r"\d+", version))


def three(version: str) -> Numbers:
    """The first three numbers, with zeros in the place of what is left out: (1, 26, 0) of `1.26`."""
    return (*numbers(version), 0, 0, 0)[:3]


def is_release(version: str) -> bool:
    """Whether it is whole, as Kubernetes' releases are: `1.36.4` or `v1.36.4`."""
    return bool(re.fullmatch(r"v?\d+\.\d+\.\d+", version))


def nearest(version: str, known: Iterable[str]) -> str:
    """The one of `known` that differs least, the first numbers counting most; the last where there is no number."""
    others = sorted(known, key=three)
    if not numbers(version):
        return others[-1]
    return min(others, key=lambda other: [abs(ours - its) for ours, its in zip(three(version), three(other))])
