"""Requests to S3: which they are, what they ask for, and how moto is told of them."""

from __future__ import annotations

import http
import io
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

from ec2lab.api.backends import REGION
from ec2lab.api.errors import S3Error
from ec2lab.api.signatures import Claim, Request

# Set by who serves plain HTTP at AWS's own names; the API's other sockets stand for AWS's HTTPS.
INSECURE = "ec2lab.insecure"

_ENDPOINT = re.compile(r"(?:(?P<bucket>.+)\.)?s3(?:[.-](?P<region>[a-z0-9-]+))?\.amazonaws\.com")

# What a parameter without a value, such as ?versioning, makes of a request: the actions to read, write and delete.
# https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
OF_BUCKETS = {
    "accelerate": ("GetAccelerateConfiguration", "PutAccelerateConfiguration", ""),
    "acl": ("GetBucketAcl", "PutBucketAcl", ""),
    "cors": ("GetBucketCORS", "PutBucketCORS", "PutBucketCORS"),
    "encryption": ("GetEncryptionConfiguration", "PutEncryptionConfiguration", "PutEncryptionConfiguration"),
    "inventory": ("GetInventoryConfiguration", "PutInventoryConfiguration", "PutInventoryConfiguration"),
    "lifecycle": ("GetLifecycleConfiguration", "PutLifecycleConfiguration", "PutLifecycleConfiguration"),
    "location": ("GetBucketLocation", "", ""),
    "logging": ("GetBucketLogging", "PutBucketLogging", ""),
    "notification": ("GetBucketNotification", "PutBucketNotification", ""),
    "object-lock": ("GetBucketObjectLockConfiguration", "PutBucketObjectLockConfiguration", ""),
    "ownershipControls": ("GetBucketOwnershipControls", "PutBucketOwnershipControls", "PutBucketOwnershipControls"),
    "policy": ("GetBucketPolicy", "PutBucketPolicy", "DeleteBucketPolicy"),
    "policyStatus": ("GetBucketPolicyStatus", "", ""),
    "publicAccessBlock": (
        "GetBucketPublicAccessBlock",
        "PutBucketPublicAccessBlock",
        "PutBucketPublicAccessBlock",
    ),
    "replication": ("GetReplicationConfiguration", "PutReplicationConfiguration", "PutReplicationConfiguration"),
    "tagging": ("GetBucketTagging", "PutBucketTagging", "PutBucketTagging"),
    "uploads": ("ListBucketMultipartUploads", "", ""),
    "versioning": ("GetBucketVersioning", "PutBucketVersioning", ""),
    "versions": ("ListBucketVersions", "", ""),
    "website": ("GetBucketWebsite", "PutBucketWebsite", "DeleteBucketWebsite"),
}
OF_OBJECTS = {
    "acl": ("GetObjectAcl", "PutObjectAcl", ""),
    "attributes": ("GetObjectAttributes", "", ""),
    "legal-hold": ("GetObjectLegalHold", "PutObjectLegalHold", ""),
    "retention": ("GetObjectRetention", "PutObjectRetention", ""),
    "tagging": ("GetObjectTagging", "PutObjectTagging", "DeleteObjectTagging"),
    "uploadId": ("ListMultipartUploadParts", "PutObject", "AbortMultipartUpload"),
}
VERSIONED = frozenset(
    [
        "GetObject",
        "GetObjectAcl",
        "GetObjectAttributes",
        "GetObjectTagging",
        "PutObjectAcl",
        "PutObjectTagging",
        "DeleteObject",
        "DeleteObjectTagging",
    ]
)
# Of what S3 has and the lab does not: moto would take the request for another.
ABSENT = frozenset(
    ("analytics", "intelligent-tiering", "metrics", "select", "torrent", "requestPayment", "metadataTable")
)


def arn(name: str) -> str:
    """Of a bucket, or of an object by its bucket and key."""
    return f"arn:aws:s3:::{name}"


@dataclass(frozen=True)
class Caller:
    """Who signed a request, with the documents that say what they may; `limits` each must allow it too."""

    arn: str
    names: frozenset[str]
    documents: tuple[dict[str, Any], ...]
    limits: tuple[dict[str, Any], ...]
    keys: Mapping[str, list[str]]


@dataclass
class Asked:
    """A request to S3, taken apart."""

    request: Request
    bucket: str
    key: str
    insecure: bool
    address: str
    caller: Caller | None = None
    claim: Claim | None = None
    secret: str = ""
    document: bytes = b""
    names: frozenset[str] = field(default_factory=frozenset)

    @property
    def resource(self) -> str:
        return arn(f"{self.bucket}/{self.key}" if self.key else self.bucket or "*")

    @property
    def is_content(self) -> bool:
        """Whether the request's body is an object's or a part's."""
        subresources = self.names & (OF_OBJECTS.keys() - {"uploadId"})
        copies = "x-amz-copy-source" in self.request.headers
        return self.request.method == "PUT" and bool(self.key) and not subresources and not copies


def concerns(environ: dict[str, Any], infer: Callable[[dict[str, Any], str], str | None]) -> bool:
    """Whether a request is S3's: by its host, by its signature, or because moto would take it for S3 (`infer`)."""
    if _ENDPOINT.fullmatch(_host(environ)):
        return True
    path = str(environ.get("PATH_INFO", ""))
    if path.startswith(("/moto-api", "/latest/meta-data/", "/latest/api/")) or path == "/favicon.ico":
        return False
    if not environ.get("HTTP_AUTHORIZATION"):
        query = dict(parse_qsl(str(environ.get("QUERY_STRING", ""))))
        if query.get("X-Amz-Credential", "").endswith("/s3/aws4_request") or "AWSAccessKeyId" in query:
            return True
    inferred = infer(environ, path)
    return inferred is None or inferred == "s3control" or inferred.startswith("s3.")


