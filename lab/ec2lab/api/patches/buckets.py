"""S3: contents in files, what a new bucket has since 2023, and the rules for parts and names that moto lets pass.

Who may do what is decided before moto is asked (`ec2lab.api.s3`).
https://docs.aws.amazon.com/AmazonS3/latest/userguide/create-bucket-faq.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import moto.s3.responses
from moto.iam.access_control import PermissionResult
from moto.s3.exceptions import (
    EntityTooSmall,
    InvalidBucketName,
    InvalidPart,
    InvalidPartOrder,
    MalformedXML,
    NoSuchUpload,
)
from moto.s3.models import FakeBucket, FakeKey, FakeMultipart, PublicAccessBlock, S3Backend
from moto.s3.responses import S3Response
from moto.s3.utils import _VersionedKeyStore

from ec2lab.api import objects
from ec2lab.api.backends import ACCOUNT, get_backend
from ec2lab.api.objects import Body

MIB = 1 << 20
LEAST_PART = 5 * MIB  # of all parts but the last
# A name that another account has, wherever it is: bucket names are global.
TAKEN = "taken-by-another-account"
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_NAME = re.compile(r"(?!xn--|sthree-|amzn-s3-demo-)(?!.*\.\.)(?!\d+\.\d+\.\d+\.\d+$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_SUFFIXES = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")


class _Call:
    """What the call under way brings, besides what moto reads of it; calls are handled one at a time."""

    content: Body | None = None
    refused: frozenset[str] = frozenset()  # ARNs of objects that the caller may not delete, of a call that names many


call = _Call()


def s3() -> Any:
    return get_backend("s3")[ACCOUNT]["aws"]


def named() -> set[str]:
    """The files that hold contents of objects and of parts."""
    return {segment.name for body in _bodies() for segment in body.segments}


def _bodies() -> Iterator[Body]:
    for bucket in s3().buckets.values():
        for versions in dict.values(bucket.keys):
            yield from (version.value for version in versions if isinstance(version, FakeKey))
        for upload in bucket.multiparts.values():
            yield from (part.value for part in upload.parts.values())


def checksum(content: Iterable[bytes], algorithm: str) -> bytes | None:
    """The checksum's bytes; None for CRC32C and CRC64NVME, which Python's library does not have."""
    if algorithm == "CRC32":
        value = 0
        for piece in content:
            value = binascii.crc32(piece, value)
        return value.to_bytes(4, "big")
    if algorithm in ("SHA1", "SHA256"):
        digest = hashlib.new(algorithm, usedforsecurity=False)
        for piece in content:
            digest.update(piece)
        return digest.digest()
    return None


def install() -> None:
    FakeKey.value = property(_content, _keep)
    FakeKey.etag = property(lambda key: f'"{key._etag or key.value.md5()}"')
    FakeKey.dispose = _dispose
    FakeKey.__getstate__ = _state
    FakeKey.__setstate__ = _set_state
    _VersionedKeyStore.__reduce__ = lambda keys: (_restored, (list(dict.items(keys)),))
    FakeMultipart.complete = _complete
    FakeMultipart.dispose = lambda _upload: None
    FakeBucket.get_permission = _permission
    for method in ("upload_part", "upload_part_copy", "complete_multipart_upload"):
        setattr(S3Backend, method, _needs_upload(getattr(S3Backend, method)))
    S3Backend.create_bucket = _new_bucket(S3Backend.create_bucket)
    S3Backend.delete_bucket_encryption = lambda backend, name: _encrypt(backend.get_bucket(name))
    FakeBucket.set_lifecycle = _lifecycle(FakeBucket.set_lifecycle)
    S3Response.get_bucket_lifecycle = _told_lifecycle(S3Response.get_bucket_lifecycle)
    S3Response.setup_class = _with_content(S3Response.setup_class)
    moto.s3.responses.compute_checksum = _compute_checksum


# -- contents


def _content(key: Any) -> Body:
    body: Body = key._body
    return body


def _keep(key: Any, content: Body | bytes) -> None:
    if key._value_buffer is not None:
        key._value_buffer.close()
    key._value_buffer = None
    key._body = content if isinstance(content, Body) else objects.directory().put(content) if content else Body([])
    key.contentsize = len(key._body)


def _dispose(key: Any, garbage: bool = False) -> None:
    """The file is removed when no object of the saved state names it."""
    del garbage
    key.disposed = True


def _state(key: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(key).items() if name not in ("lock", "_value_buffer")}


def _set_state(key: Any, state: dict[str, Any]) -> None:
    content = state.pop("value", None)  # in a state that an older lab has written
    vars(key).update(state, lock=threading.Lock(), _value_buffer=None)
    if content is not None:
        _keep(key, content)


def _restored(versions: list[tuple[str, list[Any]]]) -> Any:
    """A bucket's objects with all their versions; by itself, pickle would keep the last one of each."""
    keys = _VersionedKeyStore()
    dict.update(keys, versions)
    return keys


