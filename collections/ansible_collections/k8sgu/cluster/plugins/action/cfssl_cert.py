# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module cfssl_cert without the way to it, where that would lead from this process to one just like it.

The controller's own PKI is such a case: packing, sending and starting a module takes longer than twenty certificates.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any

from ansible import constants as C
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.parameters import remove_values
from ansible.plugins.action import ActionBase

from ansible_collections.k8sgu.cluster.plugins.module_utils._files import FileError
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.cert_module import ensure
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.errors import PkiError
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.library import usable
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.options import SPECIFICATION


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core is not typed
    """See the documentation of the module."""

    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        answer = self._ensure() if self._is_here(variables) else None
        if answer is not None:
            return {**result, **answer}
        wrap_async = self._task.async_val and not self._connection.has_native_async
        result.update(self._execute_module(task_vars=variables, wrap_async=wrap_async))
        if not wrap_async:
            self._remove_tmp_path(self._connection._shell.tmpdir)
        return result

    def _is_here(self, variables: dict[str, Any]) -> bool:
        """Whether the module would run on this machine, as this user, with this interpreter and this environment."""
        if self._connection.transport != "local" or self._connection.become:
            return False
        if self._task.async_val or any(self._task.environment or ()):
            return False
        if self._task.delegate_to:
            variables = variables.get("ansible_delegated_vars", {}).get(self._task.delegate_to, {})
        named = C.config.get_config_value("INTERPRETER_PYTHON", variables=variables)
        return _same_program(str(self._templar.template(named)), sys.executable) and usable()

    def _ensure(self) -> dict[str, Any] | None:
        """The module's result; None where the options are wrong, which the module says itself."""
        checked = ArgumentSpecValidator(**SPECIFICATION).validate(dict(self._task.args))
        if checked.error_messages:
            return None
        parameters = checked.validated_parameters
        try:
            # Where Ansible starts modules on this machine, and so where relative paths begin.
            with contextlib.chdir(self._loader.get_basedir()):
                result = ensure(parameters, check_mode=bool(self._task.check_mode), diff=bool(self._task.diff))
        except (PkiError, FileError) as error:
            result = {"failed": True, "msg": str(error)}
        result["invocation"] = {"module_args": parameters}
        # As AnsibleModule does on its way out.
        told = {key: value for key, value in result.items() if value is None or isinstance(value, bool)}
        masked = {**remove_values(result, checked._no_log_values), **told}
        # What went through JSON is data, whatever the options were to Ansible.
        data: dict[str, Any] = json.loads(json.dumps(masked))
        return data


def _same_program(one: str, other: str) -> bool:
    """By directory too: a virtual environment is one interpreter's link in a directory of its own."""
    return os.path.realpath(one) == os.path.realpath(other) and os.path.realpath(
        os.path.dirname(one)  # noqa: PTH120
    ) == os.path.realpath(os.path.dirname(other))  # noqa: PTH120
