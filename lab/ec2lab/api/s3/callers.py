"""Who signed a request to S3, and what the policies of the caller and of the bucket let them do.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-control-block-operations.html
"""

from __future__ import annotations

import hmac
import json
import logging
from datetime import UTC
from typing import Any
from xml.etree import ElementTree as ET

from moto.iam.access_control import CreateAccessKeyFailure, IAMPolicy, create_access_key
from moto.iam.exceptions import NotFoundException

from ec2lab.api import policies, signatures
from ec2lab.api.backends import ACCOUNT, REGION, iam, sts
from ec2lab.api.errors import S3Error
from ec2lab.api.patches import buckets
from ec2lab.api.s3.requests import Asked, Caller, actions, arn
from ec2lab.api.signatures import Claim

log = logging.getLogger(__name__)

ROOT = f"arn:aws:iam::{ACCOUNT}:root"
# Conditions by headers and by parameters of a request.
HEADER_KEYS = frozenset(
    [
        "x-amz-acl",
        "x-amz-content-sha256",
        "x-amz-copy-source",
        "x-amz-metadata-directive",
        "x-amz-object-ownership",
        "x-amz-server-side-encryption",
        "x-amz-server-side-encryption-aws-kms-key-id",
        "x-amz-storage-class",
        "if-match",
        "if-none-match",
    ]
)
PARAMETER_KEYS = {"prefix": "prefix", "delimiter": "delimiter", "max-keys": "max-keys", "versionId": "VersionId"}


def authenticate(asked: Asked) -> None:
    """Finds the caller by the signature; S3Error when it is wrong, or the credentials are."""
    claim = signatures.claim(asked.request)
    if claim is None:
        return
    caller, secret = _caller(claim)
    signatures.check(claim, secret, asked.request)
    asked.claim, asked.caller, asked.secret = claim, caller, secret


def _caller(claim: Claim) -> tuple[Caller, str]:
    unknown = S3Error(
        "InvalidAccessKeyId",
        403,
        "The AWS Access Key Id you provided does not exist in our records.",
        {"AWSAccessKeyId": claim.access_key_id},
    )
    role = next((each for each in sts().assumed_roles if each.access_key_id == claim.access_key_id), None)
    if role is not None:
        if not claim.token:
            raise unknown
        if not hmac.compare_digest(claim.token.encode(), role.session_token.encode()):
            raise S3Error("InvalidToken", 400, "The provided token is malformed or otherwise invalid.")
        if role.expiration.replace(tzinfo=UTC) < signatures.now():
            raise S3Error("ExpiredToken", 400, "The provided token has expired.")
    headers = {"X-Amz-Security-Token": claim.token} if claim.token else {}
    try:
        held = create_access_key(ACCOUNT, "aws", claim.access_key_id, headers)
    except CreateAccessKeyFailure as failure:
        if failure.reason == "InvalidToken":
            raise S3Error("InvalidToken", 400, "The provided token is malformed or otherwise invalid.") from None
        raise unknown from None
    try:
        documents = tuple(IAMPolicy(policy)._policy_json for policy in held.collect_policies())
    except NotFoundException:  # the role was deleted
        documents = ()
    secret = str(held.create_credentials().secret_key)
    return (_of_user(claim, documents, unknown) if role is None else _of_role(role, documents)), secret


def _of_user(claim: Claim, documents: tuple[dict[str, Any], ...], unknown: S3Error) -> Caller:
    for user in iam().users.values():
        for key in user.access_keys:
            if key.access_key_id == claim.access_key_id:
                if key.status != "Active":
                    raise unknown
                keys = {"aws:username": [user.name], "aws:userid": [user.id], "aws:PrincipalType": ["User"]}
                return Caller(user.arn, _names(user.arn), documents, (), _keys_of(user.arn, keys))
    raise unknown


