# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""k8sgu.cluster.preflight_description: all of it happens on the controller, so there is no module to be executed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase

from ansible_collections.k8sgu.cluster.plugins.module_utils._preflight.check import check

ARGUMENT_SPEC = {
    "values": {"type": "dict", "required": True},
    "seen": {"type": "list", "elements": "str", "required": True},
    "nodes": {"type": "list", "elements": "dict", "default": []},
    "port_table": {"type": "list", "elements": "dict", "default": []},
    "roles_dir": {"type": "path", "required": True},
    "described": {"type": "bool", "default": False},
    "living": {"type": "dict"},
}


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core is not typed
    """See the documentation of the module."""

    _supports_check_mode = True
    _supports_async = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        result.update(changed=False)
        checked = ArgumentSpecValidator(ARGUMENT_SPEC).validate(dict(self._task.args))
        if checked.error_messages:
            result.update(failed=True, msg="; ".join(checked.error_messages))
            return result
        options = checked.validated_parameters
        problems = check(
            options["values"],
            options["seen"],
            options["nodes"],
            options["port_table"],
            Path(options["roles_dir"]),
            options["described"],
            options["living"],
        )
        if problems:
            # The message alone: Ansible shows the whole result, and a list beside it would say all of it twice.
            count = f"{len(problems)} problem{'' if len(problems) == 1 else 's'}"
            text = "\n".join(f"- {problem}" for problem in problems)
            result.update(failed=True, msg=f"{count}, and nothing was changed:\n{text}")
        return result
