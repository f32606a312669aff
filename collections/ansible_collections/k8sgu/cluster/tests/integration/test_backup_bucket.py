# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a bucket has is listed, fetched as a whole or not at all, and put there; what S3 refuses has a way out.

Against moto's S3, behind a server that answers as S3 does where moto never refuses, and that breaks off.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ansible_program
import boto3
import pyrage
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from ansible_collections.k8sgu.cluster.plugins.module_utils._backup import run as cluster_backup
from ansible_collections.k8sgu.cluster.plugins.module_utils._bucket import run
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, carry_out

REGION = "us-east-1"
BUCKET = "example-backups"
COLLECTIONS = Path(__file__).resolve().parents[5]
NEW = "20261129T182000Z_etcd-3.6.14_rev-5000_backup.db"
OLD = "20261128T180000Z_etcd-3.6.14_rev-4000_backup.db"
BACKUP, OLD_BACKUP = "demo-20261129T181500Z.tar.age", "demo-20261128T181500Z.tar.age"
OWN, OTHER = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
WORD = "correct horse battery staple"
CONTENT = os.urandom(300_000)
ERROR = "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{}</Code><Message>{}</Message></Error>"


@dataclass
class S3:
    """moto's S3 behind a server that may do as `fault` says: answer it, or break off, or hang, after some bytes."""

    url: str = ""
    # Method and a part of the path, and status, code, message and headers of the answer.
    fault: tuple[str, str, int, str, str, dict[str, str]] | None = None
    # Bytes of a content after which the connection ends, each time; or nothing more comes.
    breaks: int = 0
    hangs: int = 0
    ranges: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def client(self) -> Any:
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        return boto3.client("s3", REGION, endpoint_url=self.url, **keys)

    def names(self) -> list[str]:
        return [one["Key"] for one in self.client().list_objects_v2(Bucket=BUCKET).get("Contents", [])]

    def answer(self, environ: dict[str, Any], start_response: Any, application: Any) -> Any:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if self.fault and (method, True) == (self.fault[0], self.fault[1] in path):
            _method, _path, status, code, message, headers = self.fault
            start_response(f"{status} x", [("Content-Type", "application/xml"), *headers.items()])
            return [] if method == "HEAD" else [ERROR.format(code, message).encode()]
        if method != "GET" or not path.endswith(".age"):
            return application(environ, start_response)
        self.ranges.append(environ.get("HTTP_RANGE", ""))
        whole = b"".join(application(environ, start_response))
        return self.part(whole)

    def part(self, whole: bytes) -> Iterator[bytes]:
        limit = self.breaks or self.hangs or len(whole)
        yield whole[:limit]
        if self.hangs:
            self.ended.wait(60)


@pytest.fixture(scope="module")
def running() -> Iterator[S3]:
    s3 = S3()
    application = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, lambda environ, start: s3.answer(environ, start, application), threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    s3.url = f"http://127.0.0.1:{server.port}"
    try:
        yield s3
    finally:
        s3.ended.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def s3(running: S3) -> Iterator[S3]:
    running.fault, running.breaks, running.hangs, running.ranges = None, 0, 0, []
    client = running.client()
    client.create_bucket(Bucket=BUCKET)
    for name, key in ((NEW, OWN), (OLD, OTHER)):
        client.put_object(Bucket=BUCKET, Key=f"demo/etcd/{name}.age", Body=pyrage.encrypt(CONTENT, [key.to_public()]))
    for key in ("demo/etcd/notes.txt", "demo-eu/etcd/20261130T182000Z_etcd-3.6.14_rev-9_backup.db.age", "demo/state/x"):
        client.put_object(Bucket=BUCKET, Key=key, Body=b"x")
    for name in (OLD_BACKUP, BACKUP):
        client.put_object(Bucket=BUCKET, Key=f"demo/state/{name}", Body=CONTENT)
    yield running
    running.fault = None
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        client.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": one["Key"]} for one in page["Contents"]]})
    client.delete_bucket(Bucket=BUCKET)


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    path = tmp_path / "backup-identity.txt"
    path.write_text(f"# created: 2026-11-29T18:00:00Z\n# public key: {OWN.to_public()}\n{OWN}\n")
    return path


