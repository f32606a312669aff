# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module without the way to it, where that would lead from this process to one just like it.

What is kept on the controller is such a case: packing, sending and starting a module takes longer than its work.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ansible import constants as C
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.parameters import remove_values
from ansible.plugins.action import ActionBase

from ansible_collections.k8sgu.cluster.plugins.module_utils._options.texts import text_faults


@dataclass
class Call:
    """One call: the validated options, and what a module would ask its AnsibleModule for."""

    params: dict[str, Any]
    check_mode: bool
    diff: bool
    hidden: set[str]
    warnings: list[str] = field(default_factory=list)


class InProcessAction(ActionBase):  # type: ignore[misc]  # ansible-core is not typed
    """Base of action plugins that do a module's work in Ansible's own process where the module would run just here.

    `SPECIFICATION` is named as AnsibleModule and ArgumentSpecValidator name it. Every error in `ERRORS` is the task's.
    """

    SPECIFICATION: ClassVar[dict[str, Any]]
    ERRORS: ClassVar[tuple[type[Exception], ...]]
    # Of the options that are text, those that may be written as a number; None where whatever can be made text will do.
    NUMBERS: ClassVar[tuple[str, ...] | None] = None

    _supports_check_mode = True
    _supports_async = True

    def work(self, call: Call) -> dict[str, Any]:
        """The module's result."""
        raise NotImplementedError

    def usable(self) -> bool:
        """Whether the libraries that the work needs are there; where not, the module says which."""
        return True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        if self.NUMBERS is not None:
            fault = next(text_faults(self._task.args, self.SPECIFICATION["argument_spec"], self.NUMBERS), None)
            if fault:
                return {**result, "failed": True, "msg": fault}
        answer = self._answer() if self._runs_in_process(variables) and self.usable() else None
        if answer is not None:
            return {**result, **answer}
        wrap_async = self._task.async_val and not self._connection.has_native_async
        result.update(self._execute_module(task_vars=variables, wrap_async=wrap_async))
        if not wrap_async:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return result

    def _runs_in_process(self, variables: dict[str, Any]) -> bool:
        """Whether the module would run on this machine, as this user, with this interpreter and this environment."""
        if self._connection.transport != "local" or self._connection.become:
            return False
        if self._task.async_val or any(self._task.environment or ()):
            return False
        if self._task.delegate_to:
            variables = variables.get("ansible_delegated_vars", {}).get(self._task.delegate_to, {})
        named = C.config.get_config_value("INTERPRETER_PYTHON", variables=variables)
        return _same_program(str(self._templar.template(named)), sys.executable)

    def _answer(self) -> dict[str, Any] | None:
        """The module's result; None where the options are wrong, which the module says itself."""
        checked = ArgumentSpecValidator(**self.SPECIFICATION).validate(dict(self._task.args))
        if checked.error_messages:
            return None
        call = Call(
            # What a module is sent: data without what Ansible marks its values with.
            json.loads(json.dumps(checked.validated_parameters)),
            bool(self._task.check_mode),
            bool(self._task.diff),
            set(checked._no_log_values),
        )
        try:
            # Where Ansible starts modules on this machine, and so where relative paths begin.
            with contextlib.chdir(self._loader.get_basedir()):
                result = self.work(call)
        except self.ERRORS as error:
            result = {**getattr(error, "result", {}), "failed": True, "msg": str(error)}
        result["invocation"] = {"module_args": call.params}
        if call.warnings:
            result["warnings"] = call.warnings
        # As AnsibleModule does on its way out.
        told = {key: value for key, value in result.items() if value is None or isinstance(value, bool)}
        masked = {**remove_values(result, call.hidden), **told}
        # What went through JSON is data, whatever the options were to Ansible.
        data: dict[str, Any] = json.loads(json.dumps(masked))
        return data


def _same_program(one: str, other: str) -> bool:
    """By directory too: a virtual environment is one interpreter's link in a directory of its own."""
    return os.path.realpath(one) == os.path.realpath(other) and os.path.realpath(
        os.path.dirname(one)  # noqa: PTH120
    ) == os.path.realpath(os.path.dirname(other))  # noqa: PTH120
