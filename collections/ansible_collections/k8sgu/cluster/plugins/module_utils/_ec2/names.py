# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names of what a cluster is made of.

A name follows from the cluster alone, so that everything is found again without a record of it.
"""

from __future__ import annotations

import hashlib
from typing import Iterable

API_PORT = 6443
# The device name of a volume for etcd. A Nitro instance shows it under another one; its id tells which it is.
ETCD_DEVICE = "/dev/sdf"


def load_balancer(cluster: str) -> str:
    """Of the load balancer and of its target group."""
    return f"{cluster}-api"


def security_group(cluster: str, role: str) -> str:
    return f"k8sgu-{cluster}-{role.replace('_', '-')}"


def bastion(cluster: str) -> str:
    return f"{cluster}-bastion"


def key_pair(cluster: str) -> str:
    return f"k8sgu-{cluster}"


def iam_path(cluster: str, region: str) -> str:
    """IAM is global: the region in path and name keeps clusters of one name in two regions apart."""
    return f"/k8sgu/{region}/{cluster}/"


def role(cluster: str, region: str, node_role: str) -> str:
    """Of an IAM role and of its instance profile; `_cluster.names` says what IAM's 64 characters leave the cluster."""
    return f"k8sgu-{cluster}-{region}-{node_role.replace('_', '-')}"


def client_token(*parts: str) -> str:
    """A deterministic client token, of at most 64 ASCII characters as EC2 wants it."""
    return hashlib.sha256("\0".join(("k8sgu", *parts)).encode()).hexdigest()


def launch_token(cluster: str, vpc_id: str, node: str, ended: Iterable[str]) -> str:
    """The token of a node's launch.

    `ended` are the instances of that name that are gone. Each of them calls for a new token, since EC2 answers the
    token of an ended instance with that instance.
    """
    return client_token("node", cluster, vpc_id, node, *sorted(ended))
