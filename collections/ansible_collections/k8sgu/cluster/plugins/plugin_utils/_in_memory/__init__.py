# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a module with its files in the node's memory, so that it can report what is wrong with the node's disks."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase

# Other users cannot read what is in it: both directories are made with mode 0700.
_MEMORY = "/dev/shm"  # noqa: S108


class InMemoryAction(ActionBase):  # type: ignore[misc]  # ansible-core is not typed
    """Sends the module with the task's name."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        # Ansible's own directory, and the one in which Python unpacks the module.
        self._connection._shell.set_option("remote_tmp", f"{_MEMORY}/.ansible-${{USER}}/tmp")
        self._task.environment = [*(self._task.environment or []), {"TMPDIR": _MEMORY}]
        result.update(self._execute_module(task_vars=task_vars))
        return result
