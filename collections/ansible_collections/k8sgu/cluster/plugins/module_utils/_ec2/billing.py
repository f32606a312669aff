# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What AWS bills a cluster for. What that costs differs by region, day and contract: https://calculator.aws/."""

from __future__ import annotations

from typing import Any, Iterable

ADDRESS = "public IPv4 address"


def total(parts: Iterable[tuple[str, int]]) -> list[dict[str, Any]]:
    """What is paid for by time, each with its `count`, without traffic. Addresses of all resources are counted last."""
    counts: dict[str, int] = {}
    for what, count in parts:
        counts[what] = counts.get(what, 0) + count
    counts[ADDRESS] = counts.pop(ADDRESS, 0)
    return [{"what": what, "count": count} for what, count in counts.items() if count]