def call(s3: S3, state: str, check_mode: bool = False, **given: Any) -> dict[str, Any]:
    options = {name: option.get("default") for name, option in run.ARGUMENT_SPEC.items()}
    options |= {"region": REGION, "endpoint_url": s3.url, "access_key": "testing", "secret_key": "testing"}
    options |= {"bucket": BUCKET, "cluster": "demo", "max_attempts": 4, "read_timeout": 5}
    given = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
    return carry_out(run.MODULE, Call({**options, "state": state, **given}, check_mode))


def fetched(s3: S3, directory: Path, check_mode: bool = False, **given: Any) -> dict[str, Any]:
    wanted = {} if {"backup", "snapshot"} & set(given) else {"snapshot": NEW}
    return call(s3, "fetched", check_mode, path=directory, **wanted, **given)


def test_what_there_is_of_this_cluster_is_listed_the_newest_first(s3: S3) -> None:
    found = call(s3, "listed")
    assert [one["name"] for one in found["snapshots"]] == [NEW, OLD]
    assert [one["name"] for one in found["backups"]] == [BACKUP, OLD_BACKUP]
    assert found["backups"][0]["bytes"] == len(CONTENT) < found["snapshots"][0]["bytes"]
    assert not found["changed"] and call(s3, "listed", cluster="none")["snapshots"] == []


def test_more_than_a_page_is_listed(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"20260101T{hour:02}0000Z_etcd-3.6.14_rev-{hour}_backup.db" for hour in range(7)]
    for name in names:
        s3.client().put_object(Bucket=BUCKET, Key=f"demo/etcd/{name}.age", Body=b"")
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "2")
    assert len(s3.names()) == 2
    assert [one["name"] for one in call(s3, "listed")["snapshots"]] == [NEW, OLD, *reversed(names)]


def test_a_snapshot_comes_decrypted_with_one_of_the_keys(s3: S3, identity: Path, tmp_path: Path) -> None:
    there = tmp_path / "state" / "snapshots"
    keys = [str(tmp_path / "none.txt"), str(identity)]
    planned = fetched(s3, there, True, identity_files=keys)
    assert planned["changed"] and not there.exists()
    done = fetched(s3, there, identity_files=keys)
    assert done["changed"] and done["object"] == f"s3://{BUCKET}/demo/etcd/{NEW}.age", done
    [path] = there.iterdir()
    assert str(path) == done["path"] and path.read_bytes() == CONTENT and path.name == NEW
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(there.stat().st_mode) == 0o700
    assert not fetched(s3, there, identity_files=keys)["changed"]


def test_a_backup_comes_as_it_is(s3: S3, tmp_path: Path) -> None:
    done = fetched(s3, tmp_path / "backups", backup="latest")
    path = Path(done["path"])
    assert (path.name, path.read_bytes()) == (BACKUP, CONTENT) and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not fetched(s3, path.parent, backup=BACKUP)["changed"]
    assert fetched(s3, path.parent, backup=OLD_BACKUP)["changed"]
    path.write_text("another one")
    told = fetched(s3, path.parent, backup=BACKUP)
    assert told["failed"] and f"path: {path} is there, and another one than s3://" in told["msg"]


def test_what_breaks_off_goes_on_where_it_was(s3: S3, tmp_path: Path) -> None:
    s3.breaks = 120_000
    done = fetched(s3, tmp_path, backup=BACKUP)
    assert done.get("changed") and Path(done["path"]).read_bytes() == CONTENT, done
    assert s3.ranges == ["", "bytes=120000-", "bytes=240000-"]
    s3.breaks = 1000
    told = fetched(s3, tmp_path / "other", backup=BACKUP)
    assert told["failed"] and f"cannot fetch s3://{BUCKET}/demo/state/{BACKUP}" in told["msg"], told
    assert len(s3.ranges) == 3 + 4 and list((tmp_path / "other").iterdir()) == []


def damaged(s3: S3, name: str) -> None:
    client, key = s3.client(), f"demo/etcd/{name}.age"
    content = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    client.put_object(Bucket=BUCKET, Key=key, Body=content[:200_000] + b"damage" + content[200_006:])


