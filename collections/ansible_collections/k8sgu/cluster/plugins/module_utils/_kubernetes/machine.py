# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which machine a Node stands for."""

from __future__ import annotations

from typing import Any, Mapping

# What our kubelets register their Nodes with; it never changes, whatever machine has the name later.
PROVIDER = "aws:///"


def machine(node: Mapping[str, Any]) -> str:
    """The id of the instance that registered the Node; empty if it was none of AWS, or nobody says.

    https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/node-v1/#NodeSpec
    """
    provider = str((node.get("spec") or {}).get("providerID") or "")
    return provider.rpartition("/")[2] if provider.startswith(PROVIDER) else ""
