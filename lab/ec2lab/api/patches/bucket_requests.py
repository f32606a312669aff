"""Buckets: tags that they are made with, and requests that say whose bucket they expect.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateBucket.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-owner-condition.html
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

from moto.s3.exceptions import BucketAccessDeniedError
from moto.s3.models import s3_backends
from moto.s3.responses import ACTION_MAP, S3Response

# Settings whose permissions moto takes for those of the whole bucket.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
ACTIONS = {
    "encryption": "EncryptionConfiguration",
    "ownershipControls": "BucketOwnershipControls",
    "publicAccessBlock": "BucketPublicAccessBlock",
}


def install() -> None:
    for method, verb in (("GET", "Get"), ("PUT", "Put")):
        ACTION_MAP["BUCKET"][method].update({word: f"{verb}{subject}" for word, subject in ACTIONS.items()})
    before = S3Response._bucket_response
    if before.__module__ == __name__:
        return

    def answer(self: Any, request: Any, full_url: str) -> Any:
        name = self.parse_bucket_name_from_url(request, full_url)
        there = name in s3_backends.bucket_accounts
        expected = request.headers.get("x-amz-expected-bucket-owner")
        if there and expected and s3_backends.bucket_accounts[name][1] != expected:
            raise BucketAccessDeniedError(bucket=name)
        said = before(self, request, full_url)
        if name and not there and name in s3_backends.bucket_accounts:
            self.backend.put_bucket_tagging(name, _tags(self.body))
        return said

    S3Response._bucket_response = answer


def _tags(body: bytes) -> dict[str, str]:
    # `{*}` stands for the namespace, which clients may leave out.
    tags = ET.fromstring(body).iterfind("{*}Tags/{*}Tag") if body else ()  # noqa: S314 - as moto has read it already
    return {tag.findtext("{*}Key", ""): tag.findtext("{*}Value", "") for tag in tags}
