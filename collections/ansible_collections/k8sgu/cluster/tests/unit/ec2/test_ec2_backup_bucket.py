# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bucket of backups: what is planned for one that is made, kept or brought, and what the nodes may do with it."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from test_ec2_plan import FACTS, OURS, REGION, description, finished, keys

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import cluster, names, plan, policy, session, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.access.profiles import PutPolicy
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.backups import bucket, settings, upload
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.backups.settings import SETTINGS, Bucket
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.context import Context
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description, DescriptionError
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.reader import Reader

OWNER = "123456789012"
MARKS = {**OURS, tags.NAME: "backups"}
USERS = {"Version": "2012-10-17", "Statement": {"Sid": "Images", "Effect": "Allow", "Action": "ecr:*", "Resource": "*"}}
EVERY = [f"update bucket/{setting.word}" for setting in SETTINGS]
CONTROL_PLANE = names.role("demo", REGION, tags.CONTROL_PLANE)


def wanted(**more: Any) -> Description:
    return description(**{"backup_bucket": "backups", **more})


def made(given: Description | None = None, **changes: Any) -> Bucket:
    """The bucket as it is kept, but for `changes` of its settings."""
    given = given or wanted()
    there = {setting.word: setting.wanted(given) for setting in SETTINGS}
    return Bucket(
        "backups", REGION, MARKS, {**there, **{key.replace("_", "-"): value for key, value in changes.items()}}
    )


def brought(**there: Any) -> Bucket:
    return Bucket("backups", REGION, {"owner": "them"}, {"versioning": "Enabled", **there})


def planned(given: Description, there: Bucket | None, before: dict[str, Any] | None = None) -> plan.Plan:
    """In an account that is finished but for the bucket; `before` is the policy of the control plane's role."""
    current = finished()
    roles = {**current.roles, CONTROL_PLANE: dataclasses.replace(current.roles[CONTROL_PLANE], policy=before)}
    current = dataclasses.replace(current, roles=roles, bucket=there, account=OWNER)
    return cluster.make(given, current, FACTS)


def of_bucket(made_plan: plan.Plan) -> list[str]:
    return [key for key in keys(made_plan) if "bucket" in key]


def test_a_new_one_gets_every_setting_one_after_the_other() -> None:
    found = planned(wanted(), None)
    assert of_bucket(found) == ["create bucket", *EVERY]
    steps = [step for step in found.steps if "bucket" in step.key]
    assert [step.after for step in steps] == [(), *((step.key,) for step in steps[:-1])]
    (create,) = found.of(bucket.CreateBucket)
    assert create.tags == MARKS and create.owner == OWNER
    assert all(step.reason == plan.MISSING for step in steps)


def test_one_that_is_as_it_shall_be_is_left_alone() -> None:
    for given in (wanted(), wanted(kms_key_id="alias/volumes"), wanted(backup_days=0), wanted(backup_days=36500)):
        there = upload.policy_of_role(given, Current(bucket=made(given)), tags.CONTROL_PLANE)
        assert keys(planned(given, made(given), dict(there or {}))) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"versioning": ""}, "backups: versioning is off"),
        ({"versioning": "Suspended"}, "backups: versioning is suspended"),
        ({"encryption": None}, "its default encryption is none instead of AES256"),
        (
            {"encryption": ("aws:kms", "alias/x", False)},
            "its default encryption is aws:kms alias/x instead of AES256",
        ),
        ({"public_access": None}, "not blocked in full (BlockPublicAcls, BlockPublicPolicy, IgnorePublicAcls"),
        ({"public_access": settings.BLOCKS[:3]}, "not blocked in full (RestrictPublicBuckets)"),
        ({"ownership": "ObjectWriter"}, "ownership of objects is ObjectWriter instead of BucketOwnerEnforced"),
        ({"ownership": None}, "ownership of objects is not set instead of BucketOwnerEnforced"),
        ({"policy": None}, "it takes requests without TLS"),
        ({"policy": {"Statement": []}}, "its policy is not the one that refuses requests without TLS"),
        ({"lifecycle": None}, "its lifecycle is not the description's"),
        ({"lifecycle": []}, "its lifecycle is not the description's"),
        (
            {"lifecycle": settings.lifecycle_wanted(description(backup_days=7))},
            "snapshots of etcd expire after 7 days instead of after 30 days",
        ),
        (
            {"lifecycle": settings.lifecycle_wanted(description(backup_days=0))},
            "snapshots of etcd expire never instead of after 30 days",
        ),
    ],
)
def test_what_was_changed_by_hand_is_one_step(changes: dict[str, Any], said: str) -> None:
    (word,) = changes
    found = planned(wanted(), made(**changes))
    assert of_bucket(found) == [f"update bucket/{word.replace('_', '-')}"]
    (step,) = found.of(bucket.PutSetting)
    assert said in step.reason and "backups: " in step.reason


