"""What S3 refuses of a bucket's configuration and moto takes: ACLs, public policies, policies that mean nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ec2lab.api import policies
from ec2lab.api.backends import ACCOUNT, iam
from ec2lab.api.errors import S3Error
from ec2lab.api.patches import buckets
from ec2lab.api.s3.requests import Asked, arn

LARGEST_POLICY = 20 << 10


def check_document(asked: Asked) -> None:
    """S3Error for a document that S3 refuses and moto takes."""
    method, headers = asked.request.method, asked.request.headers
    if method != "PUT" or not asked.bucket:
        return
    bucket = buckets.s3().buckets.get(asked.bucket)
    acl = headers.get("x-amz-acl")
    if bucket is None:
        ownership = headers.get("x-amz-object-ownership", "BucketOwnerEnforced")
        if acl not in (None, "private") and ownership == "BucketOwnerEnforced":
            raise S3Error(
                "InvalidBucketAclWithObjectOwnership",
                400,
                "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting",
            )
        return
    writes_acl = "acl" in asked.names or (asked.key and acl not in (None, "bucket-owner-full-control"))
    if writes_acl and bucket.ownership_rule == "BucketOwnerEnforced":
        raise S3Error("AccessControlListNotSupported", 400, "The bucket does not allow ACLs")
    if not asked.key and "policy" in asked.names:
        check_policy(asked.document, asked.bucket)
        block = bucket.public_access_block
        if block is not None and block.block_public_policy and _is_public(json.loads(asked.document)):
            raise S3Error(
                "AccessDenied",
                403,
                f"User: {asked.caller.arn if asked.caller else 'anonymous'} is not authorized to perform: "
                f's3:PutBucketPolicy on resource: "{asked.resource}" because public policies are prevented by the '
                "BlockPublicPolicy setting in S3 Block Public Access.",
            )


NARROWING = frozenset(
    [
        "aws:sourceip",
        "aws:sourcearn",
        "aws:sourcevpc",
        "aws:sourcevpce",
        "aws:sourceaccount",
        "aws:principalarn",
        "aws:principalorgid",
        "aws:principalaccount",
        "aws:userid",
        "s3:resourceaccount",
    ]
)


def _is_public(policy: dict[str, Any]) -> bool:
    """Whether a policy lets in everybody.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-control-block-public-access.html
    """
    for statement in policies.statements([policy]):
        keys = {key.lower() for pairs in statement.get("Condition", {}).values() for key in pairs}
        everybody = "*" in policies.principals_of(statement) or "NotPrincipal" in statement
        if statement["Effect"] == "Allow" and everybody and not keys & NARROWING:
            return True
    return False


def check_policy(document: bytes, bucket: str) -> None:
    """S3Error (MalformedPolicy) for a bucket policy that S3 does not take."""

    def malformed(message: str) -> S3Error:
        return S3Error("MalformedPolicy", 400, message)

    if len(document) > LARGEST_POLICY:
        raise malformed("Policy exceeds the maximum allowed document size.")
    try:
        policy = json.loads(document)
    except ValueError:
        raise malformed("Policies must be valid JSON and the first byte must be '{'") from None
    if not isinstance(policy, dict) or not policy.get("Statement"):
        raise malformed("Missing required field Statement")
    for statement in policies.statements([policy]):
        if not isinstance(statement, dict) or statement.get("Effect") not in ("Allow", "Deny"):
            raise malformed("Invalid effect")
        for element in ("Principal", "Action", "Resource"):
            if element not in statement and f"Not{element}" not in statement:
                raise malformed(f"Missing required field {element}")
        for action in _texts(statement, "Action"):
            if action != "*" and not re.fullmatch(r"(?i)s3:[a-z*?]+", action):
                raise malformed("Policy has invalid action")
        for resource in _texts(statement, "Resource"):
            if resource != arn(bucket) and not resource.startswith(f"{arn(bucket)}/"):
                raise malformed("Policy has invalid resource")
        for principal in policies.principals_of(statement) + policies.principals_of(statement, "NotPrincipal"):
            if not _exists(principal):
                raise S3Error("MalformedPolicy", 400, "Invalid principal in policy", {"Detail": principal})
        for operator in statement.get("Condition", {}):
            if not policies.known_operator(operator):
                raise S3Error("MalformedPolicy", 400, "Invalid Condition type : " + operator)


def _texts(statement: Mapping[str, Any], element: str) -> list[str]:
    return [str(each) for each in policies.listed(statement.get(element, statement.get(f"Not{element}")))]


def _exists(principal: str) -> bool:
    """Whether IAM knows a principal of this account; other accounts' are believed to be there."""
    if principal == "*" or re.fullmatch(r"\d{12}|arn:aws:iam::\d{12}:root", principal):
        return True
    found = re.fullmatch(r"arn:aws:(iam|sts)::(\d{12}):(role|user|assumed-role)/.+", principal)
    if found is None:
        return False
    if found[2] != ACCOUNT or found[3] == "assumed-role":
        return True
    return any(each.arn == principal for each in (*iam().roles.values(), *iam().users.values()))