def _host(environ: dict[str, Any]) -> str:
    return str(environ.get("HTTP_HOST", "")).partition(":")[0].lower()


def take_apart(environ: dict[str, Any]) -> Asked:
    raw = str(environ.get("RAW_URI") or environ.get("PATH_INFO", "/"))
    if "://" in raw.partition("?")[0]:
        raw = "/" + raw.partition("://")[2].partition("/")[2]
    path, _mark, query = raw.partition("?")
    endpoint = _ENDPOINT.fullmatch(_host(environ))
    by_host = endpoint["bucket"] if endpoint else None
    resource = f"/{by_host}{path}" if by_host else path
    bucket, _slash, key = resource.lstrip("/").partition("/")
    headers = {
        name.removeprefix("HTTP_").replace("_", "-").lower(): str(value)
        for name, value in environ.items()
        if name.startswith("HTTP_") or name in ("CONTENT_TYPE", "CONTENT_LENGTH")
    }
    pairs = [part.partition("=")[::2] for part in query.split("&") if part]
    decoded = tuple((unquote(name), unquote(value)) for name, value in pairs)
    return Asked(
        Request(str(environ["REQUEST_METHOD"]), path, decoded, headers, resource),
        unquote(bucket),
        unquote(key),
        bool(environ.get(INSECURE)),
        str(environ.get("REMOTE_ADDR", "")),
        names=frozenset(name for name, _value in decoded),
    )


def actions(asked: Asked) -> list[tuple[str, str]]:
    """(action, resource) of each permission that the request needs; S3Error for what S3 or the lab does not have."""
    method, names = asked.request.method, asked.names
    if names & ABSENT or asked.request.path.startswith("/v20180820/"):
        raise S3Error("NotImplemented", 501, "The lab's S3 does not have this function")
    table = OF_OBJECTS if asked.key else OF_BUCKETS
    found = sorted(names & table.keys())
    if len(found) > 1:
        raise S3Error(
            "InvalidArgument",
            400,
            f"Conflicting query string parameters: {', '.join(found)}",
            {"ArgumentName": "ResourceType", "ArgumentValue": found[0]},
        )
    if not asked.bucket:
        plain = {"GET": "ListAllMyBuckets"}.get(method, "")
    elif not asked.key:
        plain = {"GET": "ListBucket", "HEAD": "ListBucket", "PUT": "CreateBucket", "DELETE": "DeleteBucket"}.get(
            method, ""
        )
    else:
        plain = {"GET": "GetObject", "HEAD": "GetObject", "PUT": "PutObject", "DELETE": "DeleteObject"}.get(method, "")
    if method == "POST" and asked.bucket:
        if asked.key and names & {"uploads", "uploadId"}:
            plain = "PutObject"
        elif asked.key and "restore" in names:
            plain = "RestoreObject"
        elif not asked.key and "delete" in names:
            return []  # each object by itself: `refused_deletions`
    elif found:
        plain = dict(zip(("GET", "PUT", "DELETE"), table[found[0]], strict=True)).get(method, "")
    if not plain:
        raise S3Error("MethodNotAllowed", 405, "The specified method is not allowed against this resource.")
    versioned = "Version" if plain in VERSIONED and "versionId" in names else ""
    needed = [(_versioned(plain) if versioned else f"s3:{plain}", asked.resource)]
    if plain == "GetObjectAttributes":
        needed.append((f"s3:GetObject{versioned}", asked.resource))
    if plain == "PutObject" and "x-amz-tagging" in asked.request.headers:
        needed.append(("s3:PutObjectTagging", asked.resource))
    source = asked.request.headers.get("x-amz-copy-source", "")
    if plain == "PutObject" and source:
        path, _mark, query = source.lstrip("/").partition("?")
        of_version = "Version" if "versionId=" in query else ""
        needed.append((f"s3:GetObject{of_version}", arn(unquote(path))))
    return needed


def _versioned(action: str) -> str:
    """`GetObjectVersionTagging` of `GetObjectTagging`."""
    return "s3:" + action.replace("Object", "ObjectVersion", 1)


def for_moto(environ: dict[str, Any], asked: Asked, checksums: Mapping[str, str]) -> dict[str, Any]:
    """The request as moto understands it: by path, at one host, without what has been dealt with."""
    region = asked.claim.region if asked.claim and asked.claim.region else REGION
    raw = asked.request.resource
    query = str(environ.get("QUERY_STRING", ""))
    dropped = ("HTTP_TRANSFER_ENCODING", "wsgi.input_terminated", "HTTP_X_AMZ_CONTENT_SHA256", "HTTP_X_AMZ_TRAILER")
    return {
        **{name: value for name, value in environ.items() if name not in dropped},
        **checksums,
        "HTTP_HOST": f"s3.{region}.amazonaws.com",
        "PATH_INFO": unquote(raw, "latin-1"),
        "RAW_URI": f"{raw}?{query}" if query else raw,
        "REQUEST_URI": f"{raw}?{query}" if query else raw,
        "CONTENT_LENGTH": str(len(asked.document)),
        "wsgi.input": io.BytesIO(asked.document),
    }


def error_answer(error: S3Error, asked: Asked) -> tuple[str, list[tuple[str, str]], bytes]:
    """(status, headers, body) of a refusal."""
    request_id = uuid.uuid4().hex[:16].upper()
    body = error.document(asked.request.resource, request_id)
    headers = [
        ("Content-Type", "application/xml"),
        ("Content-Length", str(len(body))),
        ("x-amz-request-id", request_id),
    ]
    if "Region" in error.more:
        headers.append(("x-amz-bucket-region", error.more["Region"]))
    return f"{error.status} {http.HTTPStatus(error.status).phrase}", headers, body
