"""Decides by policy documents of IAM and of buckets, with their conditions, which moto ignores.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

ALLOWED, IMPLICIT, EXPLICIT = "allowed", "implicitDeny", "explicitDeny"
# What is known of a request: {condition key: values}.
Context = Mapping[str, "list[str]"]
Test = Callable[[str, "list[str]"], bool]

_VARIABLE = re.compile(r"\$\{([^}]*)\}")


def decide(
    documents: Iterable[Mapping[str, Any]],
    action: str,
    resource: str,
    context: Context,
    principals: Collection[str] | None = None,
) -> str:
    """One of ALLOWED, IMPLICIT (nothing concerns the request) and EXPLICIT (a Deny does).

    With `principals` the documents are a resource's: a statement counts whose Principal is among these names.
    ValueError for a condition operator that does not exist.
    """
    # Condition keys have no case: aws:securetransport is aws:SecureTransport.
    known = {key.lower(): values for key, values in context.items()}
    found = IMPLICIT
    for statement in statements(documents):
        if principals is not None and not _names(statement, principals):
            continue
        if not (
            _concerns(statement, "Action", action, known, re.IGNORECASE)
            and _concerns(statement, "Resource", resource, known)
        ):
            continue
        if all(_holds(operator, pairs, known) for operator, pairs in statement.get("Condition", {}).items()):
            if statement["Effect"] == "Deny":
                return EXPLICIT
            found = ALLOWED
    return found


def missing_keys(documents: Iterable[Mapping[str, Any]], context: Context) -> list[str]:
    """The keys that conditions of the documents use and the context does not have."""
    keys = {key for entry in statements(documents) for pairs in entry.get("Condition", {}).values() for key in pairs}
    return sorted(keys - set(context))


def statements(documents: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [statement for document in documents for statement in listed(document["Statement"])]


def listed(given: Any) -> list[Any]:
    return list(given) if isinstance(given, (list, tuple)) else [given]


def principals_of(statement: Mapping[str, Any], element: str = "Principal") -> list[str]:
    """The AWS principals that a statement names; `*` for everybody, written either way."""
    given = statement.get(element, [])
    return [str(each) for each in (listed(given.get("AWS", [])) if isinstance(given, Mapping) else listed(given))]


def known_operator(operator: str) -> bool:
    """Whether IAM has the condition operator, such as `ForAnyValue:StringLike` or `BoolIfExists`."""
    quantifier, _colon, name = operator.rpartition(":")
    name = name.removesuffix("IfExists")
    return quantifier in ("", "ForAnyValue", "ForAllValues") and (name == "Null" or name in _tests({}))


def _names(statement: Mapping[str, Any], principals: Collection[str]) -> bool:
    if "NotPrincipal" in statement:
        return not any(name in principals for name in principals_of(statement, "NotPrincipal"))
    return any(name == "*" or name in principals for name in principals_of(statement))


def _like(pattern: str, text: str, context: Context, flags: int = 0) -> bool:
    """Whether the text has the pattern, in which `*` and `?` are wildcards and `${aws:username}` a variable.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html
    """
    regex, end = "", 0
    for variable in _VARIABLE.finditer(pattern):
        regex += _wild(pattern[end : variable.start()])
        end = variable.end()
        name, _comma, default = (part.strip() for part in variable[1].partition(","))
        values = [name] if name in ("*", "?", "$") else context.get(name.lower(), [])
        if len(values) != 1 and not default:
            return False
        regex += re.escape(values[0] if len(values) == 1 else default.strip("'"))
    return re.fullmatch(regex + _wild(pattern[end:]), text, flags | re.DOTALL) is not None


def _wild(pattern: str) -> str:
    return re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")


def _concerns(statement: Mapping[str, Any], element: str, text: str, context: Context, flags: int = 0) -> bool:
    if f"Not{element}" in statement:
        return not any(_like(pattern, text, context, flags) for pattern in listed(statement[f"Not{element}"]))
    return any(_like(pattern, text, context, flags) for pattern in listed(statement[element]))


def _in_network(value: str, wanted: list[str]) -> bool:
    return any(ipaddress.ip_address(value) in ipaddress.ip_network(network, strict=False) for network in wanted)


def _moment(text: str) -> float:
    """Seconds since the epoch of a date in a policy, which is in W3C's ISO form or is this number."""
    if re.fullmatch(r"[0-9.]+", text):
        return float(text)
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _tests(context: Context) -> dict[str, Test]:
    """By operator: whether a value meets what a policy wants, any of a list."""

    def like(value: str, wanted: list[str]) -> bool:
        return any(_like(pattern, value, context) for pattern in wanted)

    def same(value: str, wanted: list[str]) -> bool:
        return any(value.lower() == entry.lower() for entry in wanted)

    def ordered(number: Callable[[str], float], holds: Callable[[float, float], bool]) -> Test:
        return lambda value, wanted: any(holds(number(value), number(entry)) for entry in wanted)

    tests: dict[str, Test] = {
        "StringEquals": lambda value, wanted: any(_like(_literal(entry), value, context) for entry in wanted),
        "StringEqualsIgnoreCase": same,
        "StringLike": like,
        "ArnEquals": like,  # which the reference says behave alike
        "ArnLike": like,
        "Bool": same,
        "BinaryEquals": lambda value, wanted: value in wanted,
        "IpAddress": _in_network,
    }
    for kind, number in (("Numeric", float), ("Date", _moment)):
        tests |= {
            f"{kind}Equals": ordered(number, lambda one, other: one == other),
            f"{kind}LessThan": ordered(number, lambda one, other: one < other),
            f"{kind}LessThanEquals": ordered(number, lambda one, other: one <= other),
            f"{kind}GreaterThan": ordered(number, lambda one, other: one > other),
            f"{kind}GreaterThanEquals": ordered(number, lambda one, other: one >= other),
        }

    def negated(test: Test) -> Test:
        return lambda value, wanted: not test(value, wanted)

    for name in ("StringEquals", "StringEqualsIgnoreCase", "StringLike", "ArnEquals", "ArnLike"):
        kind, rest = re.fullmatch(r"(String|Arn)(.*)", name).groups()  # type: ignore[union-attr]
        tests[f"{kind}Not{rest}"] = negated(tests[name])
    for name in ("NumericEquals", "DateEquals"):
        tests[name.replace("Equals", "NotEquals")] = negated(tests[name])
    tests["NotIpAddress"] = negated(_in_network)
    return tests


def _literal(text: str) -> str:
    """The text as a pattern that only it has; variables in it are still replaced."""
    return "".join(
        part if _VARIABLE.fullmatch(part) else re.sub(r"([*?])", r"${\1}", part)
        for part in re.split(r"(\$\{[^}]*\})", text)
    )


def _holds(operator: str, pairs: Mapping[str, Any], context: Context) -> bool:
    quantifier, _colon, name = operator.rpartition(":")
    optional = name.endswith("IfExists")
    name = name.removesuffix("IfExists")
    tests = _tests(context)
    if name != "Null" and name not in tests:
        raise ValueError(f"there is no condition operator {operator}")
    for key, given in pairs.items():
        wanted, values = [str(entry) for entry in listed(given)], context.get(key.lower())
        if name == "Null":
            if (values is None) != (wanted[0].lower() == "true"):
                return False
            continue
        if values is None:
            # A negated operator holds for a key that is not there, ForAllValues for no values at all.
            if optional or "Not" in name or quantifier == "ForAllValues":
                continue
            return False
        outcomes = [tests[name](value, wanted) for value in values]
        if not (any(outcomes) if quantifier == "ForAnyValue" else all(outcomes)):
            return False
    return True
