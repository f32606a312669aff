# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The bucket of the cluster's backups (`backup_bucket`): made and kept, or brought, and never removed.

Bringing a lost cluster back needs it, so it outlives the cluster. Nodes may put snapshots of etcd there and nothing
else: who breaks into one can neither read nor remove backups.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Iterable, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster import buckets
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import plan, session, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.backups import upload
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.backups.settings import (
    LOOKED_AT,
    SETTINGS,
    Bucket,
    Setting,
    action,
    arn,
    same,
    versioning_says,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.context import CONSISTENCY_S
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description, DescriptionError
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.grants import Case, Grant, Statement
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.reader import Reader, together

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.context import Context
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.needs import Found, Place

RESOURCE = "bucket"
# The region for which S3 knows no name, and the one that it had another name for.
# https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetBucketLocation.html
FIRST_REGION, OLD_REGIONS = "us-east-1", {"EU": "eu-west-1"}
MISSING_CODES = ("NoSuchBucket", "404")
# A bucket of another region, where the client was not led there.
ELSEWHERE_CODES = ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301")
# Settings of a bucket are known everywhere after a while, and of two changes at a time S3 refuses one.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/Welcome.html#ConsistencyModel
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html#ErrorCodeList
NOT_YET = ("NoSuchBucket", "OperationAborted")


def _ask(reader: Reader, operation: str, name: str, owner: str) -> Any:
    """Asks about a bucket, and S3 refuses where it is not `owner`'s."""
    return getattr(reader.client("s3"), operation)(Bucket=name, ExpectedBucketOwner=owner)


def _answer(reader: Reader, operation: str, name: str, owner: str, unset: Iterable[str] = ()) -> Any:
    """The answer, None where that is one of `unset`. Raises AwsError."""
    try:
        return _ask(reader, operation, name, owner)
    except Exception as error:
        if session.error_code(error) in unset:
            return None
        if session.error_code(error) or _of_botocore(error):
            raise session.AwsError(session.explain(error, f"read bucket {name} ({operation})")) from error
        raise


def _of_botocore(error: BaseException) -> bool:
    return type(error).__module__.startswith("botocore")


def read(reader: Reader, description: Description, current: Current) -> None:
    """Raises DescriptionError for a bucket of another region, and AwsError for one that is another account's."""
    name = description.backup_bucket
    if not name:
        return
    current.account = owner = _account(reader)
    marks = _tags(reader, description, owner)
    if marks is None:
        return
    there = Bucket(name, _region(reader, name, owner), marks)
    if there.region != description.region:
        raise _elsewhere(description, there.region)
    found: dict[str, Any] = {}

    def look(setting: Setting) -> None:
        answer = _answer(reader, setting.reads, name, owner, setting.unset)
        found[setting.word] = None if answer is None else setting.seen(answer)

    made = there.made(description.name)
    together(partial(look, setting) for setting in SETTINGS if made or setting.word in LOOKED_AT)
    current.bucket = Bucket(name, there.region, marks, found)


def _account(reader: Reader) -> str:
    try:
        return str(reader.client("sts").get_caller_identity()["Account"])
    except Exception as error:
        if session.error_code(error) or _of_botocore(error):
            raise session.AwsError(session.explain(error, "ask for the caller's account")) from error
        raise


def _tags(reader: Reader, description: Description, owner: str) -> dict[str, str] | None:
    """The bucket's tags, None where no account has a bucket of this name."""
    name = description.backup_bucket
    try:
        return tags.as_mapping(_ask(reader, "get_bucket_tagging", name, owner)["TagSet"])
    except Exception as error:
        code = session.error_code(error)
        if code in MISSING_CODES:
            return None
        if code == "NoSuchTagSet":
            return {}
        if code in ELSEWHERE_CODES:
            headers = getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPHeaders", {})
            raise _elsewhere(description, headers.get("x-amz-bucket-region", "")) from None
        # Of a bucket of the caller's own account S3 says which action the caller may not use; of another's, nothing.
        # https://docs.aws.amazon.com/AmazonS3/latest/userguide/troubleshoot-403-errors.html
        if code in session.DENIED_CODES and "not authorized to perform" not in session.message(error):
            raise session.AwsError(
                f"backup_bucket: the name {name} is taken: another account has a bucket of that name, and no two "
                f"accounts can, since names of buckets are global; choose another. If the bucket is this account's "
                f"({owner}), the permission {action('get_bucket_tagging')} is missing on it"
            ) from error
        if code or _of_botocore(error):
            raise session.AwsError(session.explain(error, f"read bucket {name} (get_bucket_tagging)")) from error
        raise


def _region(reader: Reader, name: str, owner: str) -> str:
    given = _answer(reader, "get_bucket_location", name, owner).get("LocationConstraint") or FIRST_REGION
    return OLD_REGIONS.get(given, given)


def _elsewhere(description: Description, region: str) -> DescriptionError:
    return DescriptionError(
        f"backup_bucket: {description.backup_bucket} is in {region or 'another region'}, and the cluster in "
        f"{description.region}; give a bucket of {description.region}, or a name that nobody has, and it is made there"
    )


def check(description: Description, current: Current) -> None:
    """Raises DescriptionError where a bucket that was brought would lose what is overwritten or deleted."""
    there = current.bucket
    if not there or there.made(description.name) or there.settings.get("versioning") == "Enabled":
        return
    raise DescriptionError(
        f"backup_bucket: {there.name} was made by somebody else (it has no tag {tags.cluster_tag(description.name)}), "
        f"and {versioning_says(there.settings.get('versioning'), None)}, so that whoever gets into a node could "
        "overwrite backups; turn it on with "
        f"`aws s3api put-bucket-versioning --bucket {there.name} --versioning-configuration Status=Enabled`, or give a "
        "name that nobody has, and the bucket is made"
    )


def check_new(reader: Reader, changes: plan.Plan) -> None:
    """Raises DescriptionError where the bucket to make cannot be made as it has to be."""
    for step in changes.of(CreateBucket):
        # https://docs.aws.amazon.com/AmazonS3/latest/userguide/gpbucketnamespaces.html
        if step.name.endswith("-an"):
            raise DescriptionError(
                f"backup_bucket: S3 keeps names that end in -an, as {step.name} does, for an account's own namespace; "
                "choose another name, or make that bucket yourself"
            )
        operation = reader.client("s3").meta.service_model.operation_model("CreateBucket")
        if "Tags" not in operation.input_shape.members["CreateBucketConfiguration"].members:
            raise DescriptionError(
                f"backup_bucket: this boto3 cannot tag {step.name} while it makes it, and a run that is cut off would "
                "leave a bucket that nobody could tell from one that was brought; install a newer boto3, or make the "
                "bucket yourself, with versioning"
            )


def wanted(draft: plan.Draft) -> None:
    description, there = draft.description, draft.current.bucket
    if draft.removing:
        return
    before = upload.bucket_of(draft.current, description)
    if before and before != description.backup_bucket:
        draft.plan.warnings.append(
            f"backup_bucket: {before} gets no more snapshots from this cluster. It stays as it is, with what it holds"
        )
    name, owner = description.backup_bucket, draft.current.account
    if not name or (there and not there.made(draft.cluster)):
        return
    marks = draft.tags(name)
    # One after the other, since S3 refuses one of two changes of a bucket at a time.
    last: list[str] = []
    if not there:
        last = [draft.add(CreateBucket(RESOURCE, plan.MISSING, name, owner, marks))]
    elif any(there.tags.get(key) != value for key, value in marks.items()):
        lacking = {key: value for key, value in marks.items() if there.tags.get(key) != value}
        reason = f"tag {', '.join(f'{key}={value}' for key, value in sorted(lacking.items()))} is missing"
        request = {"Tagging": {"TagSet": tags.as_list({**there.tags, **marks})}}
        last = [draft.add(PutSetting(f"tags/{RESOURCE}", reason, name, owner, "put_bucket_tagging", request))]
    for setting in SETTINGS:
        value = setting.wanted(description)
        seen = there.settings.get(setting.word) if there else None
        if there and same(setting, seen, value):
            continue
        reason = f"{name}: {setting.says(seen, value)}" if there else plan.MISSING
        step = PutSetting(f"{RESOURCE}/{setting.word}", reason, name, owner, setting.writes, setting.request(value))
        last = [draft.add(step, last)]


def shown(description: Description, current: Current) -> dict[str, str]:
    """What the module returns of the bucket; empty without one."""
    if not description.backup_bucket:
        return {}
    made = not current.bucket or current.bucket.made(description.name)
    return {"name": description.backup_bucket, "origin": _origin(made), "region": description.region}


def _origin(made: bool) -> str:
    return "made" if made else "brought"


def left(reader: Reader, description: Description, current: Current) -> list[dict[str, str]]:
    """The buckets that a removal leaves, each with how to remove it (or the cluster's part of it) by hand.

    One that cannot be looked at counts as somebody else's: who removes a cluster need not be allowed to.
    """
    found = []
    for name in dict.fromkeys(filter(None, (description.backup_bucket, upload.bucket_of(current, description)))):
        try:
            marks = tags.as_mapping(_ask(reader, "get_bucket_tagging", name, _account(reader))["TagSet"])
        except Exception as error:
            code = session.error_code(error)
            if code in MISSING_CODES:
                continue
            if not code and not isinstance(error, session.AwsError) and not _of_botocore(error):
                raise
            marks = {}
        made = Bucket(name, description.region, marks).made(description.name)
        found.append({"name": name, "origin": _origin(made), "removal": _removal(name, description.name, made)})
    return found


def _removal(name: str, cluster: str, made: bool) -> str:
    """In Python, since no command of `aws` removes the versions of objects that are not the current ones."""
    bucket = f"bucket = boto3.resource('s3').Bucket('{name}')"
    if made:
        return f'python3 -c "import boto3; {bucket}; bucket.object_versions.delete(); bucket.delete()"'
    part = f"bucket.object_versions.filter(Prefix='{buckets.prefix(cluster)}').delete()"
    return f'python3 -c "import boto3; {bucket}; {part}"'


@dataclass
class CreateBucket(plan.Step):
    """Makes the bucket with its tags, by which a run after one that was cut off knows it again."""

    name: str
    owner: str
    tags: dict[str, str]
    action = plan.CREATE

    def apply(self, context: Context) -> None:
        configuration: dict[str, Any] = {"Tags": tags.as_list(self.tags)}
        if context.aws.region != FIRST_REGION:
            configuration["LocationConstraint"] = context.aws.region
        try:
            context.retry(
                f"the name of bucket {self.name} to be free",
                lambda: context.s3.create_bucket(Bucket=self.name, CreateBucketConfiguration=configuration),
                ["OperationAborted"],
                CONSISTENCY_S,
            )
        except Exception as error:
            # A call whose answer was lost is repeated; whose bucket it is shows below.
            if session.error_code(error) != "BucketAlreadyOwnedByYou":
                raise
        context.until(f"bucket {self.name} to show the cluster's tag", lambda: self._ours(context), CONSISTENCY_S)

    def _ours(self, context: Context) -> bool | None:
        try:
            answer = context.s3.get_bucket_tagging(Bucket=self.name, ExpectedBucketOwner=self.owner)
        except Exception as error:
            if session.error_code(error) in (*MISSING_CODES, "NoSuchTagSet"):
                return None
            raise
        return True if tags.cluster_tag(context.cluster) in tags.as_mapping(answer["TagSet"]) else None

    def needs(self, place: Place) -> Iterable[Found]:
        for name in ("s3:CreateBucket", "s3:TagResource"):
            yield name, place.bucket(self.name), {**place.region, **place.requested()}
        # After the run the account is read again.
        for name in READS:
            yield name, place.bucket(self.name), place.region


@dataclass
class PutSetting(plan.Step):
    """Writes one setting of the bucket; `arguments` are those of the client's method `operation`."""

    name: str
    owner: str
    operation: str
    arguments: dict[str, Any]
    action = plan.UPDATE

    def apply(self, context: Context) -> None:
        context.retry(
            f"bucket {self.name} to take its settings ({self.operation})",
            lambda: getattr(context.s3, self.operation)(
                Bucket=self.name, ExpectedBucketOwner=self.owner, **self.arguments
            ),
            NOT_YET,
            CONSISTENCY_S,
        )

    def needs(self, place: Place) -> Iterable[Found]:
        yield action(self.operation), place.bucket(self.name), place.region


def _used(case: Case) -> bool:
    return bool(case.description.backup_bucket)


def _made(case: Case) -> bool:
    there = case.current.bucket
    return _used(case) and not (there and not there.made(case.description.name))


def _has_key(case: Case) -> bool:
    return bool(upload.key_used(case.description, case.current))


def _key_scope(case: Case) -> tuple[Any, Mapping[str, Any]]:
    return upload.by_s3(upload.key_used(case.description, case.current), case.description.region)


READS = ("s3:GetBucketLocation", "s3:GetBucketTagging", *(action(setting.reads) for setting in SETTINGS))
WRITES = ("s3:PutBucketTagging", *(action(setting.writes) for setting in SETTINGS))
WHEN = "`backup_bucket`"
OF_BUCKET = Statement(
    "BackupBucket",
    WHEN,
    "the bucket of backups: making it and keeping its settings, unless it was brought, and finding backups",
    lambda case: (arn(case.description, "*"), {}),
)
# What playbooks/backup.yml and restore.yml do; nodes have a role of their own.
OF_BACKUPS = Statement(
    "Backups",
    WHEN,
    "putting the cluster's backups there, and getting them back",
    lambda case: (f"{arn(case.description, '*')}/{buckets.prefix(case.description.name)}*", {}),
)
OF_KEY = Statement(
    "BackupKey", f"{WHEN} with `kms_key_id`", "backups in a bucket that is encrypted with a key", _key_scope
)
PERMISSIONS = (
    Grant(OF_BUCKET, (*READS, "s3:ListBucket", "s3:ListBucketVersions"), _used),
    Grant(OF_BUCKET, ("s3:CreateBucket", "s3:TagResource", *WRITES), _made),
    Grant(OF_BACKUPS, ("s3:AbortMultipartUpload", "s3:GetObject", "s3:GetObjectVersion", "s3:PutObject"), _used),
    Grant(OF_KEY, upload.KEY_ACTIONS, _has_key),
)
