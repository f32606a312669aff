# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module node_drain, in Ansible's own process where it would run just here."""

from __future__ import annotations

from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._drain.running import SPECIFICATION, run
from ansible_collections.k8sgu.cluster.plugins.module_utils._manifest.errors import ManifestError
from ansible_collections.k8sgu.cluster.plugins.plugin_utils._here import Call, HereAction


class ActionModule(HereAction):
    """See the documentation of the module."""

    SPECIFICATION = SPECIFICATION
    ERRORS = (ManifestError,)

    def work(self, call: Call) -> dict[str, Any]:
        outcome = run(call.params, call.check_mode)
        call.warnings += outcome.warnings
        return outcome.result