def test_what_cannot_be_opened_leaves_nothing(s3: S3, identity: Path, tmp_path: Path) -> None:
    there, other = tmp_path / "there", tmp_path / "other.txt"
    other.write_text(f"{OTHER}\n")
    none = tmp_path / "none.txt"
    empty = tmp_path / "empty.txt"
    empty.write_text("AGE-SECRET-KEY-1WRONG")
    object_ = f"s3://{BUCKET}/demo/etcd/{NEW}.age"
    for given, said in (
        (
            {"identity_files": [str(none), str(other)]},
            f"no key opens {object_}: it was encrypted for other keys than those in {none} (not there), {other}; name",
        ),
        ({"identity_files": [str(none)]}, f"identity_files: {none}: there is no key; open a backup of the state"),
        ({}, "identity_files: none given: there is no key"),
        ({"identity_files": [str(empty)]}, f"identity_files: {empty} has no line AGE-SECRET-KEY-1..., as age-keygen"),
        ({"snapshot": "../x.db", "identity_files": [str(identity)]}, "snapshot: ../x.db is not in s3://"),
        (
            {"backup": "demo-x.tar.age"},
            f"backup: demo-x.tar.age is not in s3://{BUCKET}/demo/state/; it has {BACKUP}",
        ),
        ({"backup": "latest", "cluster": "no"}, f"backup: latest is not in s3://{BUCKET}/no/state/; it has none"),
    ):
        told = fetched(s3, there, **given)
        assert told["failed"] and said in told["msg"], told
        assert str(OTHER) not in told["msg"] and not list(there.glob("*"))
    damaged(s3, NEW)
    told = fetched(s3, there, identity_files=[str(identity)])
    assert told["failed"] and f"{object_} cannot be opened: it is damaged" in told["msg"], told
    assert list(there.iterdir()) == []