def _with_content(moto_s: Callable[..., None]) -> Callable[..., None]:
    def setup_class(self: Any, *arguments: Any, **named: Any) -> None:
        moto_s(self, *arguments, **named)
        if call.content is not None:
            self.body = call.content

    return setup_class


def _compute_checksum(body: Any, algorithm: str, encode_base64: bool = True) -> bytes:
    """As moto's, which wants bytes; empty where the algorithm is not to be had."""
    value = checksum(body if isinstance(body, Body) else [body], algorithm) or b""
    return base64.b64encode(value) if encode_base64 else value


# -- uploads


def _needs_upload(moto_s: Callable[..., Any]) -> Callable[..., Any]:
    def with_upload(self: Any, bucket_name: str, multipart_id: str, *rest: Any, **named: Any) -> Any:
        if multipart_id not in self.get_bucket(bucket_name).multiparts:
            raise NoSuchUpload(upload_id=multipart_id)
        return moto_s(self, bucket_name, multipart_id, *rest, **named)

    return with_upload


def _complete(upload: Any, wanted: Iterator[tuple[int, str]]) -> tuple[Body, str, tuple[str, str, int] | None]:
    """The parts' files one after another, and not a copy of them."""
    parts: list[Any] = []
    before = 0
    for number, etag in wanted:
        if number <= before:
            raise InvalidPartOrder
        before = number
        part = upload.parts.get(number)
        if part is None or part.etag.strip('"') != etag.strip('"'):
            raise InvalidPart
        if parts and parts[-1].contentsize < LEAST_PART:
            raise EntityTooSmall
        parts.append(part)
    if not parts:
        raise MalformedXML
    digest = hashlib.md5(b"".join(bytes.fromhex(part.etag.strip('"')) for part in parts), usedforsecurity=False)
    body = objects.joined(part.value for part in parts)
    return body, f"{digest.hexdigest()}-{len(parts)}", _checksum_of(upload.metadata, body, parts)


def _checksum_of(metadata: Any, body: Body, parts: list[Any]) -> tuple[str, str, int] | None:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html"""
    algorithm = metadata.get("x-amz-checksum-algorithm")
    if not algorithm:
        return None
    kind = metadata.get("x-amz-checksum-type") or ("FULL_OBJECT" if algorithm == "CRC64NVME" else "COMPOSITE")
    if kind == "FULL_OBJECT":
        value, count = checksum(body, algorithm), 1
    else:
        each = [checksum(part.value, algorithm) or b"" for part in parts]
        value, count = checksum(each, algorithm), len(parts)
    return None if value is None else (kind, base64.b64encode(value).decode(), count)


# -- buckets


def _permission(_bucket: Any, _action: str, resource: str) -> Any:
    """moto asks in the middle of a call, without the policies' conditions; that has been decided before."""
    return PermissionResult.DENIED if resource in call.refused else PermissionResult.PERMITTED


def _encrypt(bucket: Any) -> None:
    """What every bucket has unless it is told otherwise, and has again when that is deleted."""
    bucket.encryption = {"Rule": {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}}


def _new_bucket(moto_s: Callable[..., Any]) -> Callable[..., Any]:
    def create_bucket(self: Any, bucket_name: str, *rest: Any, **named: Any) -> Any:
        if not _NAME.fullmatch(bucket_name) or bucket_name.endswith(_SUFFIXES):
            raise InvalidBucketName
        made = moto_s(self, bucket_name, *rest, **named)
        _encrypt(made)
        made.public_access_block = PublicAccessBlock(True, True, True, True)
        made.ownership_rule = "BucketOwnerEnforced"
        return made

    return create_bucket


def _listed(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [given]


def _lifecycle(moto_s: Callable[..., None]) -> Callable[..., None]:
    def set_lifecycle(self: Any, rules: Any) -> None:
        moto_s(self, _listed(rules))
        for kept, given in zip(self.rules, _listed(rules), strict=True):
            kept.newer_noncurrent = (given.get("NoncurrentVersionExpiration") or {}).get("NewerNoncurrentVersions")

    return set_lifecycle


def _told_lifecycle(moto_s: Callable[..., Any]) -> Callable[..., Any]:
    """With how many noncurrent versions a rule keeps, which moto forgets."""

    def get_bucket_lifecycle(self: Any) -> Any:
        status, headers, body = moto_s(self)
        text = body.decode() if isinstance(body, bytes) else body
        kept = iter(rule for rule in self.backend.get_bucket_lifecycle(self.bucket_name) if rule.nve_noncurrent_days)

        def add(found: re.Match[str]) -> str:
            newer = getattr(next(kept), "newer_noncurrent", None)
            return f"<NewerNoncurrentVersions>{newer}</NewerNoncurrentVersions>{found[0]}" if newer else found[0]

        return status, headers, re.sub("</NoncurrentVersionExpiration>", add, text)

    return get_bucket_lifecycle


__all__ = ["LEAST_PART", "TAKEN", "call", "checksum", "install", "named", "s3"]
