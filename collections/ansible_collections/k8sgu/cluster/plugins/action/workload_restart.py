# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""workload_restart, which always runs on the controller."""

from __future__ import annotations

from ansible_collections.k8sgu.cluster.plugins.module_utils._restart.run import MODULE
from ansible_collections.k8sgu.cluster.plugins.plugin_utils._in_process import InProcessAction


class ActionModule(InProcessAction):
    """See the documentation of the module."""

    MODULE = MODULE
    SENDABLE = False
