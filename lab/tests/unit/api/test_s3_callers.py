"""Who may use S3: signatures, credentials that are over, policies of roles and of buckets."""

from __future__ import annotations

import hashlib
import http.client
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from api_support import RunningApi, assume, document, statement
from botocore import UNSIGNED
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from ec2lab.api import signatures
from ec2lab.api.backends import ACCOUNT, REGION, iam, sts

BUCKET, ARN = "backups", "arn:aws:s3:::backups"
Answer = tuple[int, bytes]


@pytest.fixture
def s3(running_api: RunningApi) -> Any:
    """The account's administrator, with a bucket that has one object."""
    client = running_api.client("s3")
    client.create_bucket(Bucket=BUCKET)
    client.put_object(Bucket=BUCKET, Key="etcd/one", Body=b"abc")
    return client


def ask(api: RunningApi, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Answer:
    connection = http.client.HTTPConnection(urlsplit(api.url).netloc, timeout=20)
    connection.request(method, path, body=body, headers=headers or {})
    answer = connection.getresponse()
    said = answer.status, answer.read()
    connection.close()
    return said


class Auth(S3SigV4Auth):
    """botocore's, for a content that is signed in another way than by its hash."""

    payload_is = ""

    def payload(self, request: Any) -> Any:
        return self.payload_is or super().payload(request)


def signed(api: RunningApi, method: str, path: str, body: bytes = b"", payload: str = "", **headers: str) -> Any:
    """The headers of a signed request."""
    keys = api.credentials
    request = AWSRequest(method, f"{api.url}{path}", data=body, headers=headers)
    auth = Auth(Credentials(keys.access_key_id, keys.secret_access_key), "s3", REGION)
    auth.payload_is = payload
    auth.add_auth(request)
    return dict(request.headers.items())


def code(raised: pytest.ExceptionInfo[ClientError]) -> str:
    return str(raised.value.response["Error"]["Code"])


def refused(call: Any, **arguments: Any) -> str:
    with pytest.raises(ClientError) as raised:
        call(**arguments)
    return code(raised)


# -- signatures


def test_the_administrator_may_do_everything(s3: Any) -> None:
    assert s3.get_object(Bucket=BUCKET, Key="etcd/one")["Body"].read() == b"abc"
    assert s3.head_object(Bucket=BUCKET, Key="etcd/one")["ContentLength"] == 3
    assert [each["Key"] for each in s3.list_objects_v2(Bucket=BUCKET)["Contents"]] == ["etcd/one"]


def test_a_wrong_secret_and_an_unknown_key(running_api: RunningApi, s3: Any) -> None:
    wrong = running_api.client("s3", secret="not the secret")
    assert refused(wrong.list_buckets) == "SignatureDoesNotMatch"
    assert refused(wrong.put_object, Bucket=BUCKET, Key="k", Body=b"x") == "SignatureDoesNotMatch"
    assert refused(running_api.client("s3", "AKIAUNKNOWN", "x").list_buckets) == "InvalidAccessKeyId"
    iam().users["lab-admin"].access_keys[0].status = "Inactive"
    assert refused(s3.list_buckets) == "InvalidAccessKeyId"


def test_other_services_still_believe_everybody(running_api: RunningApi) -> None:
    assert running_api.client("ec2", "AKIAUNKNOWN", "x").describe_vpcs()["Vpcs"]


@pytest.mark.parametrize(
    "change",
    [
        ("PUT", "/backups/other", {}, b"abc"),
        ("DELETE", "/backups/etcd/one", {}, b"abc"),
        ("PUT", "/backups/etcd/one?tagging", {}, b"abc"),
        ("PUT", "/backups/etcd/one", {"X-Amz-Date": "20200101T000000Z"}, b"abc"),
    ],
)
def test_what_was_signed_cannot_be_changed(
    running_api: RunningApi, s3: Any, change: tuple[str, str, dict[str, str], bytes]
) -> None:
    headers = signed(running_api, "PUT", "/backups/etcd/one", b"abc")
    assert ask(running_api, "PUT", "/backups/etcd/one", headers, b"abc")[0] == 200
    method, path, more, body = change
    status, said = ask(running_api, method, path, headers | more, body)
    assert status in (400, 403), said
    assert s3.head_object(Bucket=BUCKET, Key="etcd/one")["ContentLength"] == 3


@pytest.mark.parametrize(
    ("headers", "body", "status", "told"),
    [
        ({}, b"abd", 400, b"XAmzContentSHA256Mismatch"),
        ({"x-amz-acl": "private"}, b"abc", 403, b"<HeadersNotSigned>x-amz-acl</HeadersNotSigned>"),
    ],
)
def test_a_content_and_headers_that_were_not_signed(
    running_api: RunningApi, s3: Any, headers: dict[str, str], body: bytes, status: int, told: bytes
) -> None:
    before = s3.head_object(Bucket=BUCKET, Key="etcd/one")["ETag"]
    given = signed(running_api, "PUT", "/backups/etcd/one", b"abc") | headers
    found = ask(running_api, "PUT", "/backups/etcd/one", given, body)
    assert (found[0], told in found[1]) == (status, True), found
    assert s3.head_object(Bucket=BUCKET, Key="etcd/one")["ETag"] == before


def test_a_key_is_signed_as_it_was_written(s3: Any) -> None:
    for key in ("a b", "a+b", "ä/ß", "a%2Fb", "a//b", "a_b/c", "a=b&c", "~-._"):
        s3.put_object(Bucket=BUCKET, Key=f"keys/{key}", Body=key.encode())
        assert s3.get_object(Bucket=BUCKET, Key=f"keys/{key}")["Body"].read() == key.encode()
    assert len(s3.list_objects_v2(Bucket=BUCKET, Prefix="keys/")["Contents"]) == 8


@pytest.mark.parametrize(("minutes", "outcome"), [(-14, 200), (14, 200), (-16, 403), (16, 403)])
def test_a_clock_may_be_fifteen_minutes_off(
    running_api: RunningApi, s3: Any, monkeypatch: pytest.MonkeyPatch, minutes: int, outcome: int
) -> None:
    headers = signed(running_api, "GET", "/backups/etcd/one")
    real = signatures.now
    monkeypatch.setattr(signatures, "now", lambda: real() + timedelta(minutes=minutes))
    status, said = ask(running_api, "GET", "/backups/etcd/one", headers)
    assert status == outcome
    if outcome == 403:
        assert b"<Code>RequestTimeTooSkewed</Code>" in said
        assert b"<MaxAllowedSkewMilliseconds>900000</MaxAllowedSkewMilliseconds>" in said


def test_what_is_not_signed_is_refused(running_api: RunningApi, s3: Any) -> None:
    for method, path in (
        ("GET", "/"),
        ("GET", "/backups"),
        ("GET", "/backups/etcd/one"),
        ("PUT", "/backups/two"),
        ("DELETE", "/backups/etcd/one"),
        ("GET", "/s3_us-east-1/x"),
    ):
        status, said = ask(running_api, method, path)
        assert (status in (403, 404) and b"<Code>Access" in said) or b"NoSuchBucket" in said, (method, path, said)
    assert ask(running_api, "HEAD", "/backups/etcd/one") == (403, b"")
    host = {"Host": "backups.s3.us-east-1.amazonaws.com"}
    assert ask(running_api, "PUT", "/two", host, b"x")[0] == 403
    # By a host that is another service's, moto would take it for S3's.
    assert ask(running_api, "PUT", "/backups/two", {"Host": "ec2.us-east-1.amazonaws.com"}, b"x")[0] == 403
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert ask(running_api, "PUT", "/backups/two", form, b"Action=Nothing")[0] == 403
    assert ask(running_api, "GET", "/backups", {"Authorization": "AWS AKIA:abc"})[0] == 400
    assert "two" not in str(s3.list_objects_v2(Bucket=BUCKET))


@pytest.mark.parametrize("version", ["s3v4", "s3"])
def test_an_address_that_was_signed(running_api: RunningApi, s3: Any, version: str, monkeypatch: Any) -> None:
    keys = running_api.credentials
    client = boto3.client(
        "s3",
        endpoint_url=running_api.url,
        region_name=REGION,
        aws_access_key_id=keys.access_key_id,
        aws_secret_access_key=keys.secret_access_key,
        config=Config(signature_version=version),
    )

    def path(operation: str, key: str, **more: Any) -> str:
        given = {"Bucket": BUCKET, "Key": key, **more}
        return str(client.generate_presigned_url(operation, Params=given, ExpiresIn=60)).removeprefix(running_api.url)

    get, put = path("get_object", "etcd/one"), path("put_object", "a b/two")
    assert ask(running_api, "GET", get) == (200, b"abc")
    assert ask(running_api, "PUT", put, body=b"presigned")[0] == 200
    assert s3.get_object(Bucket=BUCKET, Key="a b/two")["Body"].read() == b"presigned"
    assert ask(running_api, "GET", get.replace("etcd/one", "etcd/two"))[0] == 403
    assert ask(running_api, "DELETE", get)[0] == 403
    assert ask(running_api, "GET", get + "&versionId=null")[0] == 403
    real = signatures.now
    monkeypatch.setattr(signatures, "now", lambda: real() + timedelta(seconds=90))
    status, said = ask(running_api, "GET", get)
    assert (status, b"Request has expired" in said) == (403, True)


def test_an_address_is_valid_for_a_week_at_most(running_api: RunningApi, s3: Any) -> None:
    del s3
    keys = running_api.credentials
    options = {"region_name": REGION, "endpoint_url": running_api.url, "config": Config(signature_version="s3v4")}
    client: Any = boto3.client(
        "s3",
        aws_access_key_id=keys.access_key_id,
        aws_secret_access_key=keys.secret_access_key,
        **options,  # type: ignore[call-overload]
    )
    address = client.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": "k"}, ExpiresIn=604801)
    status, said = ask(running_api, "GET", address.removeprefix(running_api.url))
    assert (status, b"AuthorizationQueryParametersError" in said) == (400, True)


# -- credentials of roles


def test_a_role_may_what_its_policies_allow(running_api: RunningApi, s3: Any) -> None:
    node = assume(running_api, "node", statement("Allow", "s3:PutObject", f"{ARN}/etcd/*"))
    node.put_object(Bucket=BUCKET, Key="etcd/two", Body=b"x")
    for call, given in (
        (node.put_object, {"Key": "other", "Body": b"x"}),
        (node.get_object, {"Key": "etcd/two"}),
        (node.delete_object, {"Key": "etcd/two"}),
        (node.list_objects_v2, {}),
        (node.get_bucket_policy, {}),
        (node.delete_bucket, {}),
    ):
        assert refused(call, Bucket=BUCKET, **given) == "AccessDenied"
    assert refused(node.head_object, Bucket=BUCKET, Key="etcd/two") == "403"
    assert refused(node.list_buckets) == "AccessDenied"
    assert refused(node.create_bucket, Bucket="another") == "AccessDenied"
    assert refused(node.list_objects_v2, Bucket="nowhere") == "NoSuchBucket"
    assert len(s3.list_objects_v2(Bucket=BUCKET)["Contents"]) == 2


def test_a_refusal_says_who_what_and_why(running_api: RunningApi, s3: Any) -> None:
    del s3
    node = assume(running_api, "node")
    with pytest.raises(ClientError) as raised:
        node.put_object(Bucket=BUCKET, Key="k", Body=b"x")
    assert raised.value.response["Error"]["Message"] == (
        f"User: arn:aws:sts::{ACCOUNT}:assumed-role/node/i-0123456789abcdef0 is not authorized to perform: "
        f's3:PutObject on resource: "{ARN}/k" because no identity-based policy allows the s3:PutObject action'
    )


def test_attached_policies_denies_boundaries_and_session_policies(running_api: RunningApi, s3: Any) -> None:
    del s3
    api = running_api.client("iam")
    everything = api.create_policy(PolicyName="all", PolicyDocument=document(statement("Allow", "s3:*", "*")))
    node = assume(running_api, "node", statement("Deny", "s3:Delete*", "*"))
    assert refused(node.list_buckets) == "AccessDenied"
    api.attach_role_policy(RoleName="node", PolicyArn=everything["Policy"]["Arn"])
    assert len(node.list_buckets()["Buckets"]) == 1
    assert refused(node.delete_object, Bucket=BUCKET, Key="etcd/one") == "AccessDenied"
    reads = api.create_policy(PolicyName="reads", PolicyDocument=document(statement("Allow", "s3:List*", "*")))
    api.put_role_permissions_boundary(RoleName="node", PermissionsBoundary=reads["Policy"]["Arn"])
    assert refused(node.put_object, Bucket=BUCKET, Key="k", Body=b"x") == "AccessDenied"
    assert len(node.list_objects_v2(Bucket=BUCKET)["Contents"]) == 1
    narrow = assume(
        running_api, "other", statement("Allow", "s3:*", "*"), Policy=document(statement("Allow", "s3:GetObject", "*"))
    )
    assert narrow.get_object(Bucket=BUCKET, Key="etcd/one")["ContentLength"] == 3
    assert refused(narrow.put_object, Bucket=BUCKET, Key="k", Body=b"x") == "AccessDenied"


def test_credentials_of_a_role_that_are_over_or_lack_their_token(
    running_api: RunningApi, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    del s3
    node = assume(running_api, "node", statement("Allow", "s3:*", "*"))
    held = sts().assumed_roles[-1]
    without = running_api.client("s3", held.access_key_id, held.secret_access_key)
    assert refused(without.list_buckets) == "InvalidAccessKeyId"
    other = running_api.client("s3", held.access_key_id, held.secret_access_key, "another")
    assert refused(other.list_buckets) == "InvalidToken"
    assert node.list_buckets()["Buckets"]
    held.expiration -= timedelta(hours=2)
    assert refused(node.list_buckets) == "ExpiredToken"


def test_a_missing_key_is_a_secret_of_who_may_list(running_api: RunningApi, s3: Any) -> None:
    reader = assume(running_api, "reader", statement("Allow", "s3:GetObject", f"{ARN}/*"))
    assert refused(reader.get_object, Bucket=BUCKET, Key="missing") == "AccessDenied"
    assert refused(reader.head_object, Bucket=BUCKET, Key="missing") == "403"
    assert refused(s3.get_object, Bucket=BUCKET, Key="missing") == "NoSuchKey"
    assert refused(s3.head_object, Bucket=BUCKET, Key="missing") == "404"


def test_conditions_of_a_role_s_policy(running_api: RunningApi, s3: Any) -> None:
    del s3
    node = assume(
        running_api,
        "node",
        statement("Allow", "s3:ListBucket", ARN, Condition={"StringLike": {"s3:prefix": "etcd/*"}}),
        statement("Allow", "s3:GetObject", f"{ARN}/*", Condition={"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}}),
        statement(
            "Allow",
            "s3:PutObject",
            f"{ARN}/*",
            Condition={"StringEquals": {"s3:x-amz-server-side-encryption": "AES256"}},
        ),
    )
    assert node.list_objects_v2(Bucket=BUCKET, Prefix="etcd/")["KeyCount"] == 1
    assert refused(node.list_objects_v2, Bucket=BUCKET) == "AccessDenied"
    assert refused(node.get_object, Bucket=BUCKET, Key="etcd/one") == "AccessDenied"
    assert refused(node.put_object, Bucket=BUCKET, Key="k", Body=b"x") == "AccessDenied"
    node.put_object(Bucket=BUCKET, Key="k", Body=b"x", ServerSideEncryption="AES256")


def test_many_deletions_are_refused_one_by_one(running_api: RunningApi, s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="tmp/a", Body=b"x")
    node = assume(running_api, "node", statement("Allow", "s3:DeleteObject", f"{ARN}/tmp/*"))
    answer = node.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "tmp/a"}, {"Key": "etcd/one"}]})
    assert [each["Key"] for each in answer["Deleted"]] == ["tmp/a"]
    assert [(each["Key"], each["Code"]) for each in answer["Errors"]] == [("etcd/one", "AccessDenied")]
    assert [each["Key"] for each in s3.list_objects_v2(Bucket=BUCKET)["Contents"]] == ["etcd/one"]


