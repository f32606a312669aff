"""The bodies of requests to S3: documents, and objects' contents, which go into files as they come."""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ec2lab.api import objects, signatures
from ec2lab.api.errors import S3Error
from ec2lab.api.objects import Body, Incoming
from ec2lab.api.patches import buckets
from ec2lab.api.s3.requests import Asked

GIB = 1 << 30
LARGEST_CONTENT = 5 * GIB  # of one PUT, and of one part
LARGEST_DOCUMENT = 2 << 20  # the list of parts, or of keys to delete


class Source:
    """The body of a request, of which no more is read than there is."""

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self._file: Any = environ["wsgi.input"]
        said = str(environ.get("CONTENT_LENGTH") or "0")
        self._left = int(said) if said.isdigit() else 0
        if environ.get("wsgi.input_terminated"):  # in chunks of HTTP, which end by themselves
            self._file = io.BufferedReader(self._file, objects.CHUNK)
            self._left = LARGEST_CONTENT * 2

    def read(self, most: int) -> bytes:
        return self._taken(self._file.read(min(most, self._left)))

    def readline(self, most: int) -> bytes:
        return self._taken(self._file.readline(min(most, self._left)))

    def _taken(self, piece: bytes) -> bytes:
        self._left = self._left - len(piece) if piece else 0
        return piece

    def drain(self) -> None:
        """Reads what a refused client still sends, so that it gets to read the answer."""
        while self._left and self.read(objects.CHUNK):
            pass


def length_of(asked: Asked) -> int:
    """The bytes of the content itself; S3Error when it is not said, or too many."""
    headers = asked.request.headers
    said = headers.get("x-amz-decoded-content-length", headers.get("content-length", ""))
    if not said.isdigit():
        raise S3Error("MissingContentLength", 411, "You must provide the Content-Length HTTP header.")
    if int(said) > LARGEST_CONTENT:
        raise S3Error(
            "EntityTooLarge",
            400,
            "Your proposed upload exceeds the maximum allowed size",
            {"ProposedSize": said, "MaxSizeAllowed": str(LARGEST_CONTENT)},
        )
    return int(said)


def read_document(source: Source, asked: Asked) -> bytes:
    """The body of a request that is no object's."""
    length = asked.request.headers.get("content-length", "0")
    if not length.isdigit() or int(length) > LARGEST_DOCUMENT:
        raise S3Error("MaxMessageLengthExceeded", 400, "Your request was too big.")
    return source.read(int(length))


def check_digests(asked: Asked) -> None:
    """S3Error unless the document is the one that was signed, and has the checksums that it came with."""
    document, md5 = asked.document, hashlib.md5(asked.document, usedforsecurity=False).hexdigest()
    _digests(asked, [document], hashlib.sha256(document).hexdigest(), md5, {})


def receive(source: Source, asked: Asked, incoming: Incoming) -> tuple[Body, dict[str, str]]:
    """Reads an object's content into its file; returns it, with moto's variables for its checksum."""
    length = length_of(asked)
    digest = hashlib.sha256()
    trailers: dict[str, str] = {}
    streamed = asked.claim is not None and asked.claim.payload.startswith("STREAMING-")
    pieces = _chunks(source, asked, trailers) if streamed else _plain(source, length)
    for piece in pieces:
        if incoming.size + len(piece) > length:
            raise _incomplete()
        incoming.write(piece)
        digest.update(piece)
    if incoming.size != length:
        raise _incomplete()
    body = incoming.body()
    return body, _digests(asked, body, digest.hexdigest(), body.md5(), trailers)


def _incomplete() -> S3Error:
    return S3Error(
        "IncompleteBody", 400, "You did not provide the number of bytes specified by the Content-Length HTTP header"
    )


def _plain(source: Source, length: int) -> Iterator[bytes]:
    while length:
        piece = source.read(min(length, objects.CHUNK))
        if not piece:
            return
        length -= len(piece)
        yield piece


def _chunks(source: Source, asked: Asked, trailers: dict[str, str]) -> Iterator[bytes]:
    """The content of a body in signed or unsigned chunks, with what follows it in `trailers`.

    https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html
    """
    claim = asked.claim
    assert claim is not None  # noqa: S101 - the caller has looked
    signed = claim.payload.startswith("STREAMING-AWS4-HMAC-SHA256")
    previous = claim.signature

    def check(kind: str, given: str, *rest: str) -> str:
        stamp = f"{claim.moment:{signatures.STAMP}}"
        text = "\n".join([f"{signatures.ALGORITHM}-{kind}", stamp, claim.scope, previous, *rest])
        right = signatures.sign(asked.secret, claim, text)
        if not hmac.compare_digest(right.encode(), given.encode()):
            raise S3Error(
                "SignatureDoesNotMatch", 403, "The request signature we calculated does not match that of a chunk."
            )
        return right

    size = -1
    while size:
        head, _semicolon, rest = source.readline(200).decode("latin-1").strip().partition(";")
        if not re.fullmatch(r"[0-9a-fA-F]{1,16}", head):
            raise _incomplete()
        size, digest, had = int(head, 16), hashlib.sha256(), 0
        for piece in _plain(source, size):
            digest.update(piece)
            had += len(piece)
            yield piece
        if had != size:
            raise _incomplete()
        if signed:
            previous = check("PAYLOAD", rest.partition("chunk-signature=")[2], signatures.EMPTY, digest.hexdigest())
        if size:
            source.readline(2)
    while line := source.readline(1000).decode("latin-1").strip():
        name, _colon, value = line.partition(":")
        trailers[name.lower()] = value.strip()
    if signed and claim.payload.endswith("-TRAILER"):
        given = trailers.pop("x-amz-trailer-signature", "")
        lines = "".join(f"{name}:{value}\n" for name, value in trailers.items())
        check("TRAILER", given, hashlib.sha256(lines.encode()).hexdigest())


def _digests(
    asked: Asked, content: Iterable[bytes], sha256: str, md5: str, trailers: Mapping[str, str]
) -> dict[str, str]:
    headers = {**asked.request.headers, **trailers}
    claim = asked.claim
    by_hash = claim is not None and not claim.payload.startswith(("STREAMING-", signatures.UNSIGNED))
    if claim is not None and by_hash and claim.payload != sha256:
        raise S3Error(
            "XAmzContentSHA256Mismatch",
            400,
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
            {"ClientComputedContentSHA256": claim.payload, "S3ComputedContentSHA256": sha256},
        )
    if "content-md5" in headers and base64.b64encode(bytes.fromhex(md5)).decode() != headers["content-md5"]:
        raise S3Error("BadDigest", 400, "The Content-MD5 you specified did not match what we received.")
    for algorithm in ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256"):
        value = headers.get(f"x-amz-checksum-{algorithm.lower()}")
        if value is None:
            continue
        right = buckets.checksum(content, algorithm)
        if right is not None and base64.b64encode(right).decode() != value:
            raise S3Error("BadDigest", 400, f"The {algorithm} you specified did not match the calculated checksum.")
        return {f"HTTP_X_AMZ_CHECKSUM_{algorithm}": value, "HTTP_X_AMZ_SDK_CHECKSUM_ALGORITHM": algorithm}
    return {}
