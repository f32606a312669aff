# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bucket of backups against an API on loopback: made, kept, brought, refused, and left by a removal."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ec2_account import WatchedAws, account, mutations, picture, pool, run
from iam_simulator import simulator
from moto.s3.models import s3_backends
from moto_server import REGION, Server, reset
from test_ec2_cluster_permissions import Policed, without
from test_ec2_cluster_policy import Caller, actions, enforce

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import context, policy, session
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description, DescriptionError
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.run import Refused, RunFailed
from ec2lab.api.consistency import Lag
from ec2lab.api.policies import ALLOWED, decide

NAME = "demo-backups"
SMALL: dict[str, Any] = {"pools": [pool("control_plane", 1), pool("workers", 0)], "backup_bucket": NAME}
ROLE = "k8sgu-demo-us-east-1-control-plane"
# What of the bucket's permissions the playbooks of backups use, and this module does not.
OF_PLAYBOOKS = {
    *(f"s3:{word}" for word in ("AbortMultipartUpload", "GetObject", "GetObjectVersion", "PutObject")),
    *(f"s3:{word}" for word in ("ListBucket", "ListBucketVersions")),
}


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    # S3 is called by HTTP in any case, and beside it the others, so that none overtakes it.
    with account(direct=False) as server:
        yield server
        enforce(server, False)


@pytest.fixture
def server(running: Server) -> Server:
    enforce(running, False)
    reset(running)
    return running


def asked(call: Callable[..., dict[str, Any]], name: str, without_it: str = "") -> dict[str, Any]:
    try:
        answer = call(Bucket=name)
    except Exception as error:
        if without_it and session.error_code(error) == without_it:
            return {}
        raise
    # How S3 counts objects for its storage classes, which we do not use.
    beside = ("ResponseMetadata", "TransitionDefaultMinimumObjectSize")
    return {key: value for key, value in answer.items() if key not in beside}


def bucket(server: Server, name: str = NAME, region: str = REGION) -> dict[str, Any]:
    """The bucket in full, as S3 tells it; empty for none."""
    s3 = server.client("s3", region)
    if name not in [item["Name"] for item in s3.list_buckets()["Buckets"]]:
        return {}
    return {
        "tags": asked(s3.get_bucket_tagging, name, "NoSuchTagSet"),
        "region": asked(s3.get_bucket_location, name),
        "versioning": asked(s3.get_bucket_versioning, name),
        "encryption": asked(s3.get_bucket_encryption, name, "ServerSideEncryptionConfigurationNotFoundError"),
        "blocks": asked(s3.get_public_access_block, name, "NoSuchPublicAccessBlockConfiguration"),
        "ownership": asked(s3.get_bucket_ownership_controls, name, "OwnershipControlsNotFoundError"),
        "policy": asked(s3.get_bucket_policy, name, "NoSuchBucketPolicy"),
        "lifecycle": asked(s3.get_bucket_lifecycle_configuration, name, "NoSuchLifecycleConfiguration"),
    }


def whole(server: Server) -> dict[str, Any]:
    return {**picture(server), "bucket": bucket(server)}


def role_policy(server: Server) -> dict[str, Any] | None:
    iam = server.client("iam")
    if not iam.list_role_policies(RoleName=ROLE)["PolicyNames"]:
        return None
    document: dict[str, Any] = iam.get_role_policy(RoleName=ROLE, PolicyName="k8sgu")["PolicyDocument"]
    return document


def of_bucket(result: dict[str, Any]) -> list[tuple[str, str]]:
    return [(step["action"], step["resource"]) for step in result["plan"] if "bucket" in step["resource"]]


def brought(server: Server, versioned: bool = True, name: str = NAME) -> None:
    s3 = server.client("s3")
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"Tags": [{"Key": "owner", "Value": "them"}]})
    if versioned:
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})