def test_a_copy_needs_to_read_its_source(running_api: RunningApi, s3: Any) -> None:
    del s3
    node = assume(running_api, "node", statement("Allow", "s3:PutObject", f"{ARN}/*"))
    source = {"Bucket": BUCKET, "Key": "etcd/one"}
    assert refused(node.copy_object, Bucket=BUCKET, Key="copy", CopySource=source) == "AccessDenied"
    running_api.client("iam").put_role_policy(
        RoleName="node",
        PolicyName="read",
        PolicyDocument=document(statement("Allow", "s3:GetObject", f"{ARN}/etcd/*")),
    )
    node.copy_object(Bucket=BUCKET, Key="copy", CopySource=source)


# -- policies of buckets


def test_a_bucket_s_policy_refuses_what_did_not_come_by_tls(running_api: RunningApi, s3: Any) -> None:
    """Where the API listens by itself it stands for AWS's HTTPS; the lab's internet says what came without it."""
    deny = statement(
        "Deny", "s3:*", [ARN, f"{ARN}/*"], Principal="*", Condition={"Bool": {"aws:SecureTransport": "false"}}
    )
    s3.put_bucket_policy(Bucket=BUCKET, Policy=document(deny))
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"x")
    headers = signed(running_api, "GET", "/backups/k")
    assert ask(running_api, "GET", "/backups/k", headers)[0] == 200


