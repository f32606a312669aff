"""The hooks of .pre-commit-config.yaml are the linters that CI runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tools import lint, run_tests

ROOT = run_tests.ROOT


def test_every_linter_is_a_hook_that_needs_no_network() -> None:
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
    hooks = repositories[0]["hooks"]
    assert [hook["args"] for hook in hooks] == [[command.title] for command in run_tests.lint()]
    assert {hook["entry"] for hook in hooks} == {".venv/bin/python tools/lint.py"}
    assert {hook["language"] for hook in hooks} == {"system"}


def test_a_linter_that_fails_fails_its_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = [run_tests.Command("good", ["true"]), run_tests.Command("bad", ["false"])]
    monkeypatch.setattr(lint, "lint", lambda: commands)
    assert lint.main(["good"]) == 0
    assert lint.main(["bad", "good"]) == 1


@pytest.mark.parametrize("titles", [[], ["ruff", "rough"]])
def test_a_linter_that_there_is_not_is_refused(titles: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert lint.main(titles) == 2
    said = capsys.readouterr().err
    assert "there are ruff, ruff format" in said and ("rough" in said) == bool(titles)
