# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names of what a cluster is made of.

A name is fixed by the cluster alone, so that it is found again without memory.
"""

from __future__ import annotations

import hashlib
from typing import Iterable, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import tags

POLICY = "k8sgu"
API_PORT = 6443
ETCD_DEVICE = "/dev/sdf"
# How the load balancer finds out which API servers to send clients to, by the API's names.
# https://docs.aws.amazon.com/elasticloadbalancing/latest/network/target-group-health-checks.html
HEALTH_CHECK: Mapping[str, str | int] = {
    # A TCP connection succeeds while the API server still refuses work; its own word counts.
    "HealthCheckProtocol": "HTTPS",
    "HealthCheckPath": "/readyz",
    "HealthCheckIntervalSeconds": 10,
    # AWS's 10 s are as long as the interval. A server that needs more than 5 s to say that it is ready hangs, on etcd
    # above all, and would make its clients hang.
    "HealthCheckTimeoutSeconds": 5,
    "HealthyThresholdCount": 2,
    "UnhealthyThresholdCount": 2,
}
FINGERPRINT = "k8sgu.io/fingerprint"


def load_balancer(cluster: str) -> str:
    """Of the load balancer and of its target group."""
    return f"{cluster}-api"


def security_group(cluster: str, role: str) -> str:
    return f"k8sgu-{cluster}-{role.replace('_', '-')}"


def key_pair(cluster: str) -> str:
    return f"k8sgu-{cluster}"


def iam_path(cluster: str, region: str) -> str:
    """IAM is global: the region in path and name keeps clusters of one name in two regions apart."""
    return f"/k8sgu/{region}/{cluster}/"


def role(cluster: str, region: str, node_role: str) -> str:
    """Of an IAM role and of its instance profile; see `_names.rules` for what IAM's 64 characters leave the cluster."""
    return f"k8sgu-{cluster}-{region}-{node_role.replace('_', '-')}"


def fingerprint(public_key: str) -> str:
    """What a key pair's tag says of its key. EC2's own fingerprints differ by type and source of a key."""
    return hashlib.sha256(public_key.encode()).hexdigest()[:40]


def client_token(*parts: str) -> str:
    """A deterministic client token, of at most 64 ASCII characters as EC2 wants it."""
    return hashlib.sha256("\0".join(("k8sgu", *parts)).encode()).hexdigest()


def launch_token(cluster: str, vpc_id: str, node: str, ended: Iterable[str]) -> str:
    """The token of a node's launch.

    `ended` are the instances of that name that are gone: each gone one begins a generation, since EC2 answers the token
    of an ended instance with that instance.
    """
    return client_token("node", cluster, vpc_id, node, *sorted(ended))


def resource_tags(cluster: str, name: str, own: dict[str, str], users: dict[str, str]) -> dict[str, str]:
    """All tags of a resource: the user's, the cluster's, its Name and those of its kind."""
    return {**users, tags.cluster_tag(cluster): tags.OWNED, tags.NAME: name, **own}
