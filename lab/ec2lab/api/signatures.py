"""Signatures of S3's requests: version 4 in a header or in the address, and version 2 in the address.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html
boto3 still signs addresses with version 2 unless it is told otherwise.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import quote, unquote

from botocore.auth import HmacV1Auth

from ec2lab.api.errors import S3Error

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)  # where a signature has no date
EMPTY = hashlib.sha256(b"").hexdigest()
MOST_SKEW = timedelta(minutes=15)
LONGEST_ADDRESS = timedelta(days=7)
STAMP = "%Y%m%dT%H%M%SZ"


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Request:
    """A request as it came: `path` still encoded, `query` decoded, `headers` by lower-case names.

    `resource` is the path that version 2 signs, which begins with the bucket.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: Mapping[str, str]
    resource: str

    def parameter(self, name: str) -> str | None:
        return next((value for key, value in self.query if key == name), None)


@dataclass(frozen=True)
class Claim:
    """What a request says about who made it; true once `check` has returned."""

    version: int
    access_key_id: str
    token: str
    signature: str
    signed_headers: tuple[str, ...] = ()
    moment: datetime = EPOCH
    region: str = ""
    payload: str = UNSIGNED  # the content's SHA-256, or how else it is signed
    in_address: bool = False

    @property
    def scope(self) -> str:
        return f"{self.moment:%Y%m%d}/{self.region}/s3/aws4_request"


def claim(request: Request) -> Claim | None:
    """None for an anonymous request; S3Error for one that is malformed, too old, or too far in the future."""
    header = request.headers.get("authorization", "")
    in_address = request.parameter("X-Amz-Algorithm") is not None
    older = request.parameter("AWSAccessKeyId") is not None
    if bool(header) + in_address + older > 1:
        raise S3Error("InvalidArgument", 400, "Only one auth mechanism allowed")
    if header:
        return _of_header(request, header)
    if in_address:
        return _of_address(request)
    return _of_older_address(request) if older else None


def _of_header(request: Request, header: str) -> Claim:
    algorithm, _space, rest = header.partition(" ")
    if algorithm != ALGORITHM:
        raise S3Error(
            "InvalidRequest",
            400,
            f"The authorization mechanism you have provided is not supported. Please use {ALGORITHM}.",
        )
    fields = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    payload = request.headers.get("x-amz-content-sha256")
    if payload is None:
        raise S3Error("InvalidRequest", 400, "Missing required header for this request: x-amz-content-sha256")
    moment = _moment(request.headers)
    key, region = _scope(fields.get("Credential", ""), moment, "AuthorizationHeaderMalformed")
    _not_skewed(moment, request.headers)
    return Claim(
        4,
        key,
        request.headers.get("x-amz-security-token", ""),
        fields.get("Signature", ""),
        _signed(request, fields.get("SignedHeaders", "")),
        moment,
        region,
        payload,
    )


