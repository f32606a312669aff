# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module ec2_cluster, in Ansible's own process where it would run just here."""

from __future__ import annotations

from typing import Any, ClassVar

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import DescriptionError
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.options import ARGUMENT_SPECS, RULES
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.run import RunFailed, converge
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.session import BOTO3_IMPORT_ERROR, AwsError
from ansible_collections.k8sgu.cluster.plugins.plugin_utils._in_process import Call, InProcessAction


class ActionModule(InProcessAction):
    """See the documentation of the module."""

    SPECIFICATION: ClassVar[dict[str, Any]] = {"argument_spec": ARGUMENT_SPECS["ec2_cluster"], **RULES}
    ERRORS = (AwsError, DescriptionError, RunFailed)

    def usable(self) -> bool:
        return not BOTO3_IMPORT_ERROR

    def work(self, call: Call) -> dict[str, Any]:
        outcome = converge(call.params, check_mode=call.check_mode)
        call.warnings += outcome.warnings
        return outcome.result
