# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lists what a bucket has of a cluster, fetches it, and puts backups there. Files are never in memory as a whole.

https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html#ErrorCodeList
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Callable, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._backup import age, content
from ansible_collections.k8sgu.cluster.plugins.module_utils._backup.age import AgeError
from ansible_collections.k8sgu.cluster.plugins.module_utils._bucket.options import ARGUMENT_SPEC, RULES
from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster import buckets
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import session
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.session import AwsError
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import snapshots
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import (
    FileError,
    ensure_directory,
    free_bytes,
    sha256_of,
    whole_file,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.libraries import (
    BOTO3,
    PYRAGE,
    LibraryMissing,
    require,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module

with contextlib.suppress(ImportError):  # `run` checks for it before anything here is called
    from boto3.s3.transfer import TransferConfig
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        HTTPClientError,
        IncompleteReadError,
    )

LATEST = "latest"
AGE = ".age"
_MIB = 2**20
_SPARE = 64 * _MIB
_CHUNK = _MIB
# Of an upload in parts; S3 takes 10000 of them at most, so files of up to 625 GiB.
_PART = 64 * _MIB
_PARTS_AT_ONCE = 4
# What S3 answers that has the bucket in another region, where botocore has not gone there by itself.
_ELSEWHERE = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"}
)


@dataclass(frozen=True)
class Stored:
    """An object: its key, its size in bytes, S3's mark of its content, and when it was put there, as ISO 8601."""

    key: str
    bytes: int
    etag: str
    modified: str

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]


class Bucket:
    """One bucket, asked with the options of a call. What goes wrong is told as AwsError."""

    def __init__(self, options: dict[str, Any]) -> None:
        connection = session.Connection.from_options(options)
        self._aws = session.Aws(connection)
        self._client = self._aws.client("s3")
        self._tries = connection.max_attempts
        self.name = str(options["bucket"])

    def listed(self, prefix: str) -> list[Stored]:
        """Every object whose key begins so."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        with self._explained(f"list s3://{self.name}/{prefix}"):
            return [
                Stored(one["Key"], int(one["Size"]), one["ETag"], one["LastModified"].isoformat())
                for page in pages
                for one in page.get("Contents", [])
            ]

    def copy(self, stored: Stored, stream: IO[bytes]) -> None:
        """Writes an object's content. What breaks off on the way goes on where it was."""
        done = tries = 0
        with self._explained(f"fetch s3://{self.name}/{stored.key}"):
            while done < stored.bytes:
                tries += 1
                part = {"Range": f"bytes={done}-"} if done else {}
                # Not of another object that got this name meanwhile.
                answer = self._client.get_object(Bucket=self.name, Key=stored.key, IfMatch=stored.etag, **part)
                try:
                    for chunk in answer["Body"].iter_chunks(_CHUNK):
                        stream.write(chunk)
                        done += len(chunk)
                except (HTTPClientError, IncompleteReadError):
                    if tries >= self._tries:
                        raise

    def sha256(self, stored: Stored) -> str:
        """That of the file that an object was made of; empty if it was put there by another program."""
        with self._explained(f"ask for s3://{self.name}/{stored.key}"):
            found = self._client.head_object(Bucket=self.name, Key=stored.key)
        return str(found["Metadata"].get("sha256", ""))

    def put(self, path: Path, key: str, sha256: str) -> None:
        """A file as an object. S3 compares each part with its checksum."""
        config = TransferConfig(multipart_threshold=_PART, multipart_chunksize=_PART, max_concurrency=_PARTS_AT_ONCE)
        more = {"Metadata": {"sha256": sha256}, "ChecksumAlgorithm": "SHA256"}
        with path.open("rb") as stream, self._explained(f"put {path} to s3://{self.name}/{key}"):
            self._client.upload_fileobj(stream, self.name, key, ExtraArgs=more, Config=config)

    @contextlib.contextmanager
    def _explained(self, doing: str) -> Any:
        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise AwsError(explain(error, doing, self.name, self._aws.region)) from error


