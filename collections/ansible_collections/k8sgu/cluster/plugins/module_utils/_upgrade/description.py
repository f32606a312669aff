# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gates of one thing at a time: nothing else of the description is changed, and the cluster works. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._upgrade.model import Asked, Gate

# Kinds of drift that a description does not explain: what somebody else has added, which no run of ours would change
# in a way that matters to a node.
ELSEWHERE = ("instance-outside", "volume-left", "rule-added", "route-added", "resource-unknown")


def description(asked: Asked) -> Gate:
    """What the description says beside the version is what is there."""
    return Gate("description", tuple(_differences(asked)), "nothing but the version differs")


def _differences(asked: Asked) -> Iterator[str]:
    yield from asked.description
    if asked.infrastructure.get("msg") and "differences" not in asked.infrastructure:
        yield f"EC2 could not be compared with the description: {asked.infrastructure['msg']}"
    for item in asked.infrastructure.get("differences") or ():
        if item["kind"] not in ELSEWHERE:
            yield (
                f"{item['where']}: {item['kind']}: {item['expected']} is described, and there is {item['seen']}; one "
                "thing at a time: put the description back, or run site.yml before the upgrade"
            )


def verify(asked: Asked) -> Gate:
    """Every check of playbooks/verify.yml passed that was made."""
    failed = [item for item in asked.verify if not (isinstance(item, Mapping) and item.get("passed"))]
    return Gate("verify", tuple(_failed(item) for item in failed), "no check of verify failed")


def _failed(item: Any) -> str:
    if not isinstance(item, Mapping):
        return f"verify: {item}"
    where = f" ({item['where']})" if item.get("where") else ""
    look = f"; look: {item['look']}" if item.get("look") else ""
    return f"verify: {item['name']}{where}: expected {item.get('expected')}, seen {item.get('seen')}{look}"