def test_check_run_check_run_remove(server: Server) -> None:
    before = picture(server)
    promised = run(check_mode=True, **SMALL)
    assert whole(server) == {**before, "bucket": {}}
    assert "create bucket  # " in promised["diff"]["after"] and len(of_bucket(promised)) == 7
    assert promised["backup_bucket"] == {"name": NAME, "origin": "made", "region": REGION}
    done = run(**SMALL)
    assert done["plan"] == promised["plan"] and done["backup_bucket"] == promised["backup_bucket"]
    made = whole(server)
    assert made["bucket"] == {
        "tags": {
            "TagSet": [{"Key": "Name", "Value": NAME}, {"Key": "k8sgu.io/cluster/demo", "Value": "owned"}],
        },
        "region": made["bucket"]["region"],
        "versioning": {"Status": "Enabled"},
        "encryption": {
            "ServerSideEncryptionConfiguration": {
                "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "BucketKeyEnabled": False}]
            }
        },
        "blocks": {
            "PublicAccessBlockConfiguration": dict.fromkeys(
                ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
            )
        },
        "ownership": {"OwnershipControls": {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}},
        "policy": made["bucket"]["policy"],
        "lifecycle": {
            "Rules": [
                {
                    "ID": "k8sgu-demo-etcd",
                    "Status": "Enabled",
                    "Filter": {"Prefix": "demo/etcd/"},
                    "Expiration": {"Days": 30},
                    "NoncurrentVersionExpiration": {"NoncurrentDays": 7},
                },
                {
                    "ID": "k8sgu-demo-incomplete",
                    "Status": "Enabled",
                    "Filter": {"Prefix": "demo/"},
                    "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
                },
            ]
        },
    }
    for check_mode in (True, False):
        again = run(check_mode=check_mode, **SMALL)
        assert again["plan"] == [] and not again["changed"] and whole(server) == made
    aws = session.Aws(session.Connection())
    compared = run(aws=aws, state="compared", **SMALL)
    assert compared["differences"] == [] and mutations(aws.calls) == []
    removed = run(state="absent")
    assert removed["changed"] and picture(server) == before and bucket(server) == made["bucket"]
    (kept,) = removed["kept_buckets"]
    assert (kept["name"], kept["origin"]) == (NAME, "made")
    # The role that named it is gone.
    assert run(state="absent")["kept_buckets"] == []
    again = run(state="absent", backup_bucket=NAME)
    assert again["kept_buckets"] == [kept] and not again["changed"]