def explain(error: BaseException, doing: str, bucket: str, region: str) -> str:
    """One sentence for the user: what failed, why, and what helps."""
    code = session.error_code(error)
    if code == "NoSuchBucket":
        return (
            f"bucket: cannot {doing}: there is no bucket {bucket}; put back its name (k8sgu_backup_bucket), or "
            "have it made (playbooks/infrastructure.yml)"
        )
    if code in _ELSEWHERE:
        headers = getattr(error, "response", {}).get("ResponseMetadata", {}).get("HTTPHeaders", {})
        there = headers.get("x-amz-bucket-region", "another region")
        return f"region: cannot {doing}: the bucket is in {there}, and {region} was asked; set region (k8sgu_region)"
    if code in ("NoSuchKey", "PreconditionFailed", "404", "412"):
        return f"cannot {doing}: it is not there any more; list what is there, and take another one"
    return session.explain(error, doing)


def run(call: Call) -> dict[str, Any]:
    """The module's result. Raises AwsError, FileError, LibraryMissing."""
    require(BOTO3)
    fault = buckets.name_fault(call.options["bucket"])
    if fault:
        raise AwsError(f"bucket: {fault}")
    try:
        return _STATES[call.options["state"]](call)
    except OSError as error:
        raise AwsError(f"path: {error.filename or call.options['path']}: {error.strerror or error}") from error


def _listed(call: Call) -> dict[str, Any]:
    bucket = Bucket(call.options)
    cluster = call.options["cluster"]
    return {
        "changed": False,
        "snapshots": [_shown(one, name) for name, one in _snapshots(bucket, cluster)],
        "backups": [_shown(one, one.name) for one in _backups(bucket, cluster)],
    }


def _fetched(call: Call) -> dict[str, Any]:
    options = call.options
    directory = Path(options["path"])
    if options["snapshot"]:
        require(PYRAGE)
        name = str(options["snapshot"])
        keys = _keys(options["identity_files"])
        bucket = Bucket(options)
        found = dict(_snapshots(bucket, options["cluster"]))
        prefix = buckets.etcd_prefix(options["cluster"])
    else:
        keys = []
        bucket = Bucket(options)
        found = {one.name: one for one in _backups(bucket, options["cluster"])}
        prefix = buckets.state_prefix(options["cluster"])
        name = next(iter(found), "") if options["backup"] == LATEST else str(options["backup"])
    stored = found.get(name)
    if stored is None:
        there = f"it has {', '.join(list(found)[:3])}" if found else "it has none"
        option = "snapshot" if options["snapshot"] else "backup"
        raise AwsError(f"{option}: {options[option]} is not in s3://{bucket.name}/{prefix}; {there}")
    target = directory / name
    result = {"path": str(target), "object": f"s3://{bucket.name}/{stored.key}", "bytes": stored.bytes}
    if target.exists():
        if not options["snapshot"] and target.stat().st_size != stored.bytes:
            raise AwsError(f"path: {target} is there, and another one than {result['object']}; move it away")
        return {"changed": False, **result}
    # It comes as it is, and is decrypted beside.
    _room(directory, stored.bytes * (2 if options["snapshot"] else 1), target.name)
    if not call.check_mode:
        ensure_directory(str(directory), 0o700)
        with whole_file(str(target)) as stream:
            if options["snapshot"]:
                _decrypted(bucket, stored, keys, stream, options)
            else:
                bucket.copy(stored, stream)
    return {"changed": True, **result}


def _stored(call: Call) -> dict[str, Any]:
    options = call.options
    path = Path(options["path"])
    if not content.names_of(options["cluster"]).fullmatch(path.name):
        raise AwsError(f"path: {path} is not named as backups of {options['cluster']} are (cluster_backup)")
    sha256 = sha256_of(str(path))
    size = path.stat().st_size
    bucket = Bucket(options)
    key = buckets.state_prefix(options["cluster"]) + path.name
    result = {"path": str(path), "object": f"s3://{bucket.name}/{key}", "bytes": size}
    try:
        if _is_there(bucket, key, size, sha256, result):
            return {"changed": False, **result}
        if not call.check_mode:
            bucket.put(path, key, sha256)
            if not _is_there(bucket, key, size, sha256, result):
                raise AwsError(f"{result['object']} is not there though S3 took it; put it there again")
    except AwsError as error:
        raise AwsError(f"{error}. {path} is whole, and stays on this machine alone") from error
    return {"changed": True, **result}


