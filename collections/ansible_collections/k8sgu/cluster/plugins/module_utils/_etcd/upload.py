# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that puts a member's newest snapshot, encrypted, into the cluster's bucket, after each that is taken.

It is encrypted by age on its way, for keys of which the node has only the public halves, and sent with the credentials
of the instance's role, which may put objects and do nothing else: who breaks into a node can neither read nor remove
what is there. https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObject.html

boto3 is the distribution's (python3-boto3), from version 1.9 of Ubuntu 20.04 on.
"""

# Paths are text here, as in the options.
# ruff: noqa: PTH118, PTH123, PTH208
from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import IO, Any, Callable, Iterator, Mapping, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import etcdctl, snapshots
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.snapshots import Snapshot
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import FileError, atomic_write, metrics

RECIPIENTS = "/etc/etcd/backup-recipients.txt"
AGE = "/opt/k8sgu/age/current/age"
SUFFIX = ".age"
# The interpreter of the program looks there only when it is told to (-S), and the distribution's boto3 is there.
PACKAGES = "/usr/lib/python3/dist-packages"
# A part is in memory. S3 takes 10,000 of them, and from 5 MiB on.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
PART = 16 * 2**20
PATIENCE_S = 300
RETRY_S = 10
_CONNECT_S, _READ_S = 10, 60
PROGRAM = "etcd-upload"
# Not when it was sent: what a restore from the bucket would lose is counted from here.
THERE = "k8sgu_etcd_upload_timestamp_seconds"
THERE_HELP = "When this member's newest snapshot in the bucket was taken, in seconds since 1970."

INFRASTRUCTURE = "run playbooks/infrastructure.yml"
# {error code of S3: what to do}. https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_ANSWERS = {
    "NoSuchBucket": f"the bucket is not there; {INFRASTRUCTURE}, which makes it",
    "AccessDenied": f"this node's role may not put it there; {INFRASTRUCTURE}, which gives the permission, and look "
    "at the bucket's own policy and its KMS key's",
    "PermanentRedirect": "the bucket is in another region than the cluster; give one of this region",
    "AuthorizationHeaderMalformed": "the bucket is in another region than the cluster; give one of this region",
    "RequestTimeTooSkewed": "this node's clock is wrong: chronyc tracking",
}


class UploadError(Exception):
    """A snapshot is not in the bucket; the text says why, and what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if the newest snapshot is in the bucket, with a line for each that was put there. Otherwise 1, with a line
    that says why."""
    given = _parser().parse_args(arguments)
    deadline, said = time.monotonic() + given.patience, ""
    while True:
        try:
            told = _bring(given)
        except (UploadError, FileError, OSError) as error:
            # IAM and S3 know what is new after a while only, and a node's way out may be disturbed for a moment. Who
            # looks into the journal meanwhile sees what is wrong.
            if str(error) != said:
                said = str(error)
                sys.stderr.write(f"{said}\n")
                sys.stderr.flush()
            if time.monotonic() + RETRY_S > deadline:
                return 1
            time.sleep(RETRY_S)
            continue
        if not told:
            return 0
        # The next one may have been taken while this one was on its way.
        sys.stdout.write(f"{told}\n")
        sys.stdout.flush()
        deadline = time.monotonic() + given.patience


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Puts this member's newest snapshot of etcd, encrypted, into a bucket of S3."
    )
    parser.add_argument("--to", required=True, help="s3://BUCKET/PREFIX, such as s3://backups/demo/etcd/")
    parser.add_argument("--region", required=True, help="the bucket's")
    parser.add_argument("--directory", default=snapshots.DIRECTORY, help="where snapshots are (default: %(default)s)")
    parser.add_argument("--record", default=snapshots.UPLOADED, help="what was put there last (default: %(default)s)")
    parser.add_argument("--metrics", default=metrics.DIRECTORY, help="for Prometheus (default: %(default)s)")
    parser.add_argument("--recipients", default=RECIPIENTS, help="public keys of age (default: %(default)s)")
    parser.add_argument("--age", default=AGE, help="(default: %(default)s)")
    parser.add_argument(
        "--patience",
        type=int,
        default=PATIENCE_S,
        help="seconds in which it tries again when it fails (default: %(default)s)",
    )
    return parser


def newest(names: Sequence[str], uploaded: str, now: datetime.datetime) -> Snapshot | None:
    """The snapshot that has to be put into the bucket; None if none is newer than `uploaded` (a name, or empty). Pure.

    Only those that the member takes by itself, and none that is dated later, by a clock that ran ahead.
    """
    own = [one for one in snapshots.listed(names) if one.series == snapshots.BACKUP and one.taken <= now]
    before = snapshots.parse(uploaded)
    if not own or (before and before.taken <= now and before.taken >= own[0].taken):
        return None
    return own[0]


def _bring(given: argparse.Namespace) -> str:
    """One line about the snapshot that was put into the bucket; empty if the newest one is there already."""
    now = datetime.datetime.now(datetime.timezone.utc)
    last = {}
    with contextlib.suppress(FileNotFoundError), open(given.record, encoding="utf-8", errors="replace") as stream:
        last = snapshots.uploaded(stream.read())
    there = last["name"] if last.get("to") == given.to else ""
    snapshot = newest(os.listdir(given.directory), there, now)
    if snapshot is None:
        # Every run ends here, also the one after a run that was killed when it had put one there.
        sent = snapshots.listed([there])
        metrics.publish(
            given.metrics, PROGRAM, [metrics.Gauge(THERE, THERE_HELP, one.taken.timestamp()) for one in sent]
        )
        return ""
    began = time.monotonic()
    place = f"{given.to}{snapshot.name}{SUFFIX}"
    with _encrypted(os.path.join(given.directory, snapshot.name), given) as part:
        size = _put(_client(given), place, part)
    at = datetime.datetime.now(datetime.timezone.utc).strftime(snapshots.TIME)
    seconds = round(time.monotonic() - began, 2)
    record = {"name": snapshot.name, "to": given.to, "at": at, "bytes": size, "seconds": seconds}
    atomic_write(given.record, (json.dumps(record) + "\n").encode(), 0o600)
    return f"{place}: {size} bytes, {seconds} s"


@contextlib.contextmanager
def _encrypted(path: str, given: argparse.Namespace) -> Iterator[Callable[[], bytes]]:
    """A function that returns the next part of what age makes of a file, and nothing at its end.

    It raises UploadError at the end of what is not whole, before that could be taken for all of it.
    """
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                [given.age, "--encrypt", "--recipients-file", given.recipients, path],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=said,
                preexec_fn=etcdctl.end_with_parent,
            )
        except OSError as error:
            raise UploadError(f"{given.age}: {error.strerror}; run playbooks/etcd.yml, which installs it") from error
        stream: IO[bytes] = process.stdout  # type: ignore[assignment]

        def part() -> bytes:
            read = stream.read(PART)
            if len(read) < PART and process.wait():
                said.seek(0)
                raise UploadError(f"{path} could not be encrypted: {said.read(2000).decode(errors='replace').strip()}")
            return read

        try:
            yield part
        finally:
            stream.close()
            process.kill()
            process.wait()


def _client(given: argparse.Namespace) -> Any:
    if PACKAGES not in sys.path:
        sys.path.append(PACKAGES)
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise UploadError(f"{error}: run playbooks/etcd.yml, which installs the package python3-boto3") from error
    # A session of its own reads the role's credentials anew. The content is part of the signature, so that S3 refuses
    # what was changed on its way. Old versions would ask us-east-1 by a name of all regions.
    return boto3.session.Session().client(
        "s3",
        region_name=given.region,
        config=Config(
            connect_timeout=_CONNECT_S,
            read_timeout=_READ_S,
            retries={"max_attempts": 4},
            s3={
                "addressing_style": "virtual",
                "us_east_1_regional_endpoint": "regional",
                "payload_signing_enabled": True,
            },
        ),
    )


def _put(client: Any, place: str, part: Callable[[], bytes]) -> int:
    """Puts all parts into one object, s3://BUCKET/KEY; its bytes. Raises UploadError, and there is no object then."""
    bucket, _slash, key = place[len("s3://") :].partition("/")
    with _explained(place):
        first = part()
        if len(first) < PART:
            client.put_object(Bucket=bucket, Key=key, Body=first)
            return len(first)
        upload = {"Bucket": bucket, "Key": key}
        upload["UploadId"] = client.create_multipart_upload(**upload)["UploadId"]
        try:
            size, content = 0, first
            done: list[dict[str, Any]] = []
            while content:
                number = len(done) + 1
                answer = client.upload_part(**upload, PartNumber=number, Body=content)
                done.append({"PartNumber": number, "ETag": answer["ETag"]})
                size += len(content)
                content = part()
            client.complete_multipart_upload(**upload, MultipartUpload={"Parts": done})
            return size
        except BaseException:
            # What cannot be removed now the bucket removes after a day.
            with contextlib.suppress(Exception):
                client.abort_multipart_upload(**upload)
            raise


@contextlib.contextmanager
def _explained(place: str) -> Iterator[None]:
    """Turns what boto3 raises into an UploadError that says what to do."""
    try:
        yield
    except UploadError:
        raise
    except Exception as error:
        # By name: boto3 is not imported where this module is read.
        raise UploadError(f"{place}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """What an error of boto3 means, and what to do. Pure."""
    response: Mapping[str, Any] = getattr(error, "response", None) or {}
    code = str(response.get("Error", {}).get("Code", ""))
    if code in _ANSWERS:
        return f"{_ANSWERS[code]} ({code})"
    if type(error).__name__ in ("NoCredentialsError", "CredentialRetrievalError", "MetadataRetrievalError"):
        return f"this node's role gives no credentials (http://169.254.169.254); {INFRASTRUCTURE} ({error})"
    if type(error).__name__ in ("EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError", "SSLError"):
        return (
            "S3 cannot be reached from this node: it needs a way out (a public address, NAT, a gateway endpoint of its "
            f"VPC, or k8sgu_proxy) ({error})"
        )
    return str(error)
