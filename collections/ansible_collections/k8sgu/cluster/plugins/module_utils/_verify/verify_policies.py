# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks every path between the pods of the set verify-policies against its NetworkPolicies."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.client import Client
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.kubeconfig import load
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.options import ARGUMENT_SPECS
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.policies import checks

# If packets are dropped instead of refused, the probe answers only after its own timeout.
PATIENCE_S = 20.0


def run(call: Call) -> dict[str, Any]:
    """The module's result. Raises KubernetesError."""
    options = call.options
    found = checks(Client(load(options["kubeconfig"], None), PATIENCE_S), options["domain"], options["timeout"])
    return {"changed": False, "checks": [asdict(check) for check in found]}


MODULE = Module(ARGUMENT_SPECS["verify_policies"], run, (KubernetesError,), check_mode=False)
