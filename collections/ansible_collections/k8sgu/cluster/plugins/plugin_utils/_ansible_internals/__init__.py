# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that our plugins use of ansible-core's internals, which may change in any release.

If an ansible-core lacks something that is needed to execute a module, the result is False or None, and the caller sends
the module as any action plugin does. This is found out before anything is executed, so that nothing is executed twice.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleError
from ansible.module_utils.common.arg_spec import ValidationResult
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.action import ActionBase
from ansible.utils.collection_loader import AnsibleCollectionConfig

try:
    from ansible.module_utils.common.parameters import remove_values
except ImportError:
    remove_values = None

# Python's errors for a missing attribute, key or parameter, and Ansible's for a missing setting.
_MISSING = (AttributeError, KeyError, TypeError, AnsibleError)


def runs_here(action: ActionBase, variables: dict[str, Any]) -> bool:
    """Whether the task's module would run on this machine, as this user, with this interpreter and environment."""
    try:
        task, connection = action._task, action._connection
        if connection.transport != "local" or connection.become:
            return False
        if task.async_val or any(task.environment or ()):
            return False
        if task.delegate_to:
            variables = variables.get("ansible_delegated_vars", {}).get(task.delegate_to, {})
        return _same_program(_chosen_interpreter(action, variables), sys.executable)
    except _MISSING:
        return False


def hidden_values(checked: ValidationResult) -> set[str] | None:
    """The values of options with no_log; None if they cannot be known or masked."""
    if remove_values is None or not hasattr(checked, "_no_log_values"):
        return None
    return set(checked._no_log_values)


def masked(result: dict[str, Any], hidden: set[str]) -> dict[str, Any]:
    """The result with the hidden values masked, as AnsibleModule does at its end."""
    told = {key: value for key, value in result.items() if value is None or isinstance(value, bool)}
    return {**remove_values(result, hidden), **told}


def shows_invocation(variables: dict[str, Any]) -> bool:
    """Whether a module's result includes its options; always up to ansible-core 2.20."""
    try:
        return bool(C.config.get_config_value("INJECT_INVOCATION", variables=variables))
    except _MISSING:
        return True


def task_environment(action: ActionBase) -> dict[str, str]:
    """The variables of the task's `environment`."""
    found: dict[str, Any] = {}
    with contextlib.suppress(AttributeError, TypeError):
        action._compute_environment_string(found)
    return {str(name): str(value) for name, value in found.items()}


def node_interpreter(action: ActionBase, variables: dict[str, Any]) -> str | None:
    """Path of Python on the task's host: the configured one, or the one that the first module there has found."""
    try:
        if action._task.delegate_to:
            return None
        chosen = _chosen_interpreter(action, variables)
    except _MISSING:
        return None
    if not chosen.startswith("/"):
        chosen = str((variables.get("ansible_facts") or {}).get("discovered_interpreter_python") or "")
    return chosen if chosen.startswith("/") else None


def run_source(action: ActionBase, interpreter: str, source: str) -> dict[str, Any] | None:
    """Runs a Python program on the task's host by the connection's input; returns rc, stdout and stderr.

    None if Ansible must not send programs that way: pipelining is off, or remote files are to be kept.
    """
    try:
        if not action._is_pipelining_enabled("new"):
            return None
        command = action._connection._shell.build_module_command(
            action._compute_environment_string(), f"#!{interpreter}", "", arg_path=None
        )
        execute = action._low_level_execute_command
        inspect.signature(execute).bind("", sudoable=True, in_data=b"")
    except (AttributeError, TypeError):
        return None
    done: dict[str, Any] = execute(command.strip(), sudoable=True, in_data=source.encode())
    return done


def file_content(loader: DataLoader, path: str) -> bytes:
    """Content of a file on the controller, decrypted if it is encrypted by Ansible Vault."""
    if not hasattr(loader, "_get_file_contents"):
        # The decrypted content is in a temporary file of the user's until Ansible ends.
        return Path(loader.get_real_file(path)).read_bytes()
    content, _show = loader._get_file_contents(path)
    return bytes(content)


def collections_path() -> list[str]:
    """The directories in which Ansible looks for collections, in order."""
    try:
        return list(AnsibleCollectionConfig.collection_paths)
    except (AttributeError, NotImplementedError):
        return [str(path) for path in getattr(C, "COLLECTIONS_PATHS", [])]


def _chosen_interpreter(action: ActionBase, variables: dict[str, Any]) -> str:
    """A path, or how to find one, such as `auto`."""
    return str(action._templar.template(C.config.get_config_value("INTERPRETER_PYTHON", variables=variables)))


def _same_program(one: str, other: str) -> bool:
    """Compares the directories too: a virtual environment's interpreter is a link in its own directory."""
    return os.path.realpath(one) == os.path.realpath(other) and os.path.realpath(
        os.path.dirname(one)  # noqa: PTH120
    ) == os.path.realpath(os.path.dirname(other))  # noqa: PTH120