@pytest.mark.parametrize(
    ("principal", "outcome"),
    [
        (f"arn:aws:iam::{ACCOUNT}:role/node", "allowed"),
        (f"arn:aws:sts::{ACCOUNT}:assumed-role/node/i-0123456789abcdef0", "allowed"),
        (
            f"arn:aws:iam::{ACCOUNT}:root",
            "AccessDenied",
        ),  # which leaves it to the role's policies, of which there is none
        (ACCOUNT, "AccessDenied"),
        ("arn:aws:iam::999999999999:root", "AccessDenied"),
    ],
)
def test_a_bucket_s_policy_lets_a_principal_in(running_api: RunningApi, s3: Any, principal: str, outcome: str) -> None:
    node = assume(running_api, "node")
    allow = statement("Allow", "s3:GetObject", f"{ARN}/*", Principal={"AWS": principal})
    s3.put_bucket_policy(Bucket=BUCKET, Policy=document(allow))
    if outcome == "allowed":
        assert node.get_object(Bucket=BUCKET, Key="etcd/one")["Body"].read() == b"abc"
    else:
        assert refused(node.get_object, Bucket=BUCKET, Key="etcd/one") == outcome


def test_a_bucket_s_policy_denies_the_administrator_too(running_api: RunningApi, s3: Any) -> None:
    deny = statement("Deny", "s3:DeleteObject", f"{ARN}/etcd/*", Principal="*")
    s3.put_bucket_policy(Bucket=BUCKET, Policy=document(deny))
    with pytest.raises(ClientError, match="with an explicit deny in a resource-based policy"):
        s3.delete_object(Bucket=BUCKET, Key="etcd/one")
    s3.delete_bucket_policy(Bucket=BUCKET)
    s3.delete_object(Bucket=BUCKET, Key="etcd/one")
    del running_api


