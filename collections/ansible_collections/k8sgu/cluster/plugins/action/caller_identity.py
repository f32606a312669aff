# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module caller_identity, in Ansible's own process where it would run just here."""

from __future__ import annotations

from typing import Any, ClassVar

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.caller import RootUser, identify
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.options import ARGUMENT_SPECS
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.session import BOTO3_IMPORT_ERROR, AwsError
from ansible_collections.k8sgu.cluster.plugins.plugin_utils._in_process import Call, InProcessAction


class ActionModule(InProcessAction):
    """See the documentation of the module."""

    SPECIFICATION: ClassVar[dict[str, Any]] = {"argument_spec": ARGUMENT_SPECS["caller_identity"]}
    ERRORS = (AwsError, RootUser)

    def usable(self) -> bool:
        return BOTO3_IMPORT_ERROR is None

    def work(self, call: Call) -> dict[str, Any]:
        result, warnings = identify(call.params)
        call.warnings += warnings
        return result
