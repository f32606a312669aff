# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module cfssl_cert, in Ansible's own process where it would run just here."""

from __future__ import annotations

from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._files import FileError
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.libraries import usable
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.cert_module import ensure
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.errors import PkiError
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.options import SPECIFICATION
from ansible_collections.k8sgu.cluster.plugins.plugin_utils._in_process import Call, InProcessAction


class ActionModule(InProcessAction):
    """See the documentation of the module."""

    SPECIFICATION = SPECIFICATION
    ERRORS = (PkiError, FileError)
    NUMBERS = ("renew_before",)  # which says itself that a unit is missing

    def usable(self) -> bool:
        return usable()

    def work(self, call: Call) -> dict[str, Any]:
        return ensure(call.params, check_mode=call.check_mode, diff=call.diff)
