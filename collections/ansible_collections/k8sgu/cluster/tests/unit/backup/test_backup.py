# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup has all that a cluster is made from, opens only as a whole, with its key, and where nothing is."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pyrage
import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._backup import run
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, carry_out

COLLECTIONS = Path(__file__).resolve().parents[6]
SNAPSHOT = "20261129T180210Z_etcd-3.6.14_rev-51234_backup.db"
WORD = "correct horse battery staple"
FIXED = {"k8sgu_pod_cidr": "10.200.0.0/16"}
OWN = pyrage.x25519.Identity.generate()
OTHER = pyrage.x25519.Identity.generate()
SECRET = "a key that nobody may see"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    found = tmp_path / "state" / "demo"
    for name, text, mode in (
        ("pki/kubernetes-ca.pem", "certificate", 0o644),
        ("pki/kubernetes-ca-key.pem", SECRET, 0o600),
        ("secrets/encryption-keys.json", SECRET, 0o600),
        ("ssh/id_ed25519", SECRET, 0o600),
        ("admin.kubeconfig", "kubeconfig", 0o600),
        ("birth.json", json.dumps({"fixed": FIXED, "members": ["demo-control-plane-0"]}), 0o600),
        ("mirror/files/etcd", "a program", 0o755),
        ("cordoned.json", "{}", 0o600),
        (".lock", "", 0o600),
    ):
        path = found / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
    (found / "link").symlink_to("/etc/passwd")
    return found


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    path = tmp_path / SNAPSHOT
    path.write_bytes(os.urandom(300_000))
    return path


@pytest.fixture
def identity(tmp_path: Path) -> Path:
    path = tmp_path / "key.txt"
    path.write_text(f"# created: 2026-11-29T18:00:00Z\n# public key: {OWN.to_public()}\n{OWN}\n")
    return path


def call(check_mode: bool = False, **given: Any) -> dict[str, Any]:
    options = {name: option.get("default") for name, option in run.ARGUMENT_SPECS["cluster_backup"].items()}
    options.update({name: str(value) if isinstance(value, Path) else value for name, value in given.items()})
    return carry_out(run.MODULE, Call({"cluster": "demo", **options, **given}, check_mode))


def made(state: Path, directory: Path, **given: Any) -> dict[str, Any]:
    if "passphrase" not in given:
        given.setdefault("recipients", [str(OTHER.to_public()), str(OWN.to_public())])
    return call(state="made", state_dir=str(state), path=str(directory), **{"cluster": "demo", **given})


def opened(path: str, state: Path, check_mode: bool = False, **given: Any) -> dict[str, Any]:
    return call(check_mode, **{"state": "opened", "state_dir": str(state), "path": path, "cluster": "demo", **given})


