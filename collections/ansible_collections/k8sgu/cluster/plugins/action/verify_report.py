# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module verify_report, in Ansible's own process where it would run just here."""

from __future__ import annotations

from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.report import SPECIFICATION, NotProven, report
from ansible_collections.k8sgu.cluster.plugins.plugin_utils._in_process import Call, InProcessAction


class ActionModule(InProcessAction):
    """See the documentation of the module."""

    SPECIFICATION = SPECIFICATION
    ERRORS = (NotProven,)

    def work(self, call: Call) -> dict[str, Any]:
        return report(call.params, call.check_mode)
