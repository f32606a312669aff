# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that puts a member's newest snapshot into a bucket: with age as it is, on moto's S3."""

from __future__ import annotations

import datetime
import io
import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any, Iterator

import api_server
import pyrage
import pytest
from moto_server import REGION, Server, moto_server

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import upload
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.snapshots import Snapshot, parse
from ansible_collections.k8sgu.cluster.plugins.plugin_utils._compiled import zipapp

BUCKET = "k8sgu-backups"
TO = f"s3://{BUCKET}/demo/etcd/"
MIB = 2**20
# The least that S3 takes as a part.
PART = 5 * MIB


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with moto_server() as running:
        running.client("s3").create_bucket(Bucket=BUCKET)
        yield running


class Node:
    """A member's directories, with the key that is not on it."""

    def __init__(self, place: Path, server: Server) -> None:
        found = api_server.find_program("age", "age", "1.3")
        if found is None:
            pytest.skip("no mirror with age; fill one with `make up`")
        self.age, self.server = found, server
        self.snapshots, self.record = place / "snapshots", place / "uploaded.json"
        self.recipients, self.metrics = place / "recipients.txt", place / "metrics"
        self.snapshots.mkdir()
        self.identity = pyrage.x25519.Identity.generate()
        self.recipients.write_text(f"{self.identity.to_public()}\n")

    def take(self, minutes_ago: int, content: bytes) -> str:
        taken = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=minutes_ago)
        name = Snapshot(taken, "3.6.14", 5000 - minutes_ago, "backup").name
        (self.snapshots / name).write_bytes(content)
        return name

    def arguments(self, to: str = TO, age: str = "") -> list[str]:
        return [
            *(f"--to={to}", f"--region={REGION}", f"--directory={self.snapshots}", f"--record={self.record}"),
            *(f"--recipients={self.recipients}", f"--age={age or self.age}", "--patience=0"),
            f"--metrics={self.metrics}",
        ]

    def told(self) -> list[str]:
        """The numbers for Prometheus, without what is said about them."""
        found = self.metrics / "etcd-upload.prom"
        return [line for line in found.read_text().splitlines() if line[0] != "#"] if found.exists() else []

    def objects(self) -> dict[str, bytes]:
        """Everything below the prefix, opened."""
        s3 = self.server.client("s3")
        found = s3.list_objects_v2(Bucket=BUCKET, Prefix="demo/").get("Contents", [])
        return {one["Key"]: self.opened(s3.get_object(Bucket=BUCKET, Key=one["Key"])["Body"].read()) for one in found}

    def opened(self, sealed: bytes) -> bytes:
        content = io.BytesIO()
        pyrage.decrypt_io(io.BytesIO(sealed), content, [self.identity])
        return content.getvalue()


@pytest.fixture
def node(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setattr(upload, "PART", PART)
    for name in [one for one in os.environ if one.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in server.environment().items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    s3 = server.client("s3")
    for one in s3.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        s3.delete_object(Bucket=BUCKET, Key=one["Key"])
    return Node(tmp_path, server)


def expected(name: str) -> str:
    snapshot = parse(name)
    assert snapshot is not None
    return f"k8sgu_etcd_upload_timestamp_seconds {int(snapshot.taken.timestamp())}"


# age's own form of what it encrypts is a little longer: so one part that is not full, one that is full to the byte
# before it, and several.
@pytest.mark.parametrize("size", [3 * MIB, 5 * MIB, 12 * MIB])
def test_the_newest_is_put_there_encrypted_and_once(node: Node, size: int, capsys: pytest.CaptureFixture[str]) -> None:
    node.take(30, b"older")
    content = os.urandom(size)
    name = node.take(15, content)
    assert upload.main(node.arguments()) == 0
    said = capsys.readouterr()
    assert said.err == "" and len(said.out.splitlines()) == 1 and f"{TO}{name}.age: " in said.out
    assert node.objects() == {f"demo/etcd/{name}.age": content}
    record = json.loads(node.record.read_text())
    assert (record["name"], record["to"]) == (name, TO) and record["bytes"] > size
    assert node.told() == [expected(name)]
    assert stat.S_IMODE(node.record.stat().st_mode) == 0o600
    # Nothing is new, and an object that is gone stays so: it had its time.
    node.server.client("s3").delete_object(Bucket=BUCKET, Key=f"demo/etcd/{name}.age")
    assert upload.main(node.arguments()) == 0
    assert (node.objects(), capsys.readouterr().out) == ({}, "")
    # As after a run that was killed before it told the number.
    (node.metrics / "etcd-upload.prom").unlink()
    assert upload.main(node.arguments()) == 0
    assert node.told() == [expected(name)]
    # Elsewhere it is new.
    assert upload.main(node.arguments(to=f"s3://{BUCKET}/demo/other/")) == 0
    assert list(node.objects()) == [f"demo/other/{name}.age"]


def parts(server: Server) -> list[Any]:
    return list(server.client("s3").list_multipart_uploads(Bucket=BUCKET).get("Uploads", []))


# Before the first part is full, and after some.
@pytest.mark.parametrize("written", [MIB, 12 * MIB])
def test_what_age_did_not_finish_is_not_there(
    node: Node, written: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "age"
    broken.write_text(f"#!/bin/sh\nhead -c {written} /dev/zero\necho 'read error' >&2\nexit 1\n")
    broken.chmod(0o755)
    name = node.take(15, b"content")
    assert upload.main(node.arguments(age=str(broken))) == 1
    said = capsys.readouterr().err
    assert said == f"{node.snapshots / name} could not be encrypted: read error\n"
    assert (node.server.client("s3").list_objects_v2(Bucket=BUCKET)["KeyCount"], parts(node.server)) == (0, [])
    assert not node.record.exists() and node.told() == []
    # And then it is.
    assert upload.main(node.arguments()) == 0
    assert node.told() == [expected(name)]
    assert node.objects() == {f"demo/etcd/{name}.age": b"content"}


def test_without_a_key_nothing_leaves_the_node(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    node.take(15, b"content")
    for text in ("", "# none\n", "age1none\n"):
        node.recipients.write_text(text)
        assert upload.main(node.arguments()) == 1
        assert "could not be encrypted: age: error" in capsys.readouterr().err
    node.recipients.unlink()
    assert upload.main(node.arguments()) == 1
    assert "recipients.txt" in capsys.readouterr().err
    assert node.objects() == {}


def test_a_bucket_that_is_not_there_is_named(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    name = node.take(15, b"content")
    place = "s3://k8sgu-nowhere/demo/etcd/"
    assert upload.main(node.arguments(to=place)) == 1
    said = capsys.readouterr().err
    assert said == (
        f"{place}{name}.age: the bucket is not there; run playbooks/infrastructure.yml, which makes it (NoSuchBucket)\n"
    )
    assert not node.record.exists()


def test_without_the_programs_it_says_what_installs_them(
    node: Node, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node.take(15, b"content")
    assert upload.main(node.arguments(age="/nowhere/age")) == 1
    assert "/nowhere/age: No such file or directory; run playbooks/etcd.yml" in capsys.readouterr().err
    program = tmp_path / "etcd-upload.pyz"
    program.write_bytes(zipapp("_etcd.upload"))
    program.chmod(0o755)
    # Its own interpreter looks for boto3 among the distribution's packages alone.
    done = subprocess.run([str(program), *node.arguments()], capture_output=True, text=True, check=False, timeout=120)
    if Path(upload.PACKAGES, "boto3").exists():
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode == 1 and "installs the package python3-boto3" in done.stderr