def test_tags_that_are_missing_are_added_to_those_that_are_there() -> None:
    there = dataclasses.replace(made(), tags={**MARKS, "by": "hand"})
    found = planned(wanted(tags={"team": "blue"}), there)
    (step,) = found.of(bucket.PutSetting)
    assert step.key == "update tags/bucket" and step.reason == "tag team=blue is missing"
    given = tags.as_mapping(step.arguments["Tagging"]["TagSet"])
    assert given == {**MARKS, "team": "blue", "by": "hand"}


@pytest.mark.parametrize("there", ["1234abcd", "arn:aws:kms:us-east-1:1:key/1234abcd"])
def test_a_key_is_known_again_by_its_arn(there: str) -> None:
    given = wanted(kms_key_id="1234abcd")
    assert of_bucket(planned(given, made(given, encryption=("aws:kms", there, True)))) == []
    assert of_bucket(planned(given, made(given, encryption=("aws:kms", f"{there}0", True)))) != []
    assert of_bucket(planned(given, made(given, encryption=("aws:kms", there, False)))) != []


def test_a_policy_that_aws_wrote_anew_is_the_same() -> None:
    (statement,) = settings.policy_wanted(wanted())["Statement"]
    anew = {**statement, "Action": ["s3:*"], "Resource": statement["Resource"][::-1]}
    assert of_bucket(planned(wanted(), made(policy={"Version": "2012-10-17", "Statement": anew}))) == []
    less = {**statement, "Resource": statement["Resource"][:1]}
    assert of_bucket(planned(wanted(), made(policy={"Version": "2012-10-17", "Statement": [less]}))) != []


def test_one_that_was_brought_is_not_touched() -> None:
    found = planned(wanted(tags={"team": "blue"}, kms_key_id="alias/x"), brought())
    assert of_bucket(found) == []
    shown = bucket.shown(wanted(), Current(bucket=brought()))
    assert shown == {"name": "backups", "origin": "brought", "region": REGION}
    assert bucket.shown(wanted(), Current())["origin"] == "made" and bucket.shown(description(), Current()) == {}


def test_the_tag_of_another_cluster_is_not_ours() -> None:
    other = Bucket("backups", REGION, {tags.cluster_tag("other"): tags.OWNED}, {"versioning": "Enabled"})
    assert of_bucket(planned(wanted(), other)) == []


@pytest.mark.parametrize("versioning", ["", "Suspended"])
def test_one_that_was_brought_without_versioning_is_refused(versioning: str) -> None:
    current = Current(bucket=brought(versioning=versioning))
    with pytest.raises(DescriptionError, match=r"^backup_bucket: .*aws s3api put-bucket-versioning --bucket backups "):
        bucket.check(wanted(), current)
    # Of one that was made, it is a setting like the others.
    bucket.check(wanted(), Current(bucket=made(versioning=versioning)))


def test_a_removal_leaves_it() -> None:
    current = dataclasses.replace(finished(), bucket=made(), account=OWNER)
    removal = cluster.make(Description("demo", REGION, backup_bucket="backups"), current, plan.Facts(()), removing=True)
    assert keys(removal) and of_bucket(removal) == []


