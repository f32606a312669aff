# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The IAM policy that a caller needs for a description: to make the cluster, to change it and to remove it.

Each resource says which permissions it is the reason for, see `grants`. Which actions can be narrowed to tagged
resources:
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html
"""

from __future__ import annotations

import json
from typing import Any, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import PERMISSIONS, Current
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.grants import (
    CHANGE,
    MAKE,
    READ,
    Case,
    Grant,
    Statement,
)

CREATE_TAGS = "ec2:CreateTags"


def _created(case: Case) -> set[str]:
    """The actions that make something and tag it."""
    return {action for grant in PERMISSIONS if grant.tags and grant.when(case) for action in grant.actions}


def _at_creation(case: Case) -> tuple[str, Mapping[str, Any]]:
    # With CreateTags alone anything could be given the tag that allows its removal.
    return "*", {
        "StringEquals": {
            f"aws:RequestTag/{tags.cluster_tag(case.description.name)}": tags.OWNED,
            "ec2:CreateAction": sorted(action.partition(":")[2] for action in _created(case)),
        }
    }


TAG = Statement(
    "TagAtCreation",
    "always",
    "the cluster's tag on what is being made, and on nothing that is there already",
    _at_creation,
)
GRANTS = (
    *PERMISSIONS,
    Grant(TAG, (CREATE_TAGS,)),
    Grant(CHANGE, (CREATE_TAGS,)),
)
# In the order of the document.
STATEMENTS = tuple(dict.fromkeys((READ, MAKE, TAG, CHANGE, *(grant.statement for grant in GRANTS))))

# The calls that tag what they make.
TAGGING = frozenset(action for grant in GRANTS if grant.tags for action in grant.actions)


def document(description: Description, current: Current | None = None) -> dict[str, Any]:
    """The policy document. For `state: absent`, whose description is empty, that of everything there can be.

    What of `current` the description does not have any more has to be removed, and so counts too.
    """
    case = Case(description, current or Current())
    statements = []
    for statement in STATEMENTS:
        actions = {
            action for grant in GRANTS if grant.statement is statement and grant.when(case) for action in grant.actions
        }
        if actions:
            resource, condition = statement.scope(case)
            entry = {"Sid": statement.sid, "Effect": "Allow", "Action": sorted(actions), "Resource": resource}
            statements.append({**entry, "Condition": condition} if condition else entry)
    return {"Version": "2012-10-17", "Statement": statements}


def condition_keys(document: dict[str, Any]) -> set[str]:
    """The context keys that the statements ask for."""
    conditions = [pairs for statement in document["Statement"] for pairs in statement.get("Condition", {}).values()]
    return {key for pairs in conditions for key in pairs}


def as_markdown(whole: Description, usual: Description) -> str:
    """The statements of `whole`, which has everything, as a table, and the document of `usual`."""
    about = {statement.sid: statement for statement in STATEMENTS}
    lines = ["| statement | when | what for | resources | condition | actions |", "|---|---|---|---|---|---|"]
    for statement in document(whole)["Statement"]:
        resources = statement["Resource"]
        listed = resources if isinstance(resources, list) else [resources]
        conditions = [
            f"{operator} `{key}` = "
            + " or ".join(f"`{value}`" for value in ([given] if isinstance(given, str) else given))
            for operator, pairs in statement.get("Condition", {}).items()
            for key, given in pairs.items()
        ]
        cells = [
            f"`{statement['Sid']}`",
            about[statement["Sid"]].when,
            about[statement["Sid"]].why,
            ", ".join(f"`{resource}`" for resource in listed),
            "; ".join(conditions) or "none",
            ", ".join(f"`{action}`" for action in statement["Action"]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    text = json.dumps(document(usual), indent=2)
    return "\n".join(lines) + f"\n\nOf `{usual.name}` in `{usual.region}` with the defaults:\n\n```json\n{text}\n```\n"
