# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module mirror, which works on the controller and says how far it is."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

from ansible_collections.k8sgu.cluster.plugins.module_utils._files import FileError
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.errors import MirrorError
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.run import ARGUMENT_SPEC, run


class ActionModule(ActionBase):  # type: ignore[misc]
    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _validated, params = self.validate_argument_spec(ARGUMENT_SPEC)
        display = Display()
        try:
            outcome = run(params, bool(self._task.check_mode), lambda text: display.display(f"  mirror: {text}"))
        except (MirrorError, FileError) as error:
            raise AnsibleActionFail(str(error)) from error
        result.update(outcome.as_result())
        return result
