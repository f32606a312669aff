# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module ec2_cluster, and what it shares with its action plugin."""

from __future__ import annotations

from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import DescriptionError
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.options import ARGUMENT_SPECS, RULES
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.run import RunFailed, converge
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.session import AwsError
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.libraries import BOTO3, LibraryMissing, require
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module


def run(call: Call) -> dict[str, Any]:
    """The module's result. Raises AwsError, DescriptionError, RunFailed and LibraryMissing."""
    require(BOTO3)
    outcome = converge(call.options, check_mode=call.check_mode)
    call.warnings += outcome.warnings
    return outcome.result


MODULE = Module(ARGUMENT_SPECS["ec2_cluster"], run, (AwsError, DescriptionError, RunFailed, LibraryMissing), RULES)
