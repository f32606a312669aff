# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a module that always runs on the controller gets there, and what is refused."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail, AnsibleActionSkip
from ansible.utils.display import Display

from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module
from ansible_collections.k8sgu.cluster.plugins.plugin_utils._in_process import InProcessAction

SPEC = {"when": {"type": "raw"}, "word": {"type": "str", "no_log": True}, "count": {"type": "int", "default": 1}}


def look(call: Call) -> dict[str, Any]:
    call.say("looking")
    call.warnings.append("careful")
    return {
        "changed": call.check_mode,
        "kind": type(call.options["when"]).__name__,
        "count": call.options["count"],
        "word": f"it is {call.options['word']}",
        "proxy": [os.environ.get(name) for name in ("K8SGU_TEST_PROXY", "K8SGU_TEST_NONE")],
        "directory": str(Path.cwd()),
    }


class Look(InProcessAction):
    MODULE = Module(SPEC, look)
    SENDABLE = False

    def _execute_module(self, **options: Any) -> dict[str, Any]:
        raise AssertionError("there is no module to send")


class LookOnce(Look):
    MODULE = Module(SPEC, look, check_mode=False)
    FROM_CALLERS_DIRECTORY = True


def action(kind: type[Look], directory: Path, args: dict[str, Any], **task: Any) -> Look:
    """As for a host that is far away, as another user."""
    shell = SimpleNamespace(tmpdir=None, env_prefix=lambda **variables: "")
    fields = {"check_mode": False, "diff": False, "ignore_errors": False, "async_val": 0, "environment": []}
    return kind(
        SimpleNamespace(**{"args": args, "delegate_to": "far", "action": "k8sgu.cluster.look", **fields, **task}),
        SimpleNamespace(transport="ssh", become=SimpleNamespace(), _shell=shell),
        SimpleNamespace(),
        SimpleNamespace(get_basedir=lambda: str(directory)),
        SimpleNamespace(template=lambda value: value),
        None,
    )


def test_it_runs_here_with_the_tasks_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(Display, "display", lambda self, text, *rest, **more: shown.append(text))
    monkeypatch.setenv("K8SGU_TEST_PROXY", "http://own:1")
    environment = [{"K8SGU_TEST_PROXY": "http://task:2"}]
    args = {"when": datetime.date(2026, 1, 31), "word": "s3sam"}
    result = action(Look, tmp_path, args, environment=environment, check_mode=True).run(task_vars={})
    assert result == {
        "changed": True,
        "kind": "date",
        "count": 1,
        "word": "it is ********",
        "proxy": ["http://task:2", None],
        "directory": str(tmp_path),
        "warnings": ["careful"],
    }
    assert os.environ["K8SGU_TEST_PROXY"] == "http://own:1" and "  look: looking" in shown


def test_a_variable_that_was_not_there_is_gone_again(tmp_path: Path) -> None:
    environment = [{"K8SGU_TEST_NONE": "1"}]
    result = action(Look, tmp_path, {}, environment=environment).run(task_vars={})
    assert result["proxy"] == [None, "1"] and "K8SGU_TEST_NONE" not in os.environ


def test_wrong_options_are_named(tmp_path: Path) -> None:
    result = action(Look, tmp_path, {"count": "many", "words": "a"}).run(task_vars={})
    assert result["failed"] and "count" in result["msg"] and "words" in result["msg"]


def test_it_cannot_be_asynchronous(tmp_path: Path) -> None:
    with pytest.raises(AnsibleActionFail, match="async"):
        action(Look, tmp_path, {}, async_val=60).run(task_vars={})


def test_without_check_mode_it_is_skipped_there(tmp_path: Path) -> None:
    with pytest.raises(AnsibleActionSkip, match="check mode"):
        action(LookOnce, tmp_path, {}, check_mode=True).run(task_vars={})


def test_some_begin_in_the_callers_directory(tmp_path: Path) -> None:
    result = action(LookOnce, tmp_path, {}).run(task_vars={})
    assert result["directory"] == str(Path.cwd()) != str(tmp_path)