def test_a_public_policy_is_blocked_until_the_block_is_taken_away(running_api: RunningApi, s3: Any) -> None:
    allow = document(statement("Allow", "s3:GetObject", f"{ARN}/*", Principal="*"))
    assert refused(s3.put_bucket_policy, Bucket=BUCKET, Policy=allow) == "AccessDenied"
    off = {"BlockPublicAcls": True, "IgnorePublicAcls": True, "BlockPublicPolicy": False, "RestrictPublicBuckets": True}
    s3.put_public_access_block(Bucket=BUCKET, PublicAccessBlockConfiguration=off)
    s3.put_bucket_policy(Bucket=BUCKET, Policy=allow)
    anonymous = boto3.client(
        "s3", endpoint_url=running_api.url, region_name=REGION, config=Config(signature_version=UNSIGNED)
    )
    assert refused(anonymous.get_object, Bucket=BUCKET, Key="etcd/one") == "AccessDenied"
    s3.put_public_access_block(Bucket=BUCKET, PublicAccessBlockConfiguration={**off, "RestrictPublicBuckets": False})
    assert anonymous.get_object(Bucket=BUCKET, Key="etcd/one")["Body"].read() == b"abc"
    assert refused(anonymous.put_object, Bucket=BUCKET, Key="k", Body=b"x") == "AccessDenied"


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        ("not JSON", "valid JSON"),
        ("{}", "Missing required field Statement"),
        (document(statement("Allow", "s3:*", ARN)), "Missing required field Principal"),
        (document(statement("Perhaps", "s3:*", ARN, Principal="*")), "Invalid effect"),
        (document(statement("Deny", "ec2:*", ARN, Principal="*")), "invalid action"),
        (document(statement("Deny", "s3:*", "arn:aws:s3:::another/*", Principal="*")), "invalid resource"),
        (
            document(statement("Deny", "s3:*", ARN, Principal={"AWS": f"arn:aws:iam::{ACCOUNT}:role/nobody"})),
            "Invalid principal",
        ),
        (
            document(statement("Deny", "s3:*", ARN, Principal="*", Condition={"Boolean": {"a": "b"}})),
            "Invalid Condition",
        ),
        (document(statement("Deny", "s3:*", ARN, Principal="*", Sid="a" * 21000)), "maximum allowed document size"),
    ],
)
def test_a_policy_that_means_nothing_is_refused(s3: Any, policy: str, told: str) -> None:
    with pytest.raises(ClientError, match=told) as raised:
        s3.put_bucket_policy(Bucket=BUCKET, Policy=policy)
    assert code(raised) == "MalformedPolicy"
    assert refused(s3.get_bucket_policy, Bucket=BUCKET) == "NoSuchBucketPolicy"


def test_what_the_lab_does_not_have_is_said(running_api: RunningApi, s3: Any) -> None:
    del s3
    for path in ("/backups?analytics", "/v20180820/configuration/publicAccessBlock"):
        headers = signed(running_api, "GET", path)
        assert b"<Code>NotImplemented</Code>" in ask(running_api, "GET", path, headers)[1]
    headers = signed(running_api, "GET", "/backups?acl=&policy=")
    assert b"Conflicting query string" in ask(running_api, "GET", "/backups?acl=&policy=", headers)[1]
    assert hashlib.sha256(b"").hexdigest() == signatures.EMPTY