def tree(directory: Path) -> dict[str, tuple[str, bytes]]:
    return {
        path.relative_to(directory).as_posix(): (f"{stat.S_IMODE(path.stat().st_mode):o}", path.read_bytes())
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("way", ["a passphrase", "a key"])
def test_what_is_opened_is_what_was_there(
    way: str, state: Path, snapshot: Path, identity: Path, tmp_path: Path
) -> None:
    seal = {"passphrase": WORD} if way == "a passphrase" else {}
    key = {"passphrase": WORD} if way == "a passphrase" else {"identity_file": str(identity)}
    backups, there = tmp_path / "backups", tmp_path / "new" / "demo"
    planned = call(
        True, state="made", state_dir=str(state), path=str(backups), cluster="demo", snapshots=[str(snapshot)],
        **(seal or {"recipients": [str(OWN.to_public())]}),
    )  # fmt: skip
    assert planned["changed"] and planned["files"] == 5 and not backups.exists()
    done = made(state, backups, snapshots=[str(snapshot)], **seal)
    assert not done.get("failed") and done["files"] == 5 and done["snapshots"] == [SNAPSHOT], done
    [path] = backups.iterdir()
    assert str(path) == done["path"] and path.stat().st_size == done["bytes"] > 300_000
    assert f"{stat.S_IMODE(path.stat().st_mode):o}" == "600" and SECRET.encode() not in path.read_bytes()

    planned = opened(done["path"], there, check_mode=True, **key)
    assert planned["changed"] and planned["fixed"] == FIXED and not there.exists()
    told = opened(done["path"], there, **key, fixed={**FIXED, "k8sgu_cluster_domain": "cluster.local"})
    assert (told["changed"], told["fixed"], told["snapshots"]) == (True, FIXED, [SNAPSHOT]), told
    found, before = tree(there), tree(state)
    assert found.pop(f"snapshots/{SNAPSHOT}") == ("600", snapshot.read_bytes())
    assert found.pop("opened.json")[0] == "600"
    left_out = {"birth.json", "cordoned.json", "mirror/files/etcd", ".lock", "link"}
    assert found == {name: entry for name, entry in before.items() if name not in left_out}
    assert f"{stat.S_IMODE(there.stat().st_mode):o}" == "700" and [path.name for path in there.parent.iterdir()] == [
        "demo"
    ]
    # It was opened already, whatever a run has made of it since.
    (there / "place.json").write_text("{}")
    again = opened(done["path"], there, **key)
    assert again == {**told, "changed": False}


def test_no_key_but_its_own_opens_it_and_nothing_is_left(
    state: Path, snapshot: Path, identity: Path, tmp_path: Path
) -> None:
    for_owner = made(state, tmp_path / "one", snapshots=[str(snapshot)])["path"]
    for_word = made(state, tmp_path / "two", passphrase=WORD)["path"]
    wrong = tmp_path / "wrong.txt"
    wrong.write_text(str(pyrage.x25519.Identity.generate()))
    damaged, cut, strange = tmp_path / "damaged", tmp_path / "cut", tmp_path / "strange"
    content = bytearray(Path(for_owner).read_bytes())
    cut.write_bytes(content[: len(content) // 2])
    content[-100_000] ^= 1
    damaged.write_bytes(content)
    strange.write_bytes(b"PK\x03\x04")
    there = tmp_path / "new" / "demo"
    for path, given, said in (
        (for_word, {"passphrase": "another"}, "cannot be opened: the passphrase or the key is another one"),
        (for_word, {"identity_file": str(identity)}, "takes a passphrase (K8SGU_BACKUP_PASSPHRASE)"),
        (for_owner, {"passphrase": WORD}, "takes the key of one of those it was made for"),
        (for_owner, {"identity_file": str(wrong)}, "cannot be opened: the passphrase or the key is another one"),
        (for_owner, {"identity_file": str(strange)}, "has no line AGE-SECRET-KEY-1"),
        (for_owner, {"identity_file": str(tmp_path / "none")}, f"{tmp_path}/none: No such file or directory"),
        (str(damaged), {"identity_file": str(identity)}, "or the file is damaged"),
        (str(cut), {"identity_file": str(identity)}, "or the file is damaged"),
        (str(strange), {"identity_file": str(identity)}, "is no file of age, and so no backup"),
        (str(tmp_path / "none"), {"passphrase": WORD}, f"{tmp_path}/none: No such file or directory"),
        (
            for_word,
            {"passphrase": WORD, "fixed": {"k8sgu_pod_cidr": "10.1.0.0/16", "k8sgu_vpc_cidr": ""}},
            "k8sgu_pod_cidr: 10.1.0.0/16, and the cluster of this backup was made with 10.200.0.0/16; put that back",
        ),
        (for_word, {"passphrase": WORD, "cluster": "prod"}, "is a backup of the cluster demo, and this is prod"),
    ):
        told = opened(path, there, **given)
        assert told.get("failed") and said in told["msg"], (said, told)
        assert SECRET not in told["msg"] and WORD not in told["msg"]
        assert not there.exists() and not any((tmp_path / "new").glob(".*"))


def test_where_something_is_nothing_is_opened(state: Path, identity: Path, tmp_path: Path) -> None:
    path = made(state, tmp_path / "one")["path"]
    told = opened(path, state, identity_file=str(identity))
    assert told["failed"] and f"state_dir: {state} is not empty, and the keys" in told["msg"]
    there = tmp_path / "file"
    there.write_text("")
    assert opened(path, there, identity_file=str(identity))["failed"]
    there = tmp_path / "empty"
    there.mkdir()
    assert opened(path, there, identity_file=str(identity))["changed"] and (there / "pki").is_dir()


def test_it_is_never_made_unencrypted_or_of_nothing(state: Path, tmp_path: Path) -> None:
    for given, said in (
        ({"passphrase": ""}, "is made only encrypted: give either a passphrase"),
        ({"passphrase": WORD, "recipients": [str(OWN.to_public())]}, "is made only encrypted: give either"),
        ({"recipients": ["age1abc"]}, "recipients: age1abc is none of age's"),
        ({"snapshots": [str(tmp_path / "none.db")]}, "none.db is not there"),
    ):
        told = made(state, tmp_path / "backups", **given)
        assert told.get("failed") and said in told["msg"], (said, told)
    told = made(tmp_path, tmp_path / "backups")
    assert told["failed"] and "has no pki/kubernetes-ca.pem, so no cluster was made from it" in told["msg"]
    assert not (tmp_path / "backups").exists()


def test_what_is_too_large_is_refused_before(
    state: Path, snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_MOST_WITH_PASSPHRASE", 100_000)
    told = made(state, tmp_path / "backups", passphrase=WORD, snapshots=[str(snapshot)])
    assert told["failed"] and "all of it would be in memory; give a key instead" in told["msg"]
    monkeypatch.setattr(run, "_SPARE", 1 << 60)
    told = made(state, tmp_path / "backups")
    assert told["failed"] and "MiB with room to spare; make room" in told["msg"]
    assert not (tmp_path / "backups").exists()


def test_the_newest_stay(state: Path, tmp_path: Path) -> None:
    backups = tmp_path / "backups"
    backups.mkdir()
    old = [f"demo-2026010{day}T000000Z.tar.age" for day in (1, 2, 3)]
    others = ["demo-eu-20260101T000000Z.tar.age", "notes.txt"]
    for name in (*old, *others):
        (backups / name).write_text("")
    told = made(state, backups, keep=2)
    assert told["removed"] == old[:2]
    assert sorted(path.name for path in backups.iterdir()) == sorted([old[2], *others, Path(told["path"]).name])


def archive(*entries: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as made_by:
        for name, text in entries:
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            entry.type = kind if name != "backup.json" else tarfile.REGTYPE
            entry.linkname = "/etc/passwd"
            made_by.addfile(entry, io.BytesIO(text))
    return stream.getvalue()


MANIFEST = json.dumps({"cluster": "demo", "made": "t", "fixed": {}, "snapshots": [], "format": 1}).encode()
STRANGE: list[tuple[str, bytes, str]] = [
    ("no archive", b"x" * 2000, "it is no archive of tar"),
    ("nothing", b"", "it "),
    ("another archive", archive(("state/a", b"")), "does not begin with backup.json"),
    ("a newer format", archive(("backup.json", MANIFEST.replace(b'"format": 1', b'"format": 2'))), "has the format 2"),
    ("a manifest that is none", archive(("backup.json", b"[]")), "backup.json cannot be read (TypeError)"),
    (
        "out of the directory",
        archive(("backup.json", MANIFEST), ("state/../../x", b"")),
        "state/../../x does not belong",
    ),
    ("from the root", archive(("backup.json", MANIFEST), ("/etc/x", b"")), "/etc/x does not belong"),
    ("a link", archive(("backup.json", MANIFEST), ("state/x", b""), kind=tarfile.SYMTYPE), "state/x does not belong"),
    ("elsewhere", archive(("backup.json", MANIFEST), ("other/x", b"")), "other/x does not belong"),
]


@pytest.mark.parametrize(("case", "content", "said"), STRANGE, ids=[row[0] for row in STRANGE])
def test_what_somebody_else_has_packed(case: str, content: bytes, said: str, identity: Path, tmp_path: Path) -> None:
    path = tmp_path / "strange.tar.age"
    path.write_bytes(pyrage.encrypt(content, [OWN.to_public()]))
    told = opened(str(path), tmp_path / "new" / "demo", identity_file=str(identity))
    assert told["failed"] and said in told["msg"], told
    assert not list((tmp_path / "new").iterdir()) and not Path("/etc/x").exists()


KILLED = """
import sys, time
sys.path.insert(0, {collections!r})
from ansible_collections.k8sgu.cluster.plugins.module_utils._backup import content, run
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call
whole = content.{function}
def slow(*given):
    whole(*given)
    print("there", flush=True)
    time.sleep(60)
content.{function} = slow
options = {{name: option.get("default") for name, option in run.ARGUMENT_SPECS["cluster_backup"].items()}}
run.run(Call({{**options, **{given!r}}}))
"""


@pytest.mark.parametrize("function", ["pack", "unpack"])
def test_what_was_killed_leaves_nothing_to_the_next(function: str, state: Path, identity: Path, tmp_path: Path) -> None:
    backups, there = tmp_path / "backups", tmp_path / "new" / "demo"
    path = made(state, backups)["path"]
    given = {
        "pack": {"state": "made", "state_dir": str(state), "path": str(backups), "recipients": [str(OWN.to_public())]},
        "unpack": {"state": "opened", "state_dir": str(there), "path": path, "identity_file": str(identity)},
    }[function]
    text = KILLED.format(collections=str(COLLECTIONS), function=function, given={"cluster": "demo", **given})
    process = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "there\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not there.exists()
    if function == "pack":
        assert len(list(backups.iterdir())) == 2
        # Another second, another name.
        time.sleep(1)
        assert not made(state, backups).get("failed")
        assert len(list(backups.iterdir())) == 2 and not list(backups.glob(".*"))
    else:
        assert opened(path, there, identity_file=str(identity))["changed"]
        assert [path.name for path in there.parent.iterdir()] == ["demo"]
