# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads CFSSL's JSON documents: keys in any case, as in Go, and no unknown ones."""

from __future__ import annotations

import json
from typing import Any, Iterable

from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.errors import PkiError


def read_document(path: str, option: str) -> str:
    """The text of the file `path`. Raises PkiError that names `option`."""
    try:
        with open(path, encoding="utf-8") as stream:  # noqa: PTH123 - half the time of a Path
            return stream.read()
    except FileNotFoundError:
        raise PkiError(option, f"{path} does not exist; create it or name another file") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise PkiError(option, f"{path} cannot be read: {reason}") from None


def parse_json(text: str, path: str, option: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise PkiError(option, f"{path} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise PkiError(option, f"{path} must hold a JSON object, not {kind(document)}")
    return document


def fold(document: object, known: Iterable[str], option: str, unsupported: Iterable[str] = ()) -> dict[str, Any]:
    """`document` with its keys spelled as in `known`. Raises PkiError for any other key, naming the nearest.

    `unsupported` keys are left out if they are false or empty, and otherwise are an error too.
    """
    if not isinstance(document, dict):
        raise PkiError(option, f"must be a mapping, not {kind(document)}")
    spelled = {name.lower(): name for name in known}
    refused = {name.lower() for name in unsupported}
    result: dict[str, Any] = {}
    for key, value in document.items():
        lower = str(key).lower()
        if lower in refused:
            if not value:
                continue
            raise PkiError(f"{option}.{key}", "is not supported here; leave it out")
        if lower not in spelled:
            import difflib

            near = difflib.get_close_matches(lower, list(spelled), 1)
            hint = f"did you mean {spelled[near[0]]}?" if near else f"known are {', '.join(spelled.values())}"
            raise PkiError(f"{option}.{key}", f"is not a known key; {hint}")
        if spelled[lower] in result:
            raise PkiError(f"{option}.{key}", "is given twice, in different spellings; leave one")
        result[spelled[lower]] = value
    return result


def text_of(value: object, option: str) -> str:
    """A text value; None counts as empty. Numbers are refused, since YAML has already turned 0077 into 63."""
    if value is None:
        return ""
    if not isinstance(value, str):
        hint = "" if isinstance(value, (dict, list)) else "; put it in quotes"
        raise PkiError(option, f"must be text, not {kind(value)}{hint}")
    return value


def number_of(value: object, option: str) -> int:
    """A whole number of 0 or more; also text made of digits, since templates give text."""
    if isinstance(value, str) and value.strip().isdigit():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise PkiError(option, f"must be a whole number of 0 or more, not {value!r}")
    return value


def flag_of(value: object, option: str) -> bool:
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if not isinstance(value, bool):
        raise PkiError(option, f"must be true or false, not {value!r}")
    return value


def list_of(value: object, option: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise PkiError(option, f"must be a list, not {kind(value)}")
    return value


def kind(value: object) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", bool: "a truth value", int: "a number", float: "a number"}
    return "nothing" if value is None else names.get(type(value), type(value).__name__)
