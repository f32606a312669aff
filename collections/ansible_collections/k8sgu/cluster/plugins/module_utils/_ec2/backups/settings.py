# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The settings of a bucket that was made: how each is read, compared and written.

Of a bucket that was brought, none is changed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Callable, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster import buckets
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import session, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description

# After how many days what is no current version any more goes, and what was uploaded in part.
NONCURRENT_DAYS, INCOMPLETE_DAYS = 7, 1


@dataclass(frozen=True)
class Bucket:
    """A bucket of this account, with its `settings` by the words of SETTINGS, or LOOKED_AT where it was brought."""

    name: str
    region: str
    tags: Mapping[str, str]
    settings: Mapping[str, Any] = field(default_factory=dict)

    def made(self, cluster: str) -> bool:
        """Whether the cluster made it, which its tag tells; otherwise it was brought."""
        return self.tags.get(tags.cluster_tag(cluster)) == tags.OWNED


@dataclass(frozen=True)
class Setting:
    """A setting of a bucket: how it is read and written, and what it shall be.

    `seen` takes the answer of `reads`, or None where that says one of `unset`. `says` tells what differs, given what is
    there and what is wanted.
    """

    word: str
    reads: str
    unset: tuple[str, ...]
    seen: Callable[[Mapping[str, Any]], Any]
    wanted: Callable[[Description], Any]
    writes: str
    request: Callable[[Any], dict[str, Any]]
    says: Callable[[Any, Any], str]


def arn(description: Description, partition: str = "") -> str:
    return f"arn:{partition or description.partition}:s3:::{description.backup_bucket}"


# Versioning: what is overwritten or deleted, by whomever, can be had back.
def versioning_says(there: Any, _wanted: Any) -> str:
    return f"versioning is {there.lower() if there else 'off'}"


# Encryption: the algorithm, the key, and whether objects share a data key, which spares a call of KMS for each.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-key.html
def _encryption_seen(answer: Mapping[str, Any]) -> Any:
    rules = answer["ServerSideEncryptionConfiguration"]["Rules"]
    given = rules[0].get("ApplyServerSideEncryptionByDefault", {}) if rules else {}
    algorithm = given.get("SSEAlgorithm", "")
    return algorithm, given.get("KMSMasterKeyID", ""), algorithm == "aws:kms" and bool(rules[0].get("BucketKeyEnabled"))


def _encryption_wanted(description: Description) -> Any:
    key = description.kms_key_id
    return ("aws:kms", key, True) if key else ("AES256", "", False)


def _encryption_request(value: Any) -> dict[str, Any]:
    algorithm, key, shared = value
    default = {"SSEAlgorithm": algorithm, **({"KMSMasterKeyID": key} if key else {})}
    rule = {"ApplyServerSideEncryptionByDefault": default, "BucketKeyEnabled": shared}
    return {"ServerSideEncryptionConfiguration": {"Rules": [rule]}}


def _encryption_says(there: Any, wanted: Any) -> str:
    def shown(value: Any) -> str:
        algorithm, key, shared = value or ("", "", False)
        return " ".join([algorithm or "none", *([key] if key else []), *(["with a bucket key"] if shared else [])])

    return f"its default encryption is {shown(there)} instead of {shown(wanted)}"


# Nobody else gets at it, whatever a policy or an ACL of an object says.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-control-block-public-access.html
BLOCKS = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")


def _blocks_seen(answer: Mapping[str, Any]) -> Any:
    return tuple(name for name in BLOCKS if answer["PublicAccessBlockConfiguration"].get(name))


def _blocks_request(value: Any) -> dict[str, Any]:
    return {"PublicAccessBlockConfiguration": {name: name in value for name in BLOCKS}}


def _blocks_says(there: Any, wanted: Any) -> str:
    return f"public access is not blocked in full ({', '.join(name for name in wanted if name not in (there or ()))})"


def _ownership_seen(answer: Mapping[str, Any]) -> Any:
    rules = answer["OwnershipControls"]["Rules"]
    return rules[0].get("ObjectOwnership", "") if rules else ""


def _ownership_request(value: Any) -> dict[str, Any]:
    return {"OwnershipControls": {"Rules": [{"ObjectOwnership": value}]}}


def _ownership_says(there: Any, wanted: Any) -> str:
    return f"ownership of objects is {there or 'not set'} instead of {wanted}"