class TestRole:
    def of(self, given: Description, there: Bucket | None = None, role: str = tags.CONTROL_PLANE) -> Any:
        return upload.policy_of_role(given, Current(bucket=there), role)

    def test_it_may_put_snapshots_and_nothing_else(self) -> None:
        assert self.of(wanted()) == {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Sid": "BackupUpload",
                    "Effect": "Allow",
                    "Action": ["s3:AbortMultipartUpload", "s3:PutObject"],
                    "Resource": "arn:aws:s3:::backups/demo/etcd/*",
                }
            ],
        }
        assert self.of(wanted(), role=tags.WORKER) is None

    def test_without_a_bucket_it_is_the_users(self) -> None:
        assert self.of(description()) is None
        given = description(policies={tags.CONTROL_PLANE: USERS})
        assert self.of(given) is USERS and keys(planned(given, None, dict(USERS))) == []

    def test_the_users_statements_stay(self) -> None:
        found = self.of(wanted(policies={tags.CONTROL_PLANE: USERS, tags.WORKER: USERS}))
        assert [statement["Sid"] for statement in found["Statement"]] == ["Images", "BackupUpload"]
        assert self.of(wanted(policies={tags.WORKER: USERS}), role=tags.WORKER) is USERS

    def test_other_partitions_have_their_own_arns(self) -> None:
        (statement,) = self.of(wanted(partition="aws-cn"))["Statement"]
        assert statement["Resource"] == "arn:aws-cn:s3:::backups/demo/etcd/*"
        (tls,) = settings.policy_wanted(wanted(partition="aws-cn"))["Statement"]
        assert tls["Resource"] == ["arn:aws-cn:s3:::backups", "arn:aws-cn:s3:::backups/*"]

    @pytest.mark.parametrize(
        ("given", "there", "resource", "condition"),
        [
            ("1234abcd", None, "arn:*:kms:us-east-1:*:key/1234abcd", {}),
            (
                "alias/x",
                None,
                "arn:*:kms:us-east-1:*:key/*",
                {"ForAnyValue:StringEquals": {"kms:ResourceAliases": "alias/x"}},
            ),
            # That of the bucket counts.
            ("1234abcd", brought(encryption=("aws:kms", "arn:aws:kms:x:1:key/2", False)), "arn:aws:kms:x:1:key/2", {}),
        ],
    )
    def test_it_may_use_the_buckets_key_by_s3(
        self, given: str, there: Bucket | None, resource: str, condition: dict[str, Any]
    ) -> None:
        _upload, key = self.of(wanted(kms_key_id=given), there)["Statement"]
        assert key == {
            "Sid": "BackupKey",
            "Effect": "Allow",
            "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
            "Resource": resource,
            "Condition": {**condition, "StringLike": {"kms:ViaService": "s3.us-east-1.amazonaws.com*"}},
        }

    @pytest.mark.parametrize(
        "encryption", [None, ("AES256", "", False), ("aws:kms", "", True), ("aws:kms", "alias/aws/s3", True)]
    )
    def test_a_bucket_without_a_key_of_its_own_needs_none(self, encryption: Any) -> None:
        found = self.of(wanted(kms_key_id="1234abcd"), brought(encryption=encryption))
        assert [statement["Sid"] for statement in found["Statement"]] == ["BackupUpload"]

    def test_another_name_says_that_the_old_bucket_stays(self) -> None:
        before = dict(self.of(wanted()) or {})
        for given in (wanted(backup_bucket="others"), description()):
            found = planned(given, None, before)
            (warning,) = found.warnings
            assert warning.startswith("backup_bucket: backups gets no more snapshots") and "stays as it is" in warning
            assert not any("backups" in step.reason for step in found.changes)
        assert planned(wanted(), made(), before).warnings == []
        (step,) = planned(wanted(backup_bucket="others"), None, before).of(PutPolicy)
        assert step.policy["Statement"][0]["Resource"] == "arn:aws:s3:::others/demo/etcd/*"
        assert "delete iam-policy/control-plane" in keys(planned(description(), None, before))


def test_the_caller_needs_nothing_of_s3_without_a_bucket() -> None:
    def of(given: Description, there: Bucket | None = None) -> dict[str, Any]:
        document = policy.document(given, Current(bucket=there))
        found = {entry["Sid"]: entry for entry in document["Statement"]}
        return {sid: entry for sid, entry in found.items() if sid.startswith("Backup")}

    assert of(description()) == {} and set(of(wanted())) == {"BackupBucket", "Backups"}
    assert of(wanted())["BackupBucket"]["Resource"] == "arn:*:s3:::backups"
    assert of(wanted())["Backups"]["Resource"] == "arn:*:s3:::backups/demo/*"
    # What was brought is not changed.
    actions = of(wanted(), brought())["BackupBucket"]["Action"]
    assert all(action.partition(":")[2].startswith(("Get", "List")) for action in actions)
    assert set(of(wanted(kms_key_id="1234abcd"))) == {"BackupBucket", "Backups", "BackupKey"}
    assert "BackupKey" not in of(wanted(kms_key_id="1234abcd"), brought())
    # No backup can be removed with them, so that a stolen policy of the controller's cannot do it either.
    assert not any("Delete" in action for entry in of(wanted()).values() for action in entry["Action"])


