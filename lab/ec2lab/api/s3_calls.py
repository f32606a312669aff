"""What a request to S3 calls, which its method, its path and its query say together.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

# A setting of a bucket is a word of the query.
SETTINGS = {
    "encryption": "BucketEncryption",
    "lifecycle": "BucketLifecycleConfiguration",
    "location": "BucketLocation",
    "ownershipControls": "BucketOwnershipControls",
    "policy": "BucketPolicy",
    "publicAccessBlock": "PublicAccessBlock",
    "tagging": "BucketTagging",
    "versioning": "BucketVersioning",
}
HOST = re.compile(r"([a-z0-9-]+)\.s3[.-]")


def call(environ: Mapping[str, Any], body: bytes) -> tuple[str, dict[str, str]]:
    """The operation ("PutBucketVersioning") and its parameters, among them Bucket; both empty for calls of objects."""
    named = HOST.match(str(environ.get("HTTP_HOST", "")))
    bucket, _slash, key = unquote(str(environ.get("PATH_INFO", ""))).lstrip("/").partition("/")
    if named:
        bucket, key = named.group(1), f"{bucket}{_slash}{key}"
    if not bucket or key:
        return "", {}
    method = str(environ.get("REQUEST_METHOD", "GET"))
    query = {name for name, _value in parse_qsl(str(environ.get("QUERY_STRING", "")), keep_blank_values=True)}
    parameters = {"Bucket": bucket, **({"Tags": "given"} if b"<Tags>" in body else {})}
    for word, subject in SETTINGS.items():
        if word in query:
            return f"{method.capitalize()}{subject}", parameters
    whole = {"PUT": "CreateBucket", "HEAD": "HeadBucket", "DELETE": "DeleteBucket"}
    return whole.get(method, ""), parameters