def test_tls_is_demanded_of_everybody(server: Server) -> None:
    run(**SMALL)
    document = json.loads(bucket(server)["policy"]["Policy"])
    key = f"arn:aws:s3:::{NAME}/demo/etcd/a"
    anything = {"Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}

    def decided(secure: str) -> str:
        return decide([anything, document], "s3:GetObject", key, {"aws:SecureTransport": [secure]})

    assert decided("true") == ALLOWED and decided("false") != ALLOWED
    assert [statement["Principal"] for statement in document["Statement"]] == ["*"]


@pytest.mark.parametrize("kms", ["", "alias/backups", "1234abcd-12ab-34cd-56ef-1234567890ab"])
def test_the_nodes_may_put_snapshots_and_nothing_else(server: Server, kms: str) -> None:
    run(**SMALL, kms_key_id=kms)
    document = role_policy(server)
    assert document
    for action, key, may in (
        ("PutObject", "demo/etcd/snapshot.db", True),
        ("AbortMultipartUpload", "demo/etcd/snapshot.db", True),
        ("GetObject", "demo/etcd/snapshot.db", False),
        ("DeleteObject", "demo/etcd/snapshot.db", False),
        ("DeleteObjectVersion", "demo/etcd/snapshot.db", False),
        ("PutObject", "demo/state/backup.tar", False),
        ("PutObject", "other/etcd/snapshot.db", False),
        ("ListBucket", "", False),
        ("PutLifecycleConfiguration", "", False),
    ):
        resource = f"arn:aws:s3:::{NAME}/{key}".rstrip("/")
        assert (decide([document], f"s3:{action}", resource, {}) == ALLOWED) == may, (action, key)
    by_s3 = {
        "kms:ViaService": ["s3.us-east-1.amazonaws.com"],
        "kms:ResourceAliases": ["alias/backups"],
    }
    arn = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    for action in ("kms:GenerateDataKey", "kms:Decrypt"):
        assert (decide([document], action, arn, by_s3) == ALLOWED) == bool(kms)
        directly = {**by_s3, "kms:ViaService": ["ec2.us-east-1.amazonaws.com"]}
        assert decide([document], action, arn, directly) != ALLOWED
    [worker] = [role for role in server.client("iam").list_roles()["Roles"] if role["RoleName"].endswith("-worker")]
    assert server.client("iam").list_role_policies(RoleName=worker["RoleName"])["PolicyNames"] == []
    given = bucket(server)["encryption"]["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert given["BucketKeyEnabled"] == bool(kms)
    assert given["ApplyServerSideEncryptionByDefault"].get("KMSMasterKeyID", "") == kms
    assert not run(**SMALL, kms_key_id=kms)["changed"]


def test_a_cluster_without_a_bucket_is_as_it_was(server: Server) -> None:
    bare = {"pools": SMALL["pools"]}
    run(**bare)
    assert role_policy(server) is None and bucket(server) == {}
    made = run(**SMALL)
    assert ("update", "iam-policy/control-plane") in [(step["action"], step["resource"]) for step in made["plan"]]
    aws = session.Aws(session.Connection())
    assert not run(aws=aws, **SMALL)["changed"] and "s3:GetBucketTagging" in aws.calls
    aws = session.Aws(session.Connection())
    gone = run(aws=aws, **bare)
    assert [step["resource"] for step in gone["plan"]] == ["iam-policy/control-plane"]
    assert gone["backup_bucket"] == {} and not any(call.startswith("s3:") for call in aws.calls)
    assert role_policy(server) is None and bucket(server)["versioning"] == {"Status": "Enabled"}


def change_by_hand(s3: Any) -> dict[str, Callable[[], Any]]:
    """Each setting taken away or turned around, by the step that mends it."""
    off = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), False)
    writer = {"Rules": [{"ObjectOwnership": "ObjectWriter"}]}
    rule = {"ID": "all", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}
    kms = {"Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}]}
    kept = [{"Key": "k8sgu.io/cluster/demo", "Value": "owned"}, {"Key": "by", "Value": "hand"}]
    return {
        "bucket/public-access": lambda: s3.put_public_access_block(Bucket=NAME, PublicAccessBlockConfiguration=off),
        "bucket/ownership": lambda: s3.put_bucket_ownership_controls(Bucket=NAME, OwnershipControls=writer),
        "bucket/policy": lambda: s3.delete_bucket_policy(Bucket=NAME),
        "bucket/encryption": lambda: s3.put_bucket_encryption(Bucket=NAME, ServerSideEncryptionConfiguration=kms),
        "bucket/versioning": lambda: s3.put_bucket_versioning(
            Bucket=NAME, VersioningConfiguration={"Status": "Suspended"}
        ),
        "bucket/lifecycle": lambda: s3.put_bucket_lifecycle_configuration(
            Bucket=NAME, LifecycleConfiguration={"Rules": [rule]}
        ),
        "tags/bucket": lambda: s3.put_bucket_tagging(Bucket=NAME, Tagging={"TagSet": kept}),
    }


def test_what_is_changed_by_hand_is_told_and_mended(server: Server) -> None:
    run(**SMALL)
    made = bucket(server)
    hand = change_by_hand(server.client("s3"))
    for resource, change in hand.items():
        change()
        changed = bucket(server)
        assert changed != made
        promised = run(check_mode=True, **SMALL)
        assert [(step["action"], step["resource"]) for step in promised["plan"]] == [("update", resource)]
        assert promised["changed"] and bucket(server) == changed
        compared = run(state="compared", **SMALL)
        assert [(item["where"], item["kind"]) for item in compared["differences"]] == [
            (resource, "tag-missing" if resource == "tags/bucket" else "resource-changed")
        ]
        assert run(**SMALL)["plan"] == promised["plan"]
        mended = bucket(server)
        # What others have put on it stays.
        mended["tags"]["TagSet"] = [tag for tag in mended["tags"]["TagSet"] if tag["Key"] != "by"]
        assert mended == made and not run(**SMALL)["changed"]
    for change in hand.values():
        change()
    assert {resource for _action, resource in of_bucket(run(**SMALL))} == set(hand)
    assert not run(**SMALL)["changed"]


@pytest.mark.parametrize("days", [0, 7])
def test_other_days_are_one_step(server: Server, days: int) -> None:
    run(**SMALL)
    step = run(**SMALL, backup_days=days)["plan"]
    assert [item["resource"] for item in step] == ["bucket/lifecycle"] and "after 30 days" not in step[0]["resource"]
    rules = {rule["ID"]: rule for rule in bucket(server)["lifecycle"]["Rules"]}
    assert rules.get("k8sgu-demo-etcd", {}).get("Expiration", {}).get("Days", 0) == days
    assert "k8sgu-demo-incomplete" in rules and not run(**SMALL, backup_days=days)["changed"]


def test_one_that_was_brought_is_used_and_not_changed(server: Server) -> None:
    brought(server)
    before, caller = bucket(server), session.Aws(session.Connection())
    done = run(aws=caller, **SMALL, tags={"team": "blue"})
    assert done["backup_bucket"]["origin"] == "brought" and of_bucket(done) == []
    assert bucket(server) == before and [call for call in mutations(caller.calls) if call.startswith("s3:")] == []
    document = role_policy(server)
    assert document and document["Statement"][0]["Resource"] == f"arn:aws:s3:::{NAME}/demo/etcd/*"
    (kept,) = run(state="absent", backup_bucket=NAME)["kept_buckets"]
    assert kept["origin"] == "brought" and bucket(server) == before


def test_two_clusters_share_one(server: Server) -> None:
    """For the second it was brought, though the first made it."""
    run(**SMALL)
    before = bucket(server)
    second = run(**SMALL, name="other", vpc_cidr="10.241.0.0/16")
    assert second["backup_bucket"]["origin"] == "brought" and bucket(server) == before
    assert not run(**SMALL)["changed"] and not run(**SMALL, name="other", vpc_cidr="10.241.0.0/16")["changed"]


@pytest.mark.parametrize("check_mode", [True, False])
@pytest.mark.parametrize("case", ["versioning", "region", "account", "made elsewhere"])
def test_what_cannot_be_used_is_refused_before_anything_is_changed(server: Server, case: str, check_mode: bool) -> None:
    match = {
        "versioning": r"^backup_bucket: .*versioning is off.*`aws s3api put-bucket-versioning --bucket demo-backups ",
        "region": r"^backup_bucket: demo-backups is in eu-west-1, and the cluster in us-east-1",
        "account": r"^backup_bucket: the name demo-backups is taken: another account has a bucket .*global",
        "made elsewhere": r"^backup_bucket: demo-backups is in us-east-1, and the cluster in eu-west-1",
    }[case]
    more: dict[str, Any] = {}
    if case == "versioning":
        brought(server, versioned=False)
    elif case == "region":
        server.client("s3", "eu-west-1").create_bucket(
            Bucket=NAME, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
        )
    elif case == "account":
        s3_backends["999999999999"]["aws"].create_bucket(NAME, REGION)
    else:
        run(**SMALL)
        run(state="absent")
        more = {"region": "eu-west-1"}
    before = picture(server)
    with pytest.raises((DescriptionError, session.AwsError), match=match) as refused:
        run(check_mode, **SMALL, **more)
    assert "\n" not in str(refused.value) and picture(server) == before
    if case == "account":
        s3_backends["999999999999"]["aws"].delete_bucket(NAME)


def test_in_another_region_it_is_made_there(server: Server) -> None:
    image = server.client("ec2", "eu-west-1").describe_images()["Images"][0]["ImageId"]
    done = run(**SMALL, region="eu-west-1", image=image)
    assert done["backup_bucket"] == {"name": NAME, "origin": "made", "region": "eu-west-1"}
    assert bucket(server, region="eu-west-1")["region"] == {"LocationConstraint": "eu-west-1"}
    assert not run(**SMALL, region="eu-west-1", image=image)["changed"]


@pytest.mark.timeout(900)
def test_a_run_that_is_cut_off_is_finished_by_the_next(server: Server) -> None:
    aws = WatchedAws(server)
    run(pools=SMALL["pools"])
    run(aws=aws, **SMALL)
    expected = whole(server)
    names = [name for name, _number, _left in aws.left]
    # The role's policy is written at the same time.
    own = [name for name in names if name != "PutRolePolicy"]
    assert own[0] == "CreateBucket" and len([name for name in names if name.startswith("Put")]) == 7
    for *change, left in aws.left:
        server.restore(left)
        run(**SMALL)
        assert whole(server) == expected, f"after a kill after {change}"


def test_while_aws_is_behind(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "FIRST_PAUSE_S", 0.01)
    run(**SMALL)
    expected = whole(server)
    reset(server)
    server.lag = Lag(calls=2)
    promised = run(check_mode=True, **SMALL)
    assert run(**SMALL)["plan"] == promised["plan"] and not run(**SMALL)["changed"]
    refused = set(server.lag.refused)
    server.lag.calls = 0
    assert whole(server) == expected
    assert ("GetBucketTagging", "NoSuchBucket") in refused
    assert {action for action, code in refused if code == "OperationAborted"} >= {
        "PutBucketVersioning",
        "PutBucketPolicy",
        "PutPublicAccessBlock",
        "PutBucketLifecycleConfiguration",
    }


def test_another_name_leaves_the_old_one(server: Server) -> None:
    run(**SMALL)
    before = bucket(server)
    done = run(**{**SMALL, "backup_bucket": "others"})
    assert bucket(server) == before and bucket(server, "others")["versioning"] == {"Status": "Enabled"}
    assert done["backup_bucket"]["name"] == "others"
    document = role_policy(server)
    assert document and [item["Resource"] for item in document["Statement"]] == ["arn:aws:s3:::others/demo/etcd/*"]


@pytest.mark.parametrize("origin", ["made", "brought"])
def test_the_command_of_a_removal_removes_what_it_says(server: Server, origin: str) -> None:
    if origin == "brought":
        brought(server)
    run(**SMALL)
    s3 = server.client("s3")
    # moto takes a denial for one of everybody, whatever its condition.
    s3.delete_bucket_policy(Bucket=NAME)
    for key in ("demo/etcd/a", "demo/etcd/a", "demo/state/b", "other/etcd/c"):
        s3.put_object(Bucket=NAME, Key=key, Body=b"x")
    s3.delete_object(Bucket=NAME, Key="demo/state/b")
    (kept,) = run(state="absent", backup_bucket=NAME)["kept_buckets"]
    program, *arguments = shlex.split(kept["removal"])
    assert program == "python3"
    subprocess.run([sys.executable, *arguments], check=True, timeout=180, env={**os.environ})
    if origin == "made":
        assert bucket(server) == {}
    else:
        versions = s3.list_object_versions(Bucket=NAME)
        assert [item["Key"] for item in versions["Versions"]] == ["other/etcd/c"] and "DeleteMarkers" not in versions


class TestPermissions:
    """The policy that the module returns suffices, and one action less does not."""

    def everything(self) -> dict[str, Any]:
        return policy.document(Description("demo", REGION, backup_bucket=NAME))

    def test_it_suffices_and_each_action_is_used(self, running: Server) -> None:
        caller = Caller(running)
        wanted = actions(run(check_mode=True, **SMALL)["iam_policy"])
        of_s3 = {action for action in wanted if action.startswith("s3:")}
        caller.may(wanted)
        running.checked.clear()
        run(aws=caller.aws, **SMALL)
        assert not run(aws=caller.aws, **SMALL)["changed"]
        used = {action for action in running.checked if action.startswith("s3:")}
        # What is there already gets its tags another way.
        assert used == of_s3 - OF_PLAYBOOKS - {"s3:PutBucketTagging"}
        enforce(running, False)
        change_by_hand(running.client("s3"))["tags/bucket"]()
        caller.may(wanted)
        run(aws=caller.aws, **SMALL)
        assert "s3:PutBucketTagging" in running.checked
        caller.may(actions(self.everything()))
        run(aws=caller.aws, state="absent", backup_bucket=NAME)

    def test_one_action_less_fails_and_is_named(self, running: Server) -> None:
        caller = Caller(running)
        wanted = actions(run(check_mode=True, **SMALL)["iam_policy"])
        run(pools=SMALL["pools"])
        before = running.saved()
        for action in sorted(set(wanted) - OF_PLAYBOOKS - {"s3:PutBucketTagging"}):
            if action.startswith("s3:"):
                enforce(running, False)
                running.restore(before)
                caller.may([other for other in wanted if other != action])
                with pytest.raises((session.AwsError, RunFailed), match=f"the permission {action} is missing"):
                    run(aws=caller.aws, **SMALL)

    def test_the_simulator_is_asked_before_the_first_change(self, running: Server) -> None:
        caller = Policed(running)
        before = picture(running)
        document = run(check_mode=True, **SMALL)["iam_policy"]
        with simulator() as simulated:
            missing = ("s3:CreateBucket", "s3:TagResource", "s3:PutBucketPolicy", "s3:PutEncryptionConfiguration")
            caller.has(without(document, *missing))
            with pytest.raises(Refused) as refused:
                run(aws=caller.aws, **SMALL)
            said = str(refused.value)
            for action in missing:
                assert f"the permission {action} is missing on arn:aws:s3:::{NAME}," in said, said
            assert said.count("the permission") == len(missing)
            enforce(running, False)
            assert picture(running) == before and bucket(running) == {}
            caller.has(json.loads(json.dumps(document).replace(NAME, "others")))
            with pytest.raises(Refused, match=f"the permission s3:CreateBucket is missing on arn:aws:s3:::{NAME}"):
                run(aws=caller.aws, **SMALL)
            caller.has(document)
            assert run(aws=caller.aws, **SMALL)["permissions_checked_by"] == "simulation" and simulated.asked
        enforce(running, False)
