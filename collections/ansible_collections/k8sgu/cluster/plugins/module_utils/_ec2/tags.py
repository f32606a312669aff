# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tags by which a cluster's resources are found, whatever ec2_cluster creates.

The tag `kubernetes.io/cluster/<name>` is the cloud controller's. What a tag may hold:
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html
"""

from __future__ import annotations

from typing import Any, Iterable, Mapping

PREFIX = "k8sgu.io/"
CLUSTER_PREFIX = "k8sgu.io/cluster/"
OWNED = "owned"

NAME = "Name"
# control_plane or worker on instances; on other resources what they are within the cluster ("public", "api", ...).
ROLE = "k8sgu.io/role"
POOL = "k8sgu.io/pool"
POD_CIDR = "k8sgu.io/pod-cidr"
FINGERPRINT = "k8sgu.io/fingerprint"  # of the public key, on key pairs

CONTROL_PLANE = "control_plane"
WORKER = "worker"
BASTION = "bastion"


def cluster_tag(cluster: str) -> str:
    """The key of the tag that every resource of `cluster` carries, with the value `owned`."""
    return CLUSTER_PREFIX + cluster


def as_mapping(tags: Iterable[Mapping[str, str]] | None) -> dict[str, str]:
    """The API's list of {Key, Value} as a dictionary."""
    return {tag["Key"]: tag.get("Value", "") for tag in tags or ()}


def as_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """A dictionary as the API's list of {Key, Value}, in the order of the keys."""
    return [{"Key": key, "Value": tags[key]} for key in sorted(tags)]


def at_creation(kind: str, tags: Mapping[str, str]) -> list[dict[str, Any]]:
    """The TagSpecifications that put tags on a resource of EC2 when it is made."""
    return [{"ResourceType": kind, "Tags": as_list(tags)}]


def clusters_of(tags: Mapping[str, str]) -> list[str]:
    """The names of the clusters that own a resource with these tags; several only where somebody tagged it by hand."""
    return sorted(
        key[len(CLUSTER_PREFIX) :] for key, value in tags.items() if key.startswith(CLUSTER_PREFIX) and value == OWNED
    )


def owned_filter(cluster: str) -> dict[str, object]:
    """The filter of a describe call that finds what `cluster` owns."""
    return {"Name": "tag:" + cluster_tag(cluster), "Values": [OWNED]}
