# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks a cluster through its API: all checks, or only those of a node's failure or of load."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.client import Client
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.kubeconfig import load
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify import autoscaling
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.cluster import (
    ClusterChecks,
    audited_request,
    reschedule_check,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.kubectl import Kubectl, find
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.options import ARGUMENT_SPECS

# A single request is not retried for long: the checks themselves wait.
PATIENCE_S = 3.0


def run(call: Call) -> dict[str, Any]:
    """The module's result. Raises KubernetesError."""
    options = call.options
    if call.check_mode:
        return {"changed": False, "checks": [], "user_agent": ""}
    user_agent = f"k8sgu-verify/{uuid.uuid4()}"
    client = Client(load(options["kubeconfig"], None), PATIENCE_S, user_agent)
    if options["autoscaling"]:
        checks = autoscaling.checks(client, options["domain"], options["timeout"])
    elif options["stopped_node"]:
        checks = [reschedule_check(client, options["stopped_node"], options["timeout"])]
    else:
        kubectl = Kubectl(find(options["kubectl"]), options["kubeconfig"])
        outside = (options["outside_name"], options["api_port"])
        checks = ClusterChecks(
            client,
            kubectl,
            options["nodes"],
            options["domain"],
            options["timeout"],
            outside,
            options["metrics_server"],
        ).run()
        audited_request(client)
    return {"changed": False, "checks": [asdict(check) for check in checks], "user_agent": user_agent}


MODULE = Module(ARGUMENT_SPECS["verify_cluster"], run, (KubernetesError,))
