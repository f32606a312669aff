# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a controller-side module in Ansible's own process: packing, sending and starting it takes longer than its work.

Such modules are of two kinds:

- Those that work on files or call AWS can run on any machine. They have a real module, which is sent if the task is for
  another host or user, has an environment or an interpreter of its own, or is asynchronous.
- Those that need the controller's files (`SENDABLE = False`) always run on the controller, whatever host the task is
  for. Their module file is documentation only.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module, carry_out
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.texts import text_faults
from ansible_collections.k8sgu.cluster.plugins.plugin_utils._ansible_internals import (
    hidden_values,
    masked,
    runs_here,
    shows_invocation,
    task_environment,
)


class InProcessAction(ActionBase):  # type: ignore[misc]  # ansible-core is not typed
    """Base of the action plugins of all modules that run on the controller."""

    MODULE: ClassVar[Module]
    # Whether there is a module to send to another host.
    SENDABLE: ClassVar[bool] = True
    # Whether paths are relative to the directory in which Ansible was started, instead of the playbook's.
    FROM_CALLERS_DIRECTORY: ClassVar[bool] = False
    # Text options that may also be written as a number; None if any value is converted to text.
    NUMBERS: ClassVar[tuple[str, ...] | None] = None

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        cls._supports_async = cls._requires_connection = cls.SENDABLE
        cls._supports_check_mode = cls.MODULE.check_mode

    def work(self, call: Call, variables: dict[str, Any]) -> dict[str, Any]:
        """The module's result, or its failure; `variables` are the task's."""
        return carry_out(self.MODULE, call)

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        if self.NUMBERS is not None:
            fault = next(text_faults(self._task.args, self.MODULE.argument_spec, self.NUMBERS), None)
            if fault:
                return {**result, "failed": True, "msg": fault}
        answer = self._answer(variables) if not self.SENDABLE or runs_here(self, variables) else None
        if answer is not None:
            return {**result, **answer}
        wrap_async = bool(self._task.async_val)
        result.update(self._execute_module(task_vars=variables, wrap_async=wrap_async))
        if not wrap_async:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return result

    def _answer(self, variables: dict[str, Any]) -> dict[str, Any] | None:
        """The module's result; None if the module must be sent, which then reports wrong options itself."""
        checked = ArgumentSpecValidator(dict(self.MODULE.argument_spec), **self.MODULE.rules).validate(
            dict(self._task.args)
        )
        hidden = hidden_values(checked)
        if self.SENDABLE and (checked.error_messages or hidden is None):
            return None
        if checked.error_messages:
            return {"failed": True, "msg": "; ".join(checked.error_messages)}
        call = Call(
            _data(checked.validated_parameters),
            bool(self._task.check_mode),
            bool(self._task.diff),
            hidden or set(),
            say=lambda text: Display().display(f"  {self._task.action.rpartition('.')[2]}: {text}"),
        )
        # If the task has an environment and the module can be sent, it has been sent.
        environment = {} if self.SENDABLE else task_environment(self)
        # Ansible starts modules on this machine in the playbook's directory.
        directory = os.getcwd() if self.FROM_CALLERS_DIRECTORY else self._loader.get_basedir()  # noqa: PTH109
        with _added(environment), contextlib.chdir(directory):
            result = self.work(call, variables)
        # Modules that always run here may get secrets in options that are not marked so: a manifest, all variables.
        if self.SENDABLE and shows_invocation(variables):
            result["invocation"] = {"module_args": call.options}
        if call.warnings:
            result["warnings"] = call.warnings
        # After JSON everything is plain data, whatever the options were to Ansible.
        data: dict[str, Any] = json.loads(json.dumps(masked(result, call.hidden) if call.hidden else result))
        return data


def _data(value: Any) -> Any:
    """The value without Ansible's tags (origin, whether it is a template)."""
    if isinstance(value, dict):
        return {str(key): _data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_data(item) for item in value]
    if isinstance(value, bool):
        return value
    return next((kind(value) for kind in (str, int, float) if isinstance(value, kind)), value)


@contextlib.contextmanager
def _added(environment: Mapping[str, str]) -> Iterator[None]:
    """Our own environment with these variables added."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
