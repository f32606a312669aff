# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An ansible-core that lacks one of the internals: the module is sent instead, and nothing was executed before."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible import constants as C
from ansible.errors import AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import VaultLib, VaultSecret

from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module
from ansible_collections.k8sgu.cluster.plugins.plugin_utils import _ansible_internals as internals
from ansible_collections.k8sgu.cluster.plugins.plugin_utils._ansible_internals import plays
from ansible_collections.k8sgu.cluster.plugins.plugin_utils._compiled import execute
from ansible_collections.k8sgu.cluster.plugins.plugin_utils._in_process import InProcessAction

SENT = {"changed": False, "said_by": "the module"}
HERE = {"ansible_python_interpreter": sys.executable}
Break = Callable[[pytest.MonkeyPatch, Any], None]


def greet(call: Call) -> dict[str, Any]:
    return {"changed": True, "greeting": f"Hello {call.options['name']}, the word is {call.options['word']}"}


class Greeting(InProcessAction):
    """A module whose work is done at once, on this machine as Ansible would start it here."""

    MODULE = Module({"name": {"type": "str", "required": True}, "word": {"no_log": True}}, greet)

    def _execute_module(self, **options: Any) -> dict[str, Any]:
        return dict(SENT)

    def _remove_tmp_path(self, tmp_path: str | None, force: bool = False) -> None:
        pass


def greeting(**task: Any) -> Greeting:
    args = {"name": "Ada", "word": "s3sam"}
    shell = SimpleNamespace(
        tmpdir=None,
        env_prefix=lambda **variables: "",
        build_module_command=lambda env, shebang, cmd, arg_path=None: shebang.removeprefix("#!"),
    )
    given = {"args": args, "async_val": 0, "environment": [], "delegate_to": None, "action": "k8sgu.cluster.greeting"}
    fields = {"check_mode": False, "diff": False, "ignore_errors": False}
    return Greeting(
        SimpleNamespace(**{**given, **fields, **task}),
        SimpleNamespace(transport="local", become=None, _shell=shell, is_pipelining_enabled=lambda wrap_async: True),
        SimpleNamespace(),
        SimpleNamespace(get_basedir=lambda: "/"),
        SimpleNamespace(template=lambda value: value),
        None,
    )


def test_where_nothing_is_missing_it_is_done_here_and_masked() -> None:
    result = greeting().run(task_vars=HERE)
    assert result["changed"] and result["greeting"] == "Hello Ada, the word is ********"


def no_transport(monkeypatch: pytest.MonkeyPatch, action: Any) -> None:
    del action._connection.transport


def no_delegation(monkeypatch: pytest.MonkeyPatch, action: Any) -> None:
    del action._task.delegate_to


def no_interpreter_setting(monkeypatch: pytest.MonkeyPatch, action: Any) -> None:
    def unknown(name: str, **options: Any) -> None:
        raise AnsibleError(f"Requested entry ({name}) was not defined in configuration.")

    monkeypatch.setattr(C.config, "get_config_value", unknown)


def settings_without_variables(monkeypatch: pytest.MonkeyPatch, action: Any) -> None:
    monkeypatch.setattr(C.config, "get_config_value", lambda name: sys.executable)


def no_hidden_values(monkeypatch: pytest.MonkeyPatch, action: Any) -> None:
    class Result:
        def __init__(self, checked: Any) -> None:
            self.error_messages, self.validated_parameters = checked.error_messages, checked.validated_parameters

    validate = ArgumentSpecValidator.validate
    monkeypatch.setattr(ArgumentSpecValidator, "validate", lambda self, args: Result(validate(self, args)))


def no_masking(monkeypatch: pytest.MonkeyPatch, action: Any) -> None:
    monkeypatch.setattr(internals, "remove_values", None)


@pytest.mark.parametrize(
    "broken",
    [
        no_transport,
        no_delegation,
        no_interpreter_setting,
        settings_without_variables,
        no_hidden_values,
        no_masking,
    ],
)
def test_a_module_is_sent_where_an_internal_is_missing(monkeypatch: pytest.MonkeyPatch, broken: Break) -> None:
    action = greeting()
    worked: list[Call] = []
    monkeypatch.setattr(Greeting, "work", lambda self, call, variables: worked.append(call))
    broken(monkeypatch, action)
    result = action.run(task_vars=HERE)
    assert {**result, **SENT} == result and not worked


def commanded(action: Any, ran: list[str]) -> None:
    def low_level(cmd: str, sudoable: bool = True, in_data: bytes | None = None) -> dict[str, Any]:
        ran.append(cmd)
        return {"rc": 0, "stdout": 'k8sgu-answer:{"changed": true}', "stderr": ""}

    action._low_level_execute_command = low_level


def answered(action: Any) -> dict[str, Any] | None:
    variables = {"ansible_python_interpreter": "/usr/bin/python3"}
    return execute(action, "_files.present:nothing", {}, variables)


