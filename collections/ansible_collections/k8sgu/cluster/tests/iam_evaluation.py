# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Evaluates whether policy documents allow an action on a resource, including conditions, which moto ignores.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

ALLOWED, IMPLICIT, EXPLICIT = "allowed", "implicitDeny", "explicitDeny"
Context = Mapping[str, "list[str]"]


def decide(documents: Iterable[Mapping[str, Any]], action: str, resource: str, context: Context) -> str:
    found = IMPLICIT
    for statement in statements(documents):
        if not (_concerns(statement, "Action", action, re.IGNORECASE) and _concerns(statement, "Resource", resource)):
            continue
        if all(_holds(operator, pairs, context) for operator, pairs in statement.get("Condition", {}).items()):
            if statement["Effect"] == "Deny":
                return EXPLICIT
            found = ALLOWED
    return found


def missing_keys(documents: Iterable[Mapping[str, Any]], context: Context) -> list[str]:
    """The keys that conditions of the documents use and the context does not have."""
    keys = {key for entry in statements(documents) for pairs in entry.get("Condition", {}).values() for key in pairs}
    return sorted(keys - set(context))


def statements(documents: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [statement for document in documents for statement in _listed(document["Statement"])]


def _listed(given: Any) -> list[Any]:
    return list(given) if isinstance(given, (list, tuple)) else [given]


def _like(pattern: str, text: str, flags: int = 0) -> bool:
    regex = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(regex, text, flags) is not None


def _concerns(statement: Mapping[str, Any], element: str, text: str, flags: int = 0) -> bool:
    if f"Not{element}" in statement:
        return not any(_like(pattern, text, flags) for pattern in _listed(statement[f"Not{element}"]))
    return any(_like(pattern, text, flags) for pattern in _listed(statement[element]))


def _holds(operator: str, pairs: Mapping[str, Any], context: Context) -> bool:
    quantifier, _colon, name = operator.rpartition(":")
    optional = name.endswith("IfExists")
    name = name[: -len("IfExists")] if optional else name
    matches = {
        "StringEquals": lambda value, wanted: value in wanted,
        "StringNotEquals": lambda value, wanted: value not in wanted,
        "StringLike": lambda value, wanted: any(_like(pattern, value) for pattern in wanted),
        "Bool": lambda value, wanted: value.lower() in [entry.lower() for entry in wanted],
        "IpAddress": lambda value, wanted: value in wanted,
    }
    for key, given in pairs.items():
        wanted, values = [str(entry) for entry in _listed(given)], context.get(key)
        if name == "Null":
            if (values is None) != (wanted[0].lower() == "true"):
                return False
            continue
        if values is None:
            # A negated operator holds for a key that is not there, ForAllValues for no values at all.
            if optional or "Not" in name or quantifier == "ForAllValues":
                continue
            return False
        outcomes = [matches[name](value, wanted) for value in values]
        if not (any(outcomes) if quantifier == "ForAnyValue" else all(outcomes)):
            return False
    return True