def failed(code: str, message: str = "no", operation: str = "GetBucketTagging") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, operation)


class Stub:
    """A client of S3 and STS that gives its answers in turn, the last one for ever."""

    def __init__(self, **answers: list[Any]) -> None:
        self.answers = {"get_caller_identity": [{"Account": OWNER}], **answers}
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, operation: str) -> Any:
        def call(**request: Any) -> Any:
            self.asked.append((operation, request))
            answers = self.answers.get(operation, [{}])
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


TAGGED = {"TagSet": tags.as_list(MARKS)}


class TestCreation:
    def create(self, s3: Stub, region: str = REGION) -> list[dict[str, Any]]:
        """The requests for it."""
        aws: Any = SimpleNamespace(client=lambda service: s3, region=region)
        bucket.CreateBucket("bucket", "why", "backups", OWNER, MARKS).apply(Context(aws, "demo", {}, 20))
        return [request for operation, request in s3.asked if operation == "create_bucket"]

    @pytest.mark.parametrize(
        ("region", "place"), [("us-east-1", {}), ("eu-west-1", {"LocationConstraint": "eu-west-1"})]
    )
    def test_it_has_its_tags_from_the_beginning(self, region: str, place: dict[str, str]) -> None:
        s3 = Stub(get_bucket_tagging=[TAGGED])
        configuration = {"Tags": tags.as_list(MARKS), **place}
        assert self.create(s3, region) == [{"Bucket": "backups", "CreateBucketConfiguration": configuration}]
        # S3 itself looks whose bucket answers.
        assert s3.asked[-1] == ("get_bucket_tagging", {"Bucket": "backups", "ExpectedBucketOwner": OWNER})

    def test_a_call_that_was_repeated_finds_it_made(self) -> None:
        assert len(self.create(Stub(create_bucket=[failed("BucketAlreadyOwnedByYou")], get_bucket_tagging=[TAGGED])))

    def test_a_name_that_is_not_free_yet_is_waited_for(self) -> None:
        s3 = Stub(create_bucket=[failed("OperationAborted"), {}], get_bucket_tagging=[failed("NoSuchBucket"), TAGGED])
        assert len(self.create(s3)) == 2

    def test_a_name_that_somebody_was_quicker_to_take_is_an_error(self) -> None:
        with pytest.raises(ClientError, match="BucketAlreadyExists"):
            self.create(Stub(create_bucket=[failed("BucketAlreadyExists")]))

    @pytest.mark.parametrize("code", bucket.NOT_YET)
    def test_a_setting_is_written_again_while_s3_is_not_ready(self, code: str) -> None:
        s3 = Stub(put_bucket_versioning=[failed(code), {}])
        aws: Any = SimpleNamespace(client=lambda service: s3)
        step = bucket.PutSetting("bucket/x", "why", "backups", OWNER, "put_bucket_versioning", {"Given": 1})
        step.apply(Context(aws, "demo", {}, 20))
        assert (
            s3.asked == [("put_bucket_versioning", {"Bucket": "backups", "ExpectedBucketOwner": OWNER, "Given": 1})] * 2
        )


def reader(s3: Stub) -> Reader:
    aws: Any = SimpleNamespace(client=lambda service: s3, region=REGION)
    return Reader(aws, "demo")


