# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A module without the way to it, where that would lead from this process to one just like it.

What is kept on the controller is such a case: packing, sending and starting a module takes longer than its work.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase

from ansible_collections.k8sgu.cluster.plugins.module_utils._options.texts import text_faults
from ansible_collections.k8sgu.cluster.plugins.plugin_utils._ansible_internals import (
    hidden_values,
    masked,
    runs_here,
    shows_invocation,
)


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
        answer = self._answer(variables) if runs_here(self, variables) and self.usable() else None
        if answer is not None:
            return {**result, **answer}
        wrap_async = bool(self._task.async_val)
        result.update(self._execute_module(task_vars=variables, wrap_async=wrap_async))
        if not wrap_async:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return result

    def _answer(self, variables: dict[str, Any]) -> dict[str, Any] | None:
        """The module's result; None where the module is to be sent: it says itself which options are wrong."""
        checked = ArgumentSpecValidator(**self.SPECIFICATION).validate(dict(self._task.args))
        hidden = hidden_values(checked)
        if checked.error_messages or hidden is None:
            return None
        call = Call(
            # What a module is sent: data without what Ansible marks its values with.
            json.loads(json.dumps(checked.validated_parameters)),
            bool(self._task.check_mode),
            bool(self._task.diff),
            hidden,
        )
        try:
            # Where Ansible starts modules on this machine, and so where relative paths begin.
            with contextlib.chdir(self._loader.get_basedir()):
                result = self.work(call)
        except self.ERRORS as error:
            result = {**getattr(error, "result", {}), "failed": True, "msg": str(error)}
        if shows_invocation(variables):
            result["invocation"] = {"module_args": call.params}
        if call.warnings:
            result["warnings"] = call.warnings
        # What went through JSON is data, whatever the options were to Ansible.
        data: dict[str, Any] = json.loads(json.dumps(masked(result, call.hidden)))
        return data