def _of_role(assumed: Any, documents: tuple[dict[str, Any], ...]) -> Caller:
    limits = [json.loads(assumed.policy)] if assumed.policy else []
    role = next((each for each in iam().roles.values() if each.arn == assumed.role_arn), None)
    boundary = role.permissions_boundary_arn if role is not None else None
    if boundary:
        limits.append(IAMPolicy(iam().managed_policies[boundary])._policy_json)
    keys = {"aws:userid": [assumed.user_id], "aws:PrincipalType": ["AssumedRole"]}
    # https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/iam-roles-for-amazon-ec2.html#role-usecase-ec2app
    if assumed.session_name.startswith("i-"):
        keys["ec2:SourceInstanceARN"] = [f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/{assumed.session_name}"]
    for tag in iam().list_role_tags(role.name, None)[0] if role is not None else []:
        keys[f"aws:PrincipalTag/{tag['Key']}"] = [tag["Value"]]
    names = _names(assumed.role_arn, assumed.arn)
    return Caller(assumed.arn, names, documents, tuple(limits), _keys_of(assumed.role_arn, keys))


def _names(*arns: str) -> frozenset[str]:
    return frozenset((*arns, ROOT, ACCOUNT))


def _keys_of(arn: str, more: dict[str, list[str]]) -> dict[str, list[str]]:
    return {"aws:PrincipalArn": [arn], "aws:PrincipalAccount": [ACCOUNT], **more}


def context(asked: Asked) -> dict[str, list[str]]:
    """The condition keys of a request.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
    """
    now, headers = signatures.now(), asked.request.headers
    found = {
        "aws:SecureTransport": [str(not asked.insecure).lower()],
        "aws:SourceIp": [asked.address],
        "aws:CurrentTime": [f"{now:%Y-%m-%dT%H:%M:%SZ}"],
        "aws:EpochTime": [str(int(now.timestamp()))],
        "aws:ResourceAccount": [ACCOUNT],
        "s3:ResourceAccount": [ACCOUNT],
    }
    if "user-agent" in headers:
        found["aws:UserAgent"] = [headers["user-agent"]]
    if not asked.insecure:
        found["s3:TlsVersion"] = ["1.3"]
    found |= {f"s3:{name}": [headers[name]] for name in HEADER_KEYS if name in headers}
    for name, key in PARAMETER_KEYS.items():
        value = asked.request.parameter(name)
        if value is not None:
            found[f"s3:{key}"] = [value]
    claim = asked.claim
    if claim is not None:
        found["s3:authType"] = ["REST-QUERY-STRING" if claim.in_address else "REST-HEADER"]
        found["s3:signatureversion"] = ["AWS4-HMAC-SHA256" if claim.version == 4 else "AWS"]
        if claim.version == 4:
            found["s3:signatureAge"] = [str(int((now - claim.moment).total_seconds() * 1000))]
            found["aws:RequestedRegion"] = [claim.region]
    return found | dict(asked.caller.keys if asked.caller else {})


def authorize(asked: Asked) -> None:
    """S3Error unless the caller may do what the request asks, and the bucket is there and is theirs to ask for."""
    needed = actions(asked)
    creates = needed == [("s3:CreateBucket", asked.resource)]
    for name in {asked.bucket, *(resource.partition(":::")[2].partition("/")[0] for _action, resource in needed)}:
        if name and name != "*" and not creates:
            _find(name, asked)
    for action, resource in needed:
        reason = refusal(asked, action, resource)
        if reason:
            raise denied(asked, action, resource, reason)
    if creates and asked.bucket == buckets.TAKEN:
        raise S3Error(
            "BucketAlreadyExists",
            409,
            "The requested bucket name is not available. The bucket namespace is shared by all users of the system. "
            "Please select a different name and try again.",
            {"BucketName": asked.bucket},
        )


def _find(name: str, asked: Asked) -> None:
    if name == buckets.TAKEN:
        raise S3Error("AccessDenied", 403, "Access Denied")
    bucket = buckets.s3().buckets.get(name)
    if bucket is None:
        raise S3Error("NoSuchBucket", 404, "The specified bucket does not exist", {"BucketName": name})
    claim = asked.claim
    if name == asked.bucket and claim is not None and claim.version == 4 and claim.region != bucket.region_name:
        raise S3Error(
            "AuthorizationHeaderMalformed",
            400,
            f"The authorization header is malformed; the region '{claim.region}' is wrong; expecting "
            f"'{bucket.region_name}'",
            {"Region": bucket.region_name},
        )


def refusal(asked: Asked, action: str, resource: str) -> str:
    """Why the caller may not; empty when they may.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic_policy-eval-basics-id-rbp.html
    """
    caller, keys = asked.caller, context(asked)
    bucket = buckets.s3().buckets.get(resource.partition(":::")[2].partition("/")[0])
    of_bucket = [json.loads(bucket.policy)] if bucket is not None and bucket.policy else []
    try:
        if caller is None:
            block = bucket.public_access_block if bucket is not None else None
            open_to_all = policies.decide(of_bucket, action, resource, keys, frozenset())
            closed = block is not None and block.restrict_public_buckets
            return "" if open_to_all == policies.ALLOWED and not closed else "because anonymous requests are not let in"
        by_bucket = policies.decide(of_bucket, action, resource, keys, caller.names)
        by_identity = policies.decide(caller.documents, action, resource, keys)
        by_limits = [policies.decide([limit], action, resource, keys) for limit in caller.limits]
        # A statement that names the account leaves it to the account's own policies.
        direct = policies.decide(of_bucket, action, resource, keys, caller.names - {ROOT, ACCOUNT})
    except ValueError as error:
        log.warning("%s: a policy cannot be evaluated: %s", resource, error)
        return f"because a policy cannot be evaluated ({error})"
    if by_bucket == policies.EXPLICIT:
        return "with an explicit deny in a resource-based policy"
    if policies.EXPLICIT in (by_identity, *by_limits):
        return "with an explicit deny in an identity-based policy"
    if any(decision != policies.ALLOWED for decision in by_limits):
        return f"because no permissions boundary or session policy allows the {action} action"
    if policies.ALLOWED in (by_identity, direct):
        return ""
    return f"because no identity-based policy allows the {action} action"


def denied(asked: Asked, action: str, resource: str, reason: str) -> S3Error:
    if asked.caller is None:
        return S3Error("AccessDenied", 403, "Access Denied")
    return S3Error(
        "AccessDenied",
        403,
        f'User: {asked.caller.arn} is not authorized to perform: {action} on resource: "{resource}" {reason}',
    )


def refused_deletions(asked: Asked) -> frozenset[str]:
    """The ARNs of the objects that a call for many may not delete; those are refused one by one."""
    if asked.key or asked.request.method != "POST" or "delete" not in asked.names:
        return frozenset()
    refused = set()
    for entry in _parse(asked.document).iter():
        if entry.tag.rpartition("}")[2] == "Object":
            said = {each.tag.rpartition("}")[2]: each.text or "" for each in entry}
            resource = arn(f"{asked.bucket}/{said.get('Key', '')}")
            action = "s3:DeleteObjectVersion" if said.get("VersionId") else "s3:DeleteObject"
            if refusal(asked, action, resource):
                refused.add(resource)
    return frozenset(refused)


def _parse(document: bytes) -> ET.Element:
    try:
        return ET.fromstring(document)  # noqa: S314 - expat of Python 3.11 bounds the expansion of entities
    except ET.ParseError:
        raise S3Error(
            "MalformedXML",
            400,
            "The XML you provided was not well-formed or did not validate against our published schema",
        ) from None


def hides_absence(asked: Asked, code: int, body: bytes) -> bool:
    """Whether S3 would not say that a key is missing: to those who may not list the bucket.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html
    """
    if code != 404 or not asked.key or asked.request.method not in ("GET", "HEAD"):
        return False
    if body and b"<Code>NoSuchKey</Code>" not in body:
        return False
    return bool(refusal(asked, "s3:ListBucket", arn(asked.bucket)))