class TestReading:
    def test_one_that_is_not_there(self) -> None:
        current = Current()
        bucket.read(reader(Stub(get_bucket_tagging=[failed("NoSuchBucket")])), wanted(), current)
        assert current.bucket is None and current.account == OWNER

    def test_a_name_that_another_account_has(self) -> None:
        s3 = Stub(get_bucket_tagging=[failed("AccessDenied", "Access Denied")])
        with pytest.raises(session.AwsError, match=r"^backup_bucket: the name backups is taken: .*global") as refused:
            bucket.read(reader(s3), wanted(), Current())
        assert "the permission s3:GetBucketTagging is missing on it" in str(refused.value)

    def test_a_permission_that_s3_names_is_named_alone(self) -> None:
        denial = "User: x is not authorized to perform: s3:GetBucketTagging on resource: arn:aws:s3:::backups"
        with pytest.raises(session.AwsError, match="the permission s3:GetBucketTagging is missing") as refused:
            bucket.read(reader(Stub(get_bucket_tagging=[failed("AccessDenied", denial)])), wanted(), Current())
        assert "taken" not in str(refused.value)

    @pytest.mark.parametrize(
        ("answers", "where"),
        [
            ({"get_bucket_location": [{"LocationConstraint": "eu-central-1"}]}, "eu-central-1"),
            ({"get_bucket_location": [{"LocationConstraint": "EU"}]}, "eu-west-1"),
            ({"get_bucket_tagging": [failed("PermanentRedirect")]}, "another region"),
        ],
    )
    def test_one_of_another_region(self, answers: dict[str, Any], where: str) -> None:
        s3 = Stub(**{"get_bucket_tagging": [TAGGED], **answers})
        with pytest.raises(
            DescriptionError, match=f"^backup_bucket: backups is in {where}, and the cluster in {REGION}"
        ):
            bucket.read(reader(s3), wanted(), Current())

    def test_a_client_that_cannot_tag_is_refused_before(self) -> None:
        members: dict[str, Any] = {"LocationConstraint": None}
        shape = SimpleNamespace(members={"CreateBucketConfiguration": SimpleNamespace(members=members)})
        model = SimpleNamespace(operation_model=lambda name: SimpleNamespace(input_shape=shape))
        s3: Any = SimpleNamespace(meta=SimpleNamespace(service_model=model))
        with pytest.raises(DescriptionError, match=r"^backup_bucket: this boto3 cannot tag .*install a newer boto3"):
            bucket.check_new(reader(s3), planned(wanted(), None))
        members["Tags"] = None
        bucket.check_new(reader(s3), planned(wanted(), None))

    def test_a_name_of_an_accounts_own_namespace_is_refused(self) -> None:
        with pytest.raises(DescriptionError, match=r"^backup_bucket: S3 keeps names that end in -an, as back-an does"):
            bucket.check_new(reader(Stub()), planned(wanted(backup_bucket="back-an"), None))


class TestLeft:
    """What a removal says of buckets that stay."""

    def of(self, s3: Stub, name: str = "backups", policy_there: Any = None) -> list[dict[str, str]]:
        current = finished()
        role = dataclasses.replace(current.roles[CONTROL_PLANE], policy=policy_there)
        current = dataclasses.replace(current, roles={CONTROL_PLANE: role})
        return bucket.left(reader(s3), Description("demo", REGION, backup_bucket=name), current)

    def test_one_that_was_made_and_one_that_was_brought(self) -> None:
        (ours,) = self.of(Stub(get_bucket_tagging=[TAGGED]))
        assert (ours["name"], ours["origin"]) == ("backups", "made") and "bucket.delete()" in ours["removal"]
        for answer in ({"TagSet": []}, failed("NoSuchTagSet"), failed("AccessDenied")):
            (theirs,) = self.of(Stub(get_bucket_tagging=[answer]))
            assert theirs["origin"] == "brought" and "bucket.delete()" not in theirs["removal"]
            assert "filter(Prefix='demo/')" in theirs["removal"]

    def test_one_that_the_role_names(self) -> None:
        there = upload.policy_of_role(wanted(backup_bucket="older"), Current(), tags.CONTROL_PLANE)
        found = self.of(Stub(get_bucket_tagging=[TAGGED]), policy_there=there)
        assert [item["name"] for item in found] == ["backups", "older"]
        assert [item["name"] for item in self.of(Stub(get_bucket_tagging=[TAGGED]), "", there)] == ["older"]

    def test_none(self) -> None:
        assert self.of(Stub(get_bucket_tagging=[failed("NoSuchBucket")])) == [] == self.of(Stub(), "")
