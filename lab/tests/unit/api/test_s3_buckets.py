"""Buckets: their names, what a new one has, and that a configuration is told as it was given."""

from __future__ import annotations

import json
from typing import Any

import boto3
import pytest
from api_support import RunningApi, assume, document, statement
from botocore.exceptions import ClientError
from test_s3_callers import ask, code, refused, signed

from ec2lab.api.patches.buckets import TAKEN

BUCKET = "backups"


@pytest.fixture
def s3(running_api: RunningApi) -> Any:
    client = running_api.client("s3")
    client.create_bucket(Bucket=BUCKET)
    return client


def test_a_new_bucket_is_closed_and_encrypted(s3: Any) -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/create-bucket-faq.html"""
    rules = s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"]
    assert [each["ApplyServerSideEncryptionByDefault"] for each in rules] == [{"SSEAlgorithm": "AES256"}]
    block = s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]
    assert (len(block), set(block.values())) == (4, {True})
    owner = s3.get_bucket_ownership_controls(Bucket=BUCKET)["OwnershipControls"]["Rules"]
    assert owner == [{"ObjectOwnership": "BucketOwnerEnforced"}]
    assert s3.put_object(Bucket=BUCKET, Key="a", Body=b"x")["ServerSideEncryption"] == "AES256"
    assert "Status" not in s3.get_bucket_versioning(Bucket=BUCKET)
    for call, wanted in (
        (s3.get_bucket_policy, "NoSuchBucketPolicy"),
        (s3.get_bucket_tagging, "NoSuchTagSet"),
        (s3.get_bucket_lifecycle_configuration, "NoSuchLifecycleConfiguration"),
    ):
        assert refused(call, Bucket=BUCKET) == wanted


def test_a_configuration_is_told_as_it_was_given(s3: Any) -> None:
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    assert s3.get_bucket_versioning(Bucket=BUCKET)["Status"] == "Enabled"

    encryption = {
        "Rules": [
            {
                "ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": "alias/backups"},
                "BucketKeyEnabled": True,
            }
        ]
    }
    s3.put_bucket_encryption(Bucket=BUCKET, ServerSideEncryptionConfiguration=encryption)
    assert s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"] == encryption
    s3.delete_bucket_encryption(Bucket=BUCKET)
    rules = s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rules[0]["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"

    block = {
        "BlockPublicAcls": True,
        "IgnorePublicAcls": False,
        "BlockPublicPolicy": True,
        "RestrictPublicBuckets": False,
    }
    s3.put_public_access_block(Bucket=BUCKET, PublicAccessBlockConfiguration=block)
    assert s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"] == block
    s3.delete_public_access_block(Bucket=BUCKET)
    assert refused(s3.get_public_access_block, Bucket=BUCKET) == "NoSuchPublicAccessBlockConfiguration"

    owner = {"Rules": [{"ObjectOwnership": "BucketOwnerPreferred"}]}
    s3.put_bucket_ownership_controls(Bucket=BUCKET, OwnershipControls=owner)
    assert s3.get_bucket_ownership_controls(Bucket=BUCKET)["OwnershipControls"] == owner

    tags = [{"Key": "Name", "Value": "backups"}, {"Key": "kubernetes.io/cluster/one", "Value": "owned"}]
    s3.put_bucket_tagging(Bucket=BUCKET, Tagging={"TagSet": tags})
    assert s3.get_bucket_tagging(Bucket=BUCKET)["TagSet"] == tags

    policy = document(statement("Deny", "s3:DeleteBucket", f"arn:aws:s3:::{BUCKET}", Principal="*"))
    s3.put_bucket_policy(Bucket=BUCKET, Policy=policy)
    assert json.loads(s3.get_bucket_policy(Bucket=BUCKET)["Policy"]) == json.loads(policy)
    assert refused(s3.delete_bucket, Bucket=BUCKET) == "AccessDenied"


def test_a_lifecycle_is_told_as_it_was_given(s3: Any) -> None:
    rules = [
        {
            "ID": "old snapshots",
            "Status": "Enabled",
            "Filter": {"Prefix": "etcd/"},
            "Expiration": {"Days": 30},
            "NoncurrentVersionExpiration": {"NoncurrentDays": 7, "NewerNoncurrentVersions": 3},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
        },
        {
            "ID": "tagged",
            "Status": "Disabled",
            "Filter": {"And": {"Prefix": "a/", "Tags": [{"Key": "k", "Value": "v"}]}},
            "NoncurrentVersionExpiration": {"NoncurrentDays": 2},
        },
        {"ID": "markers", "Status": "Enabled", "Filter": {}, "Expiration": {"ExpiredObjectDeleteMarker": True}},
    ]
    s3.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration={"Rules": rules})
    assert s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"] == rules
    s3.put_bucket_lifecycle_configuration(Bucket=BUCKET, LifecycleConfiguration={"Rules": rules[:1]})
    assert s3.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"] == rules[:1]
    s3.delete_bucket_lifecycle(Bucket=BUCKET)
    assert refused(s3.get_bucket_lifecycle_configuration, Bucket=BUCKET) == "NoSuchLifecycleConfiguration"


@pytest.mark.parametrize(
    "name", ["ab", "Backups", "back_ups", "-backups", "backups-", "back..ups", "192.0.2.1", "xn--backups", "a-s3alias"]
)
def test_a_name_that_no_bucket_can_have(s3: Any, name: str) -> None:
    with pytest.raises(ClientError) as raised:
        s3.create_bucket(Bucket=name)
    assert code(raised) == "InvalidBucketName"


def test_names_are_everybody_s(running_api: RunningApi, s3: Any) -> None:
    assert refused(s3.create_bucket, Bucket=TAKEN) == "BucketAlreadyExists"
    assert refused(s3.put_object, Bucket=TAKEN, Key="a", Body=b"x") == "AccessDenied"
    assert refused(s3.head_bucket, Bucket=TAKEN) == "403"
    assert refused(s3.head_bucket, Bucket="nowhere") == "404"
    assert refused(s3.get_object, Bucket="nowhere", Key="a") == "NoSuchBucket"
    assert refused(s3.put_object, Bucket="nowhere", Key="a", Body=b"x") == "NoSuchBucket"
    node = assume(running_api, "node")
    assert refused(node.create_bucket, Bucket=TAKEN) == "AccessDenied"
    s3.delete_bucket(Bucket=BUCKET)
    assert refused(s3.head_bucket, Bucket=BUCKET) == "404"
    s3.create_bucket(Bucket=BUCKET)


def test_regions(running_api: RunningApi, s3: Any) -> None:
    frankfurt = boto3.client(
        "s3",
        endpoint_url=running_api.url,
        region_name="eu-central-1",
        aws_access_key_id=running_api.credentials.access_key_id,
        aws_secret_access_key=running_api.credentials.secret_access_key,
    )
    there: Any = {"LocationConstraint": "eu-central-1"}
    assert refused(frankfurt.create_bucket, Bucket="there") == "IllegalLocationConstraintException"
    assert refused(s3.create_bucket, Bucket="here", CreateBucketConfiguration={"LocationConstraint": "us-east-1"}) == (
        "InvalidLocationConstraint"
    )
    frankfurt.create_bucket(Bucket="there", CreateBucketConfiguration=there)
    assert frankfurt.get_bucket_location(Bucket="there")["LocationConstraint"] == "eu-central-1"
    assert s3.get_bucket_location(Bucket=BUCKET)["LocationConstraint"] is None
    with pytest.raises(ClientError) as raised:
        frankfurt.create_bucket(Bucket="there", CreateBucketConfiguration=there)
    assert code(raised) == "BucketAlreadyOwnedByYou"
    s3.create_bucket(Bucket=BUCKET)  # us-east-1 says yes to the owner of a bucket
    status, told = ask(running_api, "GET", "/there?location", signed(running_api, "GET", "/there?location"))
    assert (status, b"<Code>AuthorizationHeaderMalformed</Code>" in told) == (400, True)
    assert b"<Region>eu-central-1</Region>" in told  # from which boto3 learns where to go
    assert refused(s3.get_bucket_policy, Bucket="there") == "NoSuchBucketPolicy"


def test_a_bucket_with_anything_in_it_stays(s3: Any) -> None:
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"x")
    assert refused(s3.delete_bucket, Bucket=BUCKET) == "BucketNotEmpty"
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    s3.delete_object(Bucket=BUCKET, Key="a")
    assert "Contents" not in s3.list_objects_v2(Bucket=BUCKET)
    assert refused(s3.delete_bucket, Bucket=BUCKET) == "BucketNotEmpty"  # the version and its delete marker
    found = s3.list_object_versions(Bucket=BUCKET)
    for each in found["Versions"] + found["DeleteMarkers"]:
        s3.delete_object(Bucket=BUCKET, Key="a", VersionId=each["VersionId"])
    s3.delete_bucket(Bucket=BUCKET)


def test_acls_are_refused_where_the_owner_is_enforced(s3: Any) -> None:
    assert refused(s3.put_bucket_acl, Bucket=BUCKET, ACL="public-read") == "AccessControlListNotSupported"
    assert refused(s3.put_object, Bucket=BUCKET, Key="a", Body=b"x", ACL="private") == "AccessControlListNotSupported"
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"x", ACL="bucket-owner-full-control")
    assert refused(s3.create_bucket, Bucket="public", ACL="public-read") == "InvalidBucketAclWithObjectOwnership"


def test_a_bucket_that_does_not_take_it(running_api: RunningApi, s3: Any) -> None:
    """What the fault `bucket-refuse` does."""
    running_api.api.extra.faults[f"arn:aws:s3:::{BUCKET}"] = {"refusing"}
    for call, given in ((s3.put_object, {"Key": "a", "Body": b"x"}), (s3.list_objects_v2, {})):
        with pytest.raises(ClientError) as raised:
            call(Bucket=BUCKET, **given)
        assert (code(raised), raised.value.response["ResponseMetadata"]["HTTPStatusCode"]) == ("SlowDown", 503)
    assert refused(s3.head_bucket, Bucket=BUCKET) == "503"
    assert len(s3.list_buckets()["Buckets"]) == 1
    del running_api.api.extra.faults[f"arn:aws:s3:::{BUCKET}"]
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"x")
