# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module kubeconfig, in Ansible's own process where it would run just here."""

from __future__ import annotations

from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._files import FileError
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubeconfig.credentials import CRYPTOGRAPHY_IMPORT_ERROR
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubeconfig.document import HAS_YAML, ConfigError
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubeconfig.options import SPECIFICATION
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubeconfig.run import run
from ansible_collections.k8sgu.cluster.plugins.plugin_utils._in_process import Call, InProcessAction


class ActionModule(InProcessAction):
    """See the documentation of the module."""

    SPECIFICATION = SPECIFICATION
    ERRORS = (ConfigError, FileError)
    NUMBERS = ("owner", "group")

    def usable(self) -> bool:
        return HAS_YAML and CRYPTOGRAPHY_IMPORT_ERROR is None

    def work(self, call: Call) -> dict[str, Any]:
        result = run(call.params, call.check_mode, call.hidden.add)
        call.warnings += result.pop("warnings")
        return result
