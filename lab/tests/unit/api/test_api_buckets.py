"""Buckets: made with their tags, told from another account's, and known again after a restart or a failure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from api_support import RunningApi, forget_everything
from botocore.exceptions import ClientError
from test_api_consistency import codes

from ec2lab.api import s3_calls
from ec2lab.api.backends import ACCOUNT, get_backend

TAGS = [{"Key": "owner", "Value": "me"}, {"Key": "team", "Value": ""}]
VERSIONING: Mapping[str, Any] = {"Bucket": "backups", "VersioningConfiguration": {"Status": "Enabled"}}


def test_tags_are_there_from_the_beginning(running_api: RunningApi) -> None:
    s3 = running_api.client("s3")
    for name, given in (("two", TAGS), ("one", TAGS[:1])):
        s3.create_bucket(Bucket=name, CreateBucketConfiguration={"Tags": given})
        assert s3.get_bucket_tagging(Bucket=name)["TagSet"] == given
    s3.create_bucket(Bucket="none")
    assert codes(lambda: s3.get_bucket_tagging(Bucket="none"))[0] == "NoSuchTagSet"
    # Made again by its owner, a bucket of us-east-1 stays as it is.
    s3.create_bucket(Bucket="two")
    assert s3.get_bucket_tagging(Bucket="two")["TagSet"] == TAGS


def test_a_request_may_say_whose_bucket_it_expects(running_api: RunningApi) -> None:
    s3 = running_api.client("s3")
    s3.create_bucket(Bucket="backups", CreateBucketConfiguration={"Tags": TAGS})
    assert s3.get_bucket_tagging(Bucket="backups", ExpectedBucketOwner=ACCOUNT)["TagSet"] == TAGS
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.get_bucket_tagging(Bucket="backups", ExpectedBucketOwner="111111111111")
    with pytest.raises(ClientError, match="AccessDenied"):
        s3.put_bucket_versioning(**VERSIONING, ExpectedBucketOwner="111111111111")
    assert "Status" not in s3.get_bucket_versioning(Bucket="backups")


def test_names_are_those_of_the_state(running_api: RunningApi) -> None:
    """After a restart the bucket is there, and a name whose bucket was undone can be had again."""
    s3 = running_api.client("s3")
    s3.create_bucket(Bucket="backups")
    forget_everything()
    get_backend("s3").bucket_accounts.clear()
    assert running_api.api.load()
    s3.put_bucket_versioning(**VERSIONING)
    assert get_backend("s3").bucket_accounts == {"backups": ("aws", ACCOUNT)}
    before = running_api.api._store._last
    s3.create_bucket(Bucket="undone")
    running_api.api._store._last = before
    running_api.api._roll_back()
    s3.create_bucket(Bucket="undone", CreateBucketConfiguration={"Tags": TAGS})
    assert s3.get_bucket_tagging(Bucket="undone")["TagSet"] == TAGS


def test_a_lab_that_is_behind_knows_a_bucket_late_and_changes_it_once_at_a_time(running_api: RunningApi) -> None:
    running_api.api.lag.calls = 2
    s3 = running_api.client("s3")
    s3.create_bucket(Bucket="backups")
    assert codes(lambda: s3.get_bucket_location(Bucket="backups")) == ["NoSuchBucket"] * 2
    assert codes(lambda: s3.put_bucket_versioning(**VERSIONING)) == ["OperationAborted"] * 2
    assert s3.get_bucket_versioning(Bucket="backups")["Status"] == "Enabled"
    s3.put_object(Bucket="backups", Key="a/b", Body=b"c")
    assert s3.get_object(Bucket="backups", Key="a/b")["Body"].read() == b"c"


@pytest.mark.parametrize(
    ("method", "path", "query", "host", "found"),
    [
        ("PUT", "/backups", "", "127.0.0.1:5000", ("CreateBucket", "backups")),
        ("PUT", "/", "", "backups.s3.us-east-1.amazonaws.com", ("CreateBucket", "backups")),
        ("GET", "/backups", "tagging", "127.0.0.1:5000", ("GetBucketTagging", "backups")),
        ("PUT", "/backups/", "publicAccessBlock=", "s3.us-east-1.amazonaws.com", ("PutPublicAccessBlock", "backups")),
        ("HEAD", "/backups", "", "127.0.0.1", ("HeadBucket", "backups")),
        ("GET", "/backups/a/b", "", "127.0.0.1", ("", "")),
        ("PUT", "/a/b", "tagging", "backups.s3.us-east-1.amazonaws.com", ("", "")),
        ("GET", "/", "", "127.0.0.1", ("", "")),
    ],
)
def test_what_a_request_calls(method: str, path: str, query: str, host: str, found: tuple[str, str]) -> None:
    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query, "HTTP_HOST": host}
    name, parameters = s3_calls.call(environ, b"")
    assert (name, parameters.get("Bucket", "")) == found
