# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One look at a cluster through its API: every check, or the one that a node's failure asks for."""

from __future__ import annotations

import uuid
from dataclasses import asdict
from typing import Any, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.client import Client
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.kubeconfig import load
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.cluster import (
    ClusterChecks,
    audited_request,
    reschedule_check,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.kubectl import Kubectl, find

SPECIFICATION: dict[str, Any] = {
    "argument_spec": {
        "kubeconfig": {"type": "path", "required": True},
        "kubectl": {"type": "path", "default": "kubectl"},
        "nodes": {"type": "list", "elements": "str", "required": True},
        "domain": {"type": "str", "default": "cluster.local"},
        "outside_name": {"type": "str", "default": ""},
        "api_port": {"type": "int", "default": 6443},
        "timeout": {"type": "int", "default": 120},
        "stopped_node": {"type": "str"},
    }
}
# A single request is not tried again for long: the checks themselves wait.
PATIENCE_S = 3.0


def look(options: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """The module's result. Raises KubernetesError."""
    if check_mode:
        return {"changed": False, "checks": [], "user_agent": ""}
    user_agent = f"k8sgu-verify/{uuid.uuid4()}"
    client = Client(load(options["kubeconfig"], None), PATIENCE_S, user_agent)
    if options["stopped_node"]:
        checks = [reschedule_check(client, options["stopped_node"], options["timeout"])]
    else:
        kubectl = Kubectl(find(options["kubectl"]), options["kubeconfig"])
        outside = (options["outside_name"], options["api_port"])
        checks = ClusterChecks(client, kubectl, options["nodes"], options["domain"], options["timeout"], outside).run()
        audited_request(client)
    return {"changed": False, "checks": [asdict(check) for check in checks], "user_agent": user_agent}