def _of_address(request: Request) -> Claim:
    def parameter(name: str) -> str:
        value = request.parameter(name)
        if value is None:
            raise _malformed(
                "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, X-Amz-Signature,"
                " X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters."
            )
        return value

    code = "AuthorizationQueryParametersError"
    if parameter("X-Amz-Algorithm") != ALGORITHM:
        raise _malformed(f'X-Amz-Algorithm only supports "{ALGORITHM}"')
    try:
        moment = datetime.strptime(parameter("X-Amz-Date"), STAMP).replace(tzinfo=UTC)
    except ValueError:
        raise _malformed("X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"") from None
    given = parameter("X-Amz-Expires")
    if not re.fullmatch(r"[0-9]{1,9}", given):
        raise _malformed("X-Amz-Expires should be a number")
    life = timedelta(seconds=int(given))
    if life > LONGEST_ADDRESS:
        raise _malformed(
            "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires must be"
            " less than 604800 seconds"
        )
    key, region = _scope(parameter("X-Amz-Credential"), moment, code)
    if moment > now() + MOST_SKEW:
        raise S3Error("AccessDenied", 403, "Request is not yet valid")
    _not_expired(moment + life)
    return Claim(
        4,
        key,
        request.parameter("X-Amz-Security-Token") or "",
        parameter("X-Amz-Signature"),
        _signed(request, parameter("X-Amz-SignedHeaders")),
        moment,
        region,
        request.headers.get("x-amz-content-sha256", UNSIGNED),
        in_address=True,
    )


def _of_older_address(request: Request) -> Claim:
    signature, until = request.parameter("Signature"), request.parameter("Expires") or ""
    if signature is None or not re.fullmatch(r"[0-9]{1,11}", until):
        raise S3Error(
            "AccessDenied",
            403,
            "Query-string authentication requires the Signature, Expires and AWSAccessKeyId parameters",
        )
    _not_expired(datetime.fromtimestamp(int(until), UTC))
    token = request.parameter("x-amz-security-token") or ""
    return Claim(2, str(request.parameter("AWSAccessKeyId")), token, signature, in_address=True)


def _malformed(message: str) -> S3Error:
    return S3Error("AuthorizationQueryParametersError", 400, message)


def _moment(headers: Mapping[str, str]) -> datetime:
    try:
        if "x-amz-date" in headers:
            return datetime.strptime(headers["x-amz-date"], STAMP).replace(tzinfo=UTC)
        return parsedate_to_datetime(headers["date"]).astimezone(UTC)
    except (KeyError, ValueError):
        raise S3Error("AccessDenied", 403, "AWS authentication requires a valid Date or x-amz-date header") from None


def _scope(credential: str, moment: datetime, code: str) -> tuple[str, str]:
    """The access key's id, and the region."""
    parts = credential.split("/")
    if len(parts) != 5:
        raise S3Error(
            code,
            400,
            "The authorization header is malformed; the Credential is mal-formed; expecting "
            '"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".',
        )
    key, day, region, service, end = parts
    for has, wants, what in (
        (service, "s3", "incorrect service"),
        (end, "aws4_request", "incorrect terminal"),
        (day, f"{moment:%Y%m%d}", "invalid credential date"),
    ):
        if has != wants:
            raise S3Error(
                code, 400, f'The authorization header is malformed; {what} "{has}". This endpoint belongs to "{wants}".'
            )
    return key, region


def _not_skewed(moment: datetime, headers: Mapping[str, str]) -> None:
    if abs(now() - moment) > MOST_SKEW:
        raise S3Error(
            "RequestTimeTooSkewed",
            403,
            "The difference between the request time and the current time is too large.",
            {
                "RequestTime": headers.get("x-amz-date", headers.get("date", "")),
                "ServerTime": f"{now():%Y-%m-%dT%H:%M:%SZ}",
                "MaxAllowedSkewMilliseconds": str(int(MOST_SKEW.total_seconds() * 1000)),
            },
        )


def _not_expired(until: datetime) -> None:
    if now() > until:
        raise S3Error(
            "AccessDenied",
            403,
            "Request has expired",
            {"Expires": f"{until:%Y-%m-%dT%H:%M:%SZ}", "ServerTime": f"{now():%Y-%m-%dT%H:%M:%SZ}"},
        )


def _signed(request: Request, given: str) -> tuple[str, ...]:
    """The signed headers' names; the host and what begins with `x-amz-` must be among them."""
    names = tuple(given.lower().split(";"))
    missing = [name for name in request.headers if name == "host" or name.startswith("x-amz-") if name not in names]
    if missing:
        raise S3Error(
            "AccessDenied",
            403,
            "There were headers present in the request which were not signed",
            {"HeadersNotSigned": ", ".join(sorted(missing))},
        )
    return names


def check(claim: Claim, secret: str, request: Request) -> None:
    """S3Error unless the request was signed with the secret."""
    if claim.version == 2:
        right = _older_signature(claim, secret, request)
    else:
        right = sign(secret, claim, _to_sign(claim, request))
    if not hmac.compare_digest(right.encode(), claim.signature.encode()):
        raise S3Error(
            "SignatureDoesNotMatch",
            403,
            "The request signature we calculated does not match the signature you provided. Check your key and signing "
            "method.",
            {"AWSAccessKeyId": claim.access_key_id},
        )


def _to_sign(claim: Claim, request: Request) -> str:
    query = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in request.query
        if not (claim.in_address and name == "X-Amz-Signature")
    )
    canonical = "\n".join(
        [
            request.method,
            quote(unquote(request.path, errors="surrogateescape"), safe="/-_.~", errors="surrogateescape"),
            "&".join(f"{name}={value}" for name, value in query),
            *(f"{name}:{' '.join(request.headers.get(name, '').split())}" for name in claim.signed_headers),
            "",
            ";".join(claim.signed_headers),
            claim.payload,
        ]
    )
    digest = hashlib.sha256(canonical.encode(errors="surrogateescape")).hexdigest()
    return "\n".join([ALGORITHM, f"{claim.moment:{STAMP}}", claim.scope, digest])


def sign(secret: str, claim: Claim, text: str) -> str:
    """The signature of a text, by the key of the claim's day, region and service."""
    key = f"AWS4{secret}".encode()
    for part in claim.scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.new(key, text.encode(), "sha256").hexdigest()


def _older_signature(claim: Claim, secret: str, request: Request) -> str:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/RESTAuthentication.html"""
    given = {name: value for name, value in request.headers.items() if name.startswith("x-amz-")}
    given |= {name.lower(): value for name, value in request.query if name.lower().startswith("x-amz-")}
    pieces = sorted(
        f"{name}={value}" if value else name for name, value in request.query if name in HmacV1Auth.QSAOfInterest
    )
    text = "\n".join(
        [
            request.method,
            request.headers.get("content-md5", ""),
            request.headers.get("content-type", ""),
            str(request.parameter("Expires")),
            *(f"{name}:{given[name].strip()}" for name in sorted(given)),
            request.resource + ("?" + "&".join(pieces) if pieces else ""),
        ]
    )
    return base64.b64encode(hmac.digest(secret.encode(), text.encode(), "sha1")).decode()
