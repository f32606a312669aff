"""One syntax check for many playbooks finds what one for each finds."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tools import ansible_lint

GOOD = "- hosts: localhost\n  gather_facts: false\n  tasks:\n    - ansible.builtin.debug:\n"
BAD = GOOD.replace("debug", "dbug")


def checked(monkeypatch: pytest.MonkeyPatch, files: dict[Path, str]) -> list[list[Any]]:
    """What is found in playbooks or roles; each that ansible-lint would check by itself is named."""
    runner: Any = SimpleNamespace(app=SimpleNamespace(runtime=SimpleNamespace(environ=dict(os.environ))))
    monkeypatch.setattr(ansible_lint, "one_by_one", lambda _runner, worker, given: [worker(each) for each in given])
    given = [SimpleNamespace(path=path, kind=kind) for path, kind in files.items()]
    return ansible_lint.together(runner, lambda file: [file.path], given)


def test_those_without_a_fault_are_not_checked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    role = tmp_path / "role" / "tasks" / "main.yml"
    role.parent.mkdir(parents=True)
    role.write_text("- ansible.builtin.debug:\n")
    playbook = tmp_path / "good.yml"
    playbook.write_text(GOOD)
    files = {playbook: "playbook", tmp_path / "role": "role", tmp_path / "vars.yml": "vars"}
    assert checked(monkeypatch, files) == []
    role.write_text("- ansible.builtin.dbug:\n")
    assert checked(monkeypatch, files) == [[path] for path in files]


def test_a_fault_has_them_checked_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {tmp_path / "good.yml": "playbook", tmp_path / "bad.yml": "playbook"}
    for path, text in zip(files, (GOOD, BAD), strict=True):
        path.write_text(text)
    assert checked(monkeypatch, files) == [[path] for path in files]


def test_playbooks_of_a_collection_help_no_other(tmp_path: Path) -> None:
    own = tmp_path / "ansible_collections" / "a" / "b" / "playbooks" / "x.yml"
    assert ansible_lint.groups([own, tmp_path / "y.yml"], [Path("role")], tmp_path) == [
        [own],
        [tmp_path / "y.yml", tmp_path / "roles.yml"],
    ]
    assert ansible_lint.groups([own], [], tmp_path) == [[own]]