def policy_wanted(description: Description) -> Any:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/security-best-practices.html#transit"""
    bucket = arn(description)
    statement = {
        "Sid": "DenyWithoutTls",
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [bucket, f"{bucket}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    return {"Version": "2012-10-17", "Statement": [statement]}


def _policy_says(there: Any, _wanted: Any) -> str:
    return "its policy is not the one that refuses requests without TLS" if there else "it takes requests without TLS"


def lifecycle_wanted(description: Description) -> Any:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/intro-lifecycle-rules.html"""
    name, days = description.name, description.backup_days
    rules: list[dict[str, Any]] = [
        {
            "ID": f"k8sgu-{name}-incomplete",
            "Status": "Enabled",
            "Filter": {"Prefix": buckets.prefix(name)},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": INCOMPLETE_DAYS},
        }
    ]
    if days:
        rules.insert(
            0,
            {
                "ID": f"k8sgu-{name}-etcd",
                "Status": "Enabled",
                "Filter": {"Prefix": buckets.etcd_prefix(name)},
                "Expiration": {"Days": days},
                "NoncurrentVersionExpiration": {"NoncurrentDays": NONCURRENT_DAYS},
            },
        )
    return rules


def _lifecycle_seen(answer: Mapping[str, Any]) -> Any:
    return sorted(answer["Rules"], key=lambda rule: str(rule.get("ID", "")))


def _lifecycle_says(there: Any, wanted: Any) -> str:
    def days(rules: Any) -> str:
        found = [rule for rule in rules or () if rule.get("ID") == f"{wanted[-1]['ID'].rpartition('-')[0]}-etcd"]
        count = found[0].get("Expiration", {}).get("Days") if found else None
        return f"after {count} days" if count else "never"

    if there and days(there) != days(wanted):
        return f"snapshots of etcd expire {days(there)} instead of {days(wanted)}"
    return "its lifecycle is not the description's"


# In the order in which a new bucket gets them: what protects it first.
SETTINGS = (
    Setting(
        "public-access",
        "get_public_access_block",
        ("NoSuchPublicAccessBlockConfiguration",),
        _blocks_seen,
        lambda description: BLOCKS,
        "put_public_access_block",
        _blocks_request,
        _blocks_says,
    ),
    Setting(
        "ownership",
        "get_bucket_ownership_controls",
        ("OwnershipControlsNotFoundError",),
        _ownership_seen,
        # No object has an ACL, or belongs to whoever put it there.
        # https://docs.aws.amazon.com/AmazonS3/latest/userguide/about-object-ownership.html
        lambda description: "BucketOwnerEnforced",
        "put_bucket_ownership_controls",
        _ownership_request,
        _ownership_says,
    ),
    Setting(
        "policy",
        "get_bucket_policy",
        ("NoSuchBucketPolicy",),
        lambda answer: json.loads(answer["Policy"]),
        policy_wanted,
        "put_bucket_policy",
        lambda value: {"Policy": json.dumps(value)},
        _policy_says,
    ),
    Setting(
        "encryption",
        "get_bucket_encryption",
        ("ServerSideEncryptionConfigurationNotFoundError",),
        _encryption_seen,
        _encryption_wanted,
        "put_bucket_encryption",
        _encryption_request,
        _encryption_says,
    ),
    Setting(
        "versioning",
        "get_bucket_versioning",
        (),
        lambda answer: answer.get("Status", ""),
        lambda description: "Enabled",
        "put_bucket_versioning",
        lambda value: {"VersioningConfiguration": {"Status": value}},
        versioning_says,
    ),
    Setting(
        "lifecycle",
        "get_bucket_lifecycle_configuration",
        ("NoSuchLifecycleConfiguration",),
        _lifecycle_seen,
        lifecycle_wanted,
        "put_bucket_lifecycle_configuration",
        lambda value: {"LifecycleConfiguration": {"Rules": value}},
        _lifecycle_says,
    ),
)
# What matters of a bucket that was brought: it is refused without versioning, and nodes need to use its key.
LOOKED_AT = ("versioning", "encryption")


def action(operation: str) -> str:
    """The action of a client's method, as a policy has it."""
    return session.s3_action("".join(word.capitalize() for word in operation.split("_")))


def _canonical(value: Any) -> Any:
    """As AWS may write a document anew: a list of one as that one, and lists of words in any order."""
    if isinstance(value, Mapping):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        items = [_canonical(item) for item in value]
        if len(items) == 1:
            return items[0]
        return sorted(items) if all(isinstance(item, str) for item in items) else items
    return value


def same(setting: Setting, there: Any, wanted: Any) -> bool:
    """Whether a setting is as it shall be."""
    if _canonical(there) == _canonical(wanted):
        return True
    if setting.word != "encryption" or not there or not wanted[1]:
        return False
    # A key given by id or alias may be told by its ARN.
    algorithm, key, shared = there
    return (algorithm, shared) == (wanted[0], wanted[2]) and key.endswith((f":key/{wanted[1]}", f":{wanted[1]}"))
