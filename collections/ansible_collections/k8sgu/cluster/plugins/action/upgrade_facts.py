# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""k8sgu.cluster.upgrade_facts: looks up what the release brings, then asks the node by the compiled code it keeps."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase

from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import ComponentError
from ansible_collections.k8sgu.cluster.plugins.module_utils._upgrade.options import ARGUMENT_SPECS
from ansible_collections.k8sgu.cluster.plugins.module_utils._upgrade.wanted import prepare
from ansible_collections.k8sgu.cluster.plugins.plugin_utils._compiled import execute


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core is not typed
    """See the documentation of the module."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        checked = ArgumentSpecValidator(ARGUMENT_SPECS["upgrade_facts"]).validate(dict(self._task.args))
        faults = list(checked.error_messages)
        if checked.validated_parameters.get("prepared") is not None:
            faults.append("prepared: is filled in by the action plugin and cannot be given")
        if faults:
            return {**result, "failed": True, "msg": "; ".join(faults)}
        options = dict(checked.validated_parameters)
        try:
            options["prepared"] = prepare(options)
        except ComponentError as error:
            return {**result, "failed": True, "msg": str(error)}
        answer = execute(self, "_upgrade.facts:execute", {"options": options}, variables)
        if answer is None:
            answer = self._execute_module(module_args=options, task_vars=variables)
        answer.pop("invocation", None)
        result.update(answer)
        return result
