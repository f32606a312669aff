# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""k8sgu.cluster.verify_node: the module, by the compiled code that the node keeps."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase

from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.options import ARGUMENT_SPECS
from ansible_collections.k8sgu.cluster.plugins.plugin_utils._compiled import execute


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core is not typed
    """See the documentation of the module."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        checked = ArgumentSpecValidator(ARGUMENT_SPECS["verify_node"]).validate(dict(self._task.args))
        answer = None
        # If the options are wrong, the module reports it.
        if not checked.error_messages:
            arguments = {"options": checked.validated_parameters}
            answer = execute(self, "_verify.node:execute", arguments, variables)
        result.update(answer if answer is not None else self._execute_module(task_vars=variables))
        return result
