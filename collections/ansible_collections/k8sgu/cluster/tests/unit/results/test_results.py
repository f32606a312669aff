# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ansible's own words in a result are booleans: of another type, a task may fail that did not, and Ansible complains.

https://docs.ansible.com/projects/ansible/latest/reference_appendices/common_return_values.html
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

COLLECTION = Path(__file__).resolve().parents[3]
WORDS = {"changed", "failed", "skipped", "unreachable"}
RETURNING = ("modules", "action", "plugin_utils", "module_utils")
SOURCES = sorted(path for part in RETURNING for path in (COLLECTION / "plugins" / part).rglob("*.py"))
MODULES = sorted((COLLECTION / "plugins" / "modules").glob("*.py"))


def given(tree: ast.AST) -> Iterator[tuple[int, str, ast.expr]]:
    """Line, word and value, wherever one of the words is a key or an argument."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values):
                if isinstance(key, ast.Constant) and key.value in WORDS:
                    yield node.lineno, str(key.value), value
        elif isinstance(node, ast.Call):
            for argument in node.keywords:
                if argument.arg in WORDS:
                    yield node.lineno, str(argument.arg), argument.value


def is_bool(value: ast.expr) -> bool:
    """Whether an expression can be nothing else, or has been given the name of one."""
    if isinstance(value, ast.Constant):
        return isinstance(value.value, bool)
    if isinstance(value, ast.Call):
        return isinstance(value.func, ast.Name) and value.func.id in {"bool", "any", "all", "isinstance"}
    if isinstance(value, ast.BoolOp):
        return all(is_bool(part) for part in value.values)
    if isinstance(value, ast.UnaryOp):
        return isinstance(value.op, ast.Not)
    if isinstance(value, (ast.Attribute, ast.Name)):
        return (value.attr if isinstance(value, ast.Attribute) else value.id) == "changed"
    if isinstance(value, ast.Subscript):
        return isinstance(value.slice, ast.Constant) and value.slice.value == "changed"
    return isinstance(value, ast.Compare)


def test_a_number_and_a_list_are_seen() -> None:
    found = list(
        given(ast.parse("exit_json(changed=False, failed=len(rows)); {'failed': failed, 'skipped': [1], 'x': 1}"))
    )
    assert [(word, is_bool(value)) for _line, word, value in found] == [
        ("changed", True),
        ("failed", False),
        ("failed", False),
        ("skipped", False),
    ]


def test_every_word_of_ansibles_is_a_boolean() -> None:
    wrong, number = [], 0
    for path in SOURCES:
        for line, word, value in given(ast.parse(path.read_text())):
            number += 1
            if not is_bool(value):
                wrong.append(f"{path.relative_to(COLLECTION)}:{line} {word}={ast.unparse(value)}")
    assert number > 30 and wrong == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_module_documents_another_meaning(path: Path) -> None:
    texts = [
        ast.literal_eval(node.value)
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "RETURN"
    ]
    assert len(texts) == 1
    returned = yaml.safe_load(texts[0]) or {}
    assert {word: returned[word]["type"] for word in WORDS & set(returned)} in ({}, {"changed": "bool"})
