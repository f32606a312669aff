# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the control-plane nodes' role allows for backups: to put snapshots of etcd away, and nothing else.

Who breaks into a node can neither list, read nor remove a backup, and what is overwritten can be had back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster import buckets
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import kms, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.backups.settings import arn
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import (
    BACKUP_KEY,
    BACKUP_UPLOAD,
    Description,
    statements,
)

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current

# A multipart upload reads what it has written: https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html
KEY_ACTIONS = ("kms:Decrypt", "kms:GenerateDataKey")


def policy_of_role(description: Description, current: Current, node_role: str) -> Mapping[str, Any] | None:
    """The user's policy for the nodes of a role, and for the control plane what it takes to put snapshots away."""
    given = description.policies.get(node_role)
    if node_role != tags.CONTROL_PLANE or not description.backup_bucket:
        return given
    mine: list[dict[str, Any]] = [
        {
            "Sid": BACKUP_UPLOAD,
            "Effect": "Allow",
            "Action": ["s3:AbortMultipartUpload", "s3:PutObject"],
            "Resource": f"{arn(description)}/{buckets.etcd_prefix(description.name)}*",
        }
    ]
    key = key_used(description, current)
    if key:
        mine.append(
            {
                "Sid": BACKUP_KEY,
                "Effect": "Allow",
                "Action": list(KEY_ACTIONS),
                **dict(zip(("Resource", "Condition"), by_s3(key, description.region))),
            }
        )
    if not given:
        return {"Version": "2012-10-17", "Statement": mine}
    return {**given, "Statement": [*statements(given), *mine]}


def key_used(description: Description, current: Current) -> str:
    """The KMS key that S3 encrypts with in the name of whoever puts an object; empty for none of the account's own.

    Who may use S3 may use AWS's own key for it, alias/aws/s3.
    """
    there = current.bucket
    if there and not there.made(description.name):
        algorithm, key, _shared = there.settings.get("encryption") or ("", "", False)
        return "" if not algorithm.startswith("aws:kms") or key.endswith("alias/aws/s3") else key
    return description.kms_key_id if description.backup_bucket else ""


def by_s3(key: str, region: str) -> tuple[str, dict[str, Any]]:
    """The key by S3 alone. China's services have another domain."""
    resource, alias = kms.named(key, region)
    return resource, {**alias, "StringLike": {"kms:ViaService": f"s3.{region}.amazonaws.com*"}}


def bucket_of(current: Current, description: Description) -> str:
    """The bucket that the nodes' role names; empty without one."""
    for role in current.roles.values():
        for statement in statements(role.policy):
            found = statement.get("Resource") if statement.get("Sid") == BACKUP_UPLOAD else None
            key = f"/{buckets.etcd_prefix(description.name)}*"
            if isinstance(found, str) and found.endswith(key):
                return found[: -len(key)].rpartition(":")[2]
    return ""