_STATES: dict[str, Callable[[Call], dict[str, Any]]] = {"listed": _listed, "fetched": _fetched, "stored": _stored}


def _snapshots(bucket: Bucket, cluster: str) -> list[tuple[str, Stored]]:
    """Those of etcd by their names, the newest first."""
    there = bucket.listed(buckets.etcd_prefix(cluster))
    found = {one.name[: -len(AGE)]: one for one in there if one.name.endswith(AGE)}
    return [(one.name, found[one.name]) for one in snapshots.listed(found)]


def _backups(bucket: Bucket, cluster: str) -> list[Stored]:
    """Those of the state directory, the newest first."""
    name = content.names_of(cluster)
    found = [one for one in bucket.listed(buckets.state_prefix(cluster)) if name.fullmatch(one.name)]
    # Their names begin with the cluster's, and then the time.
    return sorted(found, key=lambda one: one.name, reverse=True)


def _shown(stored: Stored, name: str) -> dict[str, Any]:
    return {"name": name, "bytes": stored.bytes, "modified": stored.modified}


def _keys(paths: Sequence[str]) -> list[Any]:
    """The private keys in the files that are there."""
    there = [Path(path) for path in paths if Path(path).exists()]
    if not there:
        raise AwsError(
            f"identity_files: {', '.join(paths) or 'none given'}: there is no key; open a backup of the state "
            "directory, which has it (playbooks/open_backup.yml), or name the file with yours "
            "(k8sgu_backup_identity_file)"
        )
    try:
        return [key for path in there for key in age.identities(path)]
    except AgeError as error:
        raise AwsError(f"identity_files: {error}") from None


def _decrypted(bucket: Bucket, stored: Stored, keys: Sequence[Any], stream: IO[bytes], options: dict[str, Any]) -> None:
    where = f"s3://{bucket.name}/{stored.key}"
    # Without a name, so that it goes with this process.
    with tempfile.TemporaryFile(dir=options["path"]) as sealed:
        bucket.copy(stored, sealed)
        sealed.seek(0)
        try:
            age.decrypt(sealed, stream, keys)
        except age.OtherKey as error:
            tried = ", ".join(
                path if Path(path).exists() else f"{path} (not there)" for path in options["identity_files"]
            )
            raise AwsError(
                f"identity_files: no key opens {where}: {error} than those in {tried}; name the file with the key of "
                "one of k8sgu_backup_recipients (k8sgu_backup_identity_file), or open the backup of the state "
                "directory of that time"
            ) from None
        except AgeError as error:
            raise AwsError(f"{where} cannot be opened: {error}; take another one") from None


def _is_there(bucket: Bucket, key: str, size: int, sha256: str, result: dict[str, Any]) -> bool:
    """Whether the bucket has this content under this key. Raises AwsError if it has another one."""
    found = [one for one in bucket.listed(key) if one.key == key]
    if not found:
        return False
    if found[0].bytes != size or bucket.sha256(found[0]) != sha256:
        raise AwsError(
            f"path: {result['object']} is there already, and another one than {result['path']}; it is left as it is; "
            "make a backup anew, which has another name"
        )
    return True


def _room(directory: Path, size: int, name: str) -> None:
    free = free_bytes(str(directory.absolute()))
    if free < size + _SPARE:
        raise AwsError(
            f"path: {directory} has {free // _MIB} MiB free, and {name} takes {-(-(size + _SPARE) // _MIB)} MiB with "
            "room to spare until it is there; make room"
        )


MODULE = Module(ARGUMENT_SPEC, run, (AwsError, FileError, LibraryMissing), RULES)