def test_where_nothing_is_missing_a_node_executes_it_compiled() -> None:
    action, ran = greeting(), list[str]()
    commanded(action, ran)
    assert answered(action) == {"changed": True} and ran == ["/usr/bin/python3"]


def no_pipelining_question(monkeypatch: pytest.MonkeyPatch, action: Any) -> None:
    # Of the class, where a subclass can hide it but not remove it.
    monkeypatch.setattr(action, "_is_pipelining_enabled", None)


def no_shell(monkeypatch: pytest.MonkeyPatch, action: Any) -> None:
    del action._connection._shell


def no_module_command(monkeypatch: pytest.MonkeyPatch, action: Any) -> None:
    del action._connection._shell.build_module_command


def another_module_command(monkeypatch: pytest.MonkeyPatch, action: Any) -> None:
    action._connection._shell.build_module_command = lambda env, shebang, cmd: ""


def no_environment(monkeypatch: pytest.MonkeyPatch, action: Any) -> None:
    monkeypatch.setattr(action, "_compute_environment_string", None)


def no_input(monkeypatch: pytest.MonkeyPatch, action: Any) -> None:
    def low_level(cmd: str, sudoable: bool = True) -> None:
        raise AssertionError("was executed")

    action._low_level_execute_command = low_level


@pytest.mark.parametrize(
    "broken",
    [
        no_delegation,
        settings_without_variables,
        no_interpreter_setting,
        no_pipelining_question,
        no_shell,
        no_module_command,
        another_module_command,
        no_environment,
        no_input,
    ],
)
def test_nothing_is_executed_on_a_node_where_an_internal_is_missing(
    monkeypatch: pytest.MonkeyPatch, broken: Break
) -> None:
    action, ran = greeting(), list[str]()
    commanded(action, ran)
    broken(monkeypatch, action)
    assert answered(action) is None and ran == []


@pytest.mark.parametrize("shown", [True, False])
def test_the_options_are_in_the_result_where_a_module_would_tell_them(
    monkeypatch: pytest.MonkeyPatch, shown: bool
) -> None:
    settings = {"INTERPRETER_PYTHON": sys.executable, "INJECT_INVOCATION": shown}
    monkeypatch.setattr(C.config, "get_config_value", lambda name, **options: settings[name])
    result = greeting().run(task_vars=HERE)
    assert ("invocation" in result) == shown and result["changed"]


def test_an_ansible_core_without_that_setting_tells_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    no_interpreter_setting(monkeypatch, None)
    assert internals.shows_invocation({})


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_file_is_read_the_same_without_the_loaders_own_way(tmp_path: Path, encrypted: bool) -> None:
    class LaterLoader(DataLoader):  # type: ignore[misc]  # ansible-core is not typed
        def __getattribute__(self, name: str) -> Any:
            if name == "_get_file_contents":
                raise AttributeError(name)
            return super().__getattribute__(name)

    content, secret = b"\xff not text\n", VaultSecret(b"of the vault")
    file = tmp_path / "file"
    file.write_bytes(VaultLib([("default", secret)]).encrypt(content, secret) if encrypted else content)
    for loader in (DataLoader(), LaterLoader()):
        loader.set_vault_secrets([("default", secret)])
        assert internals.file_content(loader, str(file)) == content
        loader.cleanup_all_tmp_files()


PLAYBOOK = """
- name: Database
  hosts: "{{ query('k8sgu.cluster.hosts', 'etcd') }}"
  tasks:
    - name: One
      debug:
      tags: [etcd]
"""


@pytest.fixture
def playbook(tmp_path: Path) -> Iterator[str]:
    plays.plays_of.cache_clear()
    path = tmp_path / "database.yml"
    path.write_text(PLAYBOOK)
    yield str(path)
    plays.plays_of.cache_clear()


def test_the_plays_of_a_playbook_are_read(playbook: str) -> None:
    found = plays.plays_of(DataLoader(), (playbook,), ("etcd",), ())
    assert found is not None
    [(play, pattern)] = found
    assert (play.name, play.tags, play.runs, pattern) == ("Database", frozenset({"etcd"}), True, "etcd")


@pytest.mark.parametrize(
    "missing",
    [
        "ansible.utils.collection_loader._collection_finder._get_collection_playbook_path",
        "ansible.playbook.play.Play.compile",
        "ansible.playbook.taggable.Taggable.evaluate_tags",
        "ansible.parsing.dataloader.DataLoader.set_basedir",
    ],
)
def test_no_plays_are_known_where_they_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, playbook: str, missing: str
) -> None:
    loader = DataLoader()
    monkeypatch.delattr(missing)
    assert plays.plays_of(loader, (playbook,), ("etcd",), ()) is None


def test_the_collections_path_is_the_configured_one_without_ansibles_finder(monkeypatch: pytest.MonkeyPatch) -> None:
    class Later:
        pass

    monkeypatch.setattr(internals, "AnsibleCollectionConfig", Later)
    monkeypatch.setattr(C, "COLLECTIONS_PATHS", ["/a", "/b"])
    assert internals.collections_path() == ["/a", "/b"]
