# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""k8sgu.cluster.preflight_node: the module, with the controller's clock before and after it."""

from __future__ import annotations

import time
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.plugin_utils._in_memory import InMemoryAction


class ActionModule(InMemoryAction):
    """See the documentation of the module."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        # Read before and after, so that a slow connection does not count as a wrong clock.
        before = time.time()
        result = super().run(tmp, task_vars)
        result["clock"] = {"before": before, "after": time.time()}
        return result