def test_what_has_no_room_is_refused_before(
    s3: S3, identity: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_SPARE", 1 << 60)
    told = fetched(s3, tmp_path / "there", identity_files=[str(identity)])
    assert told["failed"] and f"and {NEW} takes " in told["msg"] and "make room" in told["msg"]
    assert s3.ranges == [] and not (tmp_path / "there").exists()


def test_a_backup_is_put_there_once(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large one in parts, as the last of these."""
    name = "demo-20261130T000000Z.tar.age"
    path = tmp_path / name
    path.write_bytes(CONTENT)
    assert call(s3, "stored", True, path=path)["changed"] and f"demo/state/{name}" not in s3.names()
    done = call(s3, "stored", path=path)
    assert done["changed"] and done["object"] == f"s3://{BUCKET}/demo/state/{name}", done
    found = s3.client().get_object(Bucket=BUCKET, Key=f"demo/state/{name}")
    assert found["Body"].read() == CONTENT and found["Metadata"] == {"sha256": hashlib.sha256(CONTENT).hexdigest()}
    assert not call(s3, "stored", path=path)["changed"]
    path.write_bytes(CONTENT[::-1])
    told = call(s3, "stored", path=path)
    assert told["failed"] and f"s3://{BUCKET}/demo/state/{name} is there already, and another one than" in told["msg"]
    assert s3.client().get_object(Bucket=BUCKET, Key=f"demo/state/{name}")["Body"].read() == CONTENT
    monkeypatch.setattr(run, "_PART", 5 * 2**20)
    large = tmp_path / "demo-20261130T000001Z.tar.age"
    large.write_bytes(CONTENT * 40)
    assert call(s3, "stored", path=large)["changed"] and not call(s3, "stored", path=large)["changed"]
    found = s3.client().head_object(Bucket=BUCKET, Key=f"demo/state/{large.name}")
    assert found["ContentLength"] == 40 * len(CONTENT) and found["ETag"].endswith('-3"')
    wrong = tmp_path / "other-20261130T000001Z.tar.age"
    for path, said in ((wrong, "is not named as backups of demo are"), (tmp_path / OLD_BACKUP, "No such file")):
        told = call(s3, "stored", path=path)
        assert told["failed"] and said in told["msg"], told


MOVED = {"x-amz-bucket-region": "eu-west-1"}
FAULTS: list[tuple[str, str, tuple[str, str, int, str, str, dict[str, str]] | None, dict[str, Any], str]] = [
    (
        "no bucket",
        "listed",
        None,
        {"bucket": "none"},
        "there is no bucket none; put back its name",
    ),
    ("a name that is none", "listed", None, {"bucket": "No_Bucket"}, "bucket: 'No_Bucket' cannot be a bucket's name"),
    (
        "no permission to list",
        "listed",
        ("GET", f"/{BUCKET}", 403, "AccessDenied", "Access Denied", {}),
        {},
        f"cannot list s3://{BUCKET}/demo/etcd/: the permission s3:ListBucket is missing (Access Denied)",
    ),
    (
        "no permission to fetch",
        "fetched",
        ("GET", BACKUP, 403, "AccessDenied", "Access Denied", {}),
        {"backup": BACKUP},
        f"cannot fetch s3://{BUCKET}/demo/state/{BACKUP}: the permission s3:GetObject is missing",
    ),
    (
        "no permission for the key of a bucket",
        "fetched",
        ("GET", BACKUP, 403, "AccessDenied", "User: x is not authorized to perform: kms:Decrypt on resource: y", {}),
        {"backup": BACKUP},
        "the permission kms:Decrypt is missing",
    ),
    (
        "gone meanwhile",
        "fetched",
        ("GET", BACKUP, 404, "NoSuchKey", "The specified key does not exist.", {}),
        {"backup": BACKUP},
        "it is not there any more; list what is there, and take another one",
    ),
    (
        "another region",
        "listed",
        ("GET", f"/{BUCKET}", 301, "PermanentRedirect", "The bucket you are attempting to access", MOVED),
        {},
        "the bucket is in eu-west-1, and us-east-1 was asked; set region (k8sgu_region)",
    ),
    (
        "credentials that have expired",
        "listed",
        ("GET", f"/{BUCKET}", 400, "ExpiredToken", "The provided token has expired.", {}),
        {},
        "the credentials have expired (ExpiredToken); renew them",
    ),
    (
        "a key that AWS does not know",
        "listed",
        ("GET", f"/{BUCKET}", 403, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist", {}),
        {},
        "AWS does not accept the credentials (InvalidAccessKeyId",
    ),
    (
        "no permission to store",
        "stored",
        ("PUT", "/demo/state/", 403, "AccessDenied", "Access Denied", {}),
        {},
        "the permission s3:PutObject is missing",
    ),
]


@pytest.mark.parametrize(("case", "state", "fault", "given", "said"), FAULTS, ids=[row[0] for row in FAULTS])
def test_what_s3_refuses_is_told_with_a_way_out(
    s3: S3, tmp_path: Path, case: str, state: str, fault: Any, given: dict[str, Any], said: str
) -> None:
    s3.fault = fault
    there = tmp_path / "there"
    own = tmp_path / "demo-20261130T000000Z.tar.age"
    own.write_bytes(b"x")
    told = call(s3, state, **{"path": own if state == "stored" else there, **given})
    assert told["failed"] and said in told["msg"], told
    assert not list(there.glob("*")) and "testing" not in told["msg"]
    assert (f"{own} is whole, and stays on this machine alone" in told["msg"]) == (state == "stored")


def test_no_credentials(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    told = call(s3, "listed", access_key=None, secret_key=None)
    assert told["failed"] and "no credentials" in told["msg"] and "set AWS_PROFILE or profile" in told["msg"]


KILLED = """
import sys
sys.path.insert(0, {collections!r})
from ansible_collections.k8sgu.cluster.plugins.module_utils._bucket import run
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call
options = {{name: option.get("default") for name, option in run.ARGUMENT_SPEC.items()}}
run.run(Call({{**options, **{given!r}}}))
"""


@pytest.mark.parametrize("kind", ["snapshot", "backup"])
def test_what_was_killed_leaves_nothing_to_the_next(s3: S3, kind: str, identity: Path, tmp_path: Path) -> None:
    s3.hangs = 150_000
    there = tmp_path / "there"
    given = {"region": REGION, "endpoint_url": s3.url, "access_key": "testing", "secret_key": "testing"}
    given |= {"state": "fetched", "bucket": BUCKET, "cluster": "demo", "path": str(there)}
    wanted = {"snapshot": NEW, "identity_files": [str(identity)]} if kind == "snapshot" else {"backup": BACKUP}
    text = KILLED.format(collections=str(COLLECTIONS), given={**given, **wanted})
    process = subprocess.Popen([sys.executable, "-c", text])
    deadline = time.monotonic() + 60
    while not s3.ranges or not there.exists() or not list(there.iterdir()):
        assert time.monotonic() < deadline and process.poll() is None, "it does not fetch within 60 s"
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    [left] = there.iterdir()
    assert left.name.endswith(".k8sgu-part")
    s3.hangs = 0
    s3.ended.set()
    assert fetched(s3, there, **wanted)["changed"]
    assert [path.name for path in there.iterdir()] == [NEW if kind == "snapshot" else BACKUP]
    s3.ended.clear()


def test_ansible_takes_it(s3: S3, identity: Path, tmp_path: Path) -> None:
    """And says what is missing."""
    common = {"bucket": BUCKET, "cluster": "demo", "region": REGION, "endpoint_url": s3.url}
    common |= {"access_key": "testing", "secret_key": "a word that nobody sees"}
    place = {"path": str(tmp_path / "there"), "identity_files": [str(identity)]}
    results, said = ansible_program.run_tasks(
        tmp_path,
        [
            {"k8sgu.cluster.backup_bucket": {"state": "listed", **common}, "register": "listed"},
            {
                "k8sgu.cluster.backup_bucket": {"state": "fetched", "snapshot": NEW, **place, **common},
                "register": "fetched",
            },
            {
                "k8sgu.cluster.backup_bucket": {"state": "fetched", **common},
                "register": "bad",
                "ignore_errors": True,
            },
        ],
        "-vvv",
        variables={},
    )
    assert [one["name"] for one in results["listed"]["snapshots"]] == [NEW, OLD]
    assert (tmp_path / "there" / NEW).read_bytes() == CONTENT and results["fetched"]["changed"]
    assert "state is fetched but" in results["bad"]["msg"] and "path" in results["bad"]["msg"]
    assert "a word that nobody sees" not in said


@pytest.fixture
def kept(s3: S3, tmp_path: Path) -> Path:
    """A state directory of which a backup is in the bucket, as the newest."""
    state = tmp_path / "before" / "demo"
    for name in ("pki/kubernetes-ca.pem", "pki/kubernetes-ca-key.pem", "secrets/backup-identity.txt"):
        (state / name).parent.mkdir(parents=True, exist_ok=True)
        (state / name).write_text(name)
    options = {name: option.get("default") for name, option in cluster_backup.ARGUMENT_SPECS["cluster_backup"].items()}
    given = {"state": "made", "cluster": "demo", "state_dir": str(state), "path": str(tmp_path / "made")}
    made = carry_out(cluster_backup.MODULE, Call({**options, **given, "passphrase": WORD}))
    assert call(s3, "stored", path=made["path"])["changed"]
    return Path(made["path"])


def open_backup(s3: S3, folder: Path, *arguments: str, **variables: Any) -> tuple[int, str]:
    """In a folder with nothing but the inventory; only the bucket's name, credentials and the passphrase are there."""
    folder.mkdir(exist_ok=True)
    inventory = folder / "hosts.yml"
    inventory.write_text(json.dumps({"all": {"children": {"control_plane": {}, "etcd": {}, "worker": {}}}}))
    caller = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "EC2LAB_", "K8SGU_"))}
    given = {
        "AWS_ENDPOINT_URL": s3.url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": REGION,
        "K8SGU_BACKUP_PASSPHRASE": WORD,
    }
    return ansible_program.run_playbook(
        "open_backup", inventory, *arguments, variables=variables, environment=given, caller=caller
    )


def test_in_an_empty_folder_the_newest_backup_is_opened(s3: S3, kept: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    latest = {"k8sgu_backup_bucket": BUCKET, "k8sgu_backup_file": "latest", "k8sgu_cluster_name": "demo"}
    status, said = open_backup(s3, folder, "--check", **latest)
    assert status == 0 and not (folder / ".state").exists(), said[-3000:]
    status, said = open_backup(s3, folder, **latest)
    assert status == 0 and WORD not in said, said[-3000:]
    assert (folder / ".state/demo/secrets/backup-identity.txt").read_text() == "secrets/backup-identity.txt"
    assert (folder / ".state/backups" / kept.name).read_bytes() == kept.read_bytes()
    status, said = open_backup(s3, folder, **latest)
    assert status == 0 and "changed=0" in said.partition("PLAY RECAP")[2], said[-3000:]


def test_without_a_bucket_it_has_to_be_here(s3: S3, tmp_path: Path) -> None:
    status, said = open_backup(s3, tmp_path / "new", k8sgu_backup_file="latest")
    told = "k8sgu_backup_file: latest is not on this machine, and no bucket is described from which it could be fetched"
    assert status != 0 and told in " ".join(said.split()) and not (tmp_path / "new" / ".state").exists(), said[-3000:]
