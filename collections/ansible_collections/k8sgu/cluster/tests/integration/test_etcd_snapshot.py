# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""k8sgu.cluster.etcd_snapshot on a real etcd: what it leaves can be restored, and a part of it is never left."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import ansible_program
import api_server
import etcd_cluster

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.snapshots import parse
from ansible_collections.k8sgu.cluster.plugins.plugin_utils._compiled import zipapp

KEYS = 300
VALUE = "v" * 2000
WAIT_S = 30


def version() -> Path:
    found = etcd_cluster.programs("3.6")
    if found is None:
        pytest.skip("no mirror with etcd 3.6; fill one with `make up`")
    return found


def numbered(count: int) -> dict[str, str]:
    return {f"key/{number}": VALUE for number in range(count)}


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[etcd_cluster.Etcd]:
    with etcd_cluster.running(tmp_path_factory.mktemp("etcd"), version(), size=1) as etcd:
        etcd.fill(numbered(KEYS))
        yield etcd


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[etcd_cluster.Etcd]:
    """Another cluster, at a higher revision."""
    with etcd_cluster.running(tmp_path_factory.mktemp("other"), version(), size=1) as etcd:
        etcd.fill(numbered(KEYS + 50))
        yield etcd


def options(etcd: etcd_cluster.Etcd, directory: Path, **given: Any) -> dict[str, Any]:
    return {"directory": str(directory), "etcdutl": str(etcd.members["cp-0"].programs / "etcdutl"), **given}


def take(etcd: etcd_cluster.Etcd, directory: Path, **given: Any) -> dict[str, Any]:
    return etcd.run("etcd_snapshot", "cp-0", **options(etcd, directory, **given))


def test_it_is_taken_once_for_a_label_and_can_be_restored(etcd: etcd_cluster.Etcd, tmp_path: Path) -> None:
    """The four steps: check mode, run, check mode, run."""
    directory = tmp_path / "deep" / "snapshots"
    given = {
        "etcdctl": str(etcd.members["cp-0"].programs / "etcdctl"),
        "environment": str(etcd.environment("cp-0")),
        **options(etcd, directory, series="upgrade", label="1.36.4-to-1.37.2"),
    }
    module = "k8sgu.cluster.etcd_snapshot"
    results, said = ansible_program.run_tasks(
        tmp_path,
        [
            {module: given, "register": "planned", "check_mode": True},
            {"ansible.builtin.stat": {"path": str(directory)}, "register": "before"},
            {module: given, "register": "taken"},
            {module: given, "register": "planned_again", "check_mode": True},
            {module: given, "register": "again"},
        ],
        "--diff",
        variables={},
    )
    planned, taken = results["planned"], results["taken"]
    assert [results[name]["changed"] for name in ("planned", "taken", "planned_again", "again")] == [
        *(True, True),
        *(False, False),
    ]
    assert not results["before"]["stat"]["exists"]
    assert planned["revision"] == taken["revision"] == results["again"]["revision"] == KEYS + 1
    assert planned["plan"][0].startswith(f"take a snapshot of {planned['bytes']} bytes at revision {KEYS + 1}: ")
    assert (taken["keys"], results["again"]["path"]) == (KEYS, taken["path"])
    path = Path(taken["path"])
    assert f"+{path.name}" in said
    assert [one.name for one in directory.iterdir()] == [path.name]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_size == taken["bytes"]
    programs = etcd.members["cp-0"].programs
    status = subprocess.run(
        [str(programs / "etcdutl"), "snapshot", "status", str(path), "-w", "json"], capture_output=True, check=True
    )
    assert f"{json.loads(status.stdout)['hash']:08x}" == taken["hash"]
    # What it is for: etcd checks it as well, and has every key.
    with etcd_cluster.restored(tmp_path, programs, path) as back:
        assert len(back.etcdctl("cp-0", "get", "key/", "--prefix", "--keys-only").stdout.split()) == KEYS


def test_the_newest_of_a_series_stay(etcd: etcd_cluster.Etcd, tmp_path: Path) -> None:
    first = take(etcd, tmp_path, series="backup")
    upgrade = take(etcd, tmp_path, series="upgrade", label="a-to-b")
    # Names have seconds.
    names = []
    for number in range(2):
        etcd.etcdctl("cp-0", "put", "more", str(number))
        names.append(take(etcd, tmp_path, series="backup", keep=2)["path"])
    left = {str(path) for path in tmp_path.iterdir()}
    assert left == {upgrade["path"], *names}
    assert first["path"] not in left


def wrapper(etcd: etcd_cluster.Etcd, directory: Path, instead: str) -> str:
    """An etcdctl that does something else to save a snapshot; $real is the program, $file where it goes."""
    path = directory / "etcdctl"
    path.write_text(
        f"#!/bin/sh\nreal={etcd.members['cp-0'].programs / 'etcdctl'}\n"
        f'if [ "$1 $2" = "snapshot save" ]; then file=$3; {instead}\nfi\nexec $real "$@"\n'
    )
    path.chmod(0o755)
    return str(path)


FAULTS = [
    ("cut off", "$real $1 $2 $file; truncate --size=-100 $file; exit 0", "so it was cut off"),
    ("cut off at a page", "$real $1 $2 $file; truncate --size=8192 $file; exit 0", "so it was cut off"),
    (
        "changed",
        "$real $1 $2 $file; printf X | dd of=$file bs=1 seek=20000 conv=notrunc status=none; exit 0",
        "is not what its SHA-256 was made of",
    ),
    (
        "damaged before it was sent",
        "$real $1 $2 $file; exec python3 $damage $file",
        "is no whole snapshot: etcdutl snapshot status",
    ),
    ("of another cluster", "set -a; . $other; exec $real $1 $2 $file", "is of another cluster: its members are "),
    ("an old one", "cp $old $file; exit 0", "before it was taken; it was thrown away"),
    (
        "that fails",
        "echo half > $file.part; exit 7",
        "no snapshot was taken: etcdctl snapshot save: etcdctl ended with 7",
    ),
    (
        "that does not end",
        "echo half > $file.part; exec sleep 600",
        "etcdctl snapshot save was not done within 2 s (timeout), with 5 of ",
    ),
]
# A page that is not what it says, and a SHA-256 that fits.
DAMAGE = """
import hashlib, sys
data = bytearray(open(sys.argv[1], "rb").read()[:-32])
data[4096 * 4:] = b"x" * (len(data) - 4096 * 4)
open(sys.argv[1], "wb").write(data + hashlib.sha256(data).digest())
"""


@pytest.mark.parametrize(("case", "instead", "expected"), FAULTS, ids=[row[0] for row in FAULTS])
def test_what_is_not_whole_or_not_ours_is_thrown_away(
    etcd: etcd_cluster.Etcd, other: etcd_cluster.Etcd, tmp_path: Path, case: str, instead: str, expected: str
) -> None:
    directory = tmp_path / "snapshots"
    old = take(etcd, directory)
    etcd.etcdctl("cp-0", "put", "later", case)
    (tmp_path / "damage.py").write_text(DAMAGE)
    paths = {"other": other.environment("cp-0"), "old": old["path"], "damage": tmp_path / "damage.py"}
    settings = "".join(f"{name}={path}; " for name, path in paths.items())
    program = wrapper(etcd, tmp_path, settings + instead)
    result = take(etcd, directory, etcdctl=program, timeout=2, keep=1)
    assert result["failed"] and expected in result["msg"], result
    # The one before stays, though only one is to be kept.
    assert [str(path) for path in directory.iterdir()] == [old["path"]]


def test_a_damaged_snapshot_does_not_serve(etcd: etcd_cluster.Etcd, tmp_path: Path) -> None:
    path = Path(take(etcd, tmp_path, label="a-to-b")["path"])
    content = path.read_bytes()
    path.write_bytes(content.replace(VALUE.encode(), VALUE.encode()[:-1] + b"w", 1))
    result = take(etcd, tmp_path, label="a-to-b")
    assert result["changed"]
    assert take(etcd, tmp_path, label="a-to-b")["changed"] is False


def test_a_snapshot_of_another_cluster_does_not_serve(
    etcd: etcd_cluster.Etcd, other: etcd_cluster.Etcd, tmp_path: Path
) -> None:
    take(other, tmp_path, label="a-to-b")
    assert take(etcd, tmp_path, label="a-to-b")["changed"] is True


def test_killed_while_it_is_taken_and_run_again(etcd: etcd_cluster.Etcd, tmp_path: Path) -> None:
    directory = tmp_path / "snapshots"
    program = wrapper(etcd, tmp_path, f"echo half > $file.part; echo $$ > {tmp_path}/pid; exec sleep 600")
    command, environment = etcd.module("etcd_snapshot", "cp-0", **options(etcd, directory, etcdctl=program))
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + WAIT_S
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        assert time.monotonic() < deadline, f"etcdctl was not called within {WAIT_S} s"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    child = int((tmp_path / "pid").read_text())
    while Path(f"/proc/{child}").exists() and "sleep" in Path(f"/proc/{child}/cmdline").read_text():
        assert time.monotonic() < deadline, "etcdctl goes on after the module was killed"
        time.sleep(0.05)
    [left] = directory.iterdir()
    assert left.name.startswith(".taking.")
    result = take(etcd, directory)
    assert [str(path) for path in directory.iterdir()] == [result["path"]]


def test_an_etcd_that_does_not_serve_is_named(etcd: etcd_cluster.Etcd, tmp_path: Path) -> None:
    settings = etcd.environment("cp-0").read_text()
    silent = tmp_path / "env"
    silent.write_text(settings.replace(f":{etcd.members['cp-0'].client}", f":{etcd.members['cp-0'].peer + 1}"))
    result = take(etcd, tmp_path / "snapshots", environment=str(silent))
    assert result["failed"] and result["msg"].startswith("no snapshot was taken: etcd on this node does not serve")
    assert not (tmp_path / "snapshots").exists()


def test_a_disk_without_room_is_refused_with_both_numbers(etcd: etcd_cluster.Etcd, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a small file system needs root")
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)], check=True)
    try:
        for check in (True, False):
            result = etcd.run("etcd_snapshot", "cp-0", check, **options(etcd, place / "snapshots"))
            assert result["failed"] and "MiB with room to spare, and " in result["msg"]
            assert "has 64 MiB free; make room" in result["msg"]
        assert not any(place.rglob("*.db"))
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the role places it, which a node's own Python runs."""
    path = tmp_path_factory.mktemp("program") / "etcd-snapshot.pyz"
    path.write_bytes(zipapp("_etcd.backup"))
    path.chmod(0o755)
    return path


def backup(
    program: Path, etcd: etcd_cluster.Etcd, directory: Path, *arguments: str, name: str = "cp-0"
) -> subprocess.CompletedProcess[str]:
    programs = etcd.members[name].programs
    given = [
        *("--keep=2", "--patience=0", f"--directory={directory}", f"--environment={etcd.environment(name)}"),
        f"--metrics={directory.parent / 'metrics'}",
        *(f"--etcdctl={programs / 'etcdctl'}", f"--etcdutl={programs / 'etcdutl'}"),
    ]
    # No variable of the caller's, as from systemd.
    environment = {"PATH": "/usr/bin:/bin"}
    return subprocess.run(
        [str(program), *given, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_the_program_takes_backups_and_keeps_the_newest(etcd: etcd_cluster.Etcd, program: Path, tmp_path: Path) -> None:
    directory = tmp_path / "snapshots"
    upgrade = Path(take(etcd, directory, series="upgrade", label="a-to-b")["path"])
    # Of a clock that ran ahead, at a revision that is not reached.
    ahead = directory / "20991231T000000Z_etcd-3.6.14_rev-999999999_backup.db"
    ahead.write_bytes(upgrade.read_bytes())
    taken = []
    for number in range(3):
        etcd.etcdctl("cp-0", "put", "more", str(number))
        done = backup(program, etcd, directory, "--keep=1")
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        [line] = done.stdout.splitlines()
        taken.append(line.partition(": ")[0])
        one = parse(taken[-1])
        assert one is not None and (one.series, one.label) == ("backup", "")
        keys = len(etcd.etcdctl("cp-0", "get", "", "--prefix", "--keys-only").stdout.split())
        assert f": revision {one.revision}, {keys} keys, {(directory / one.name).stat().st_size} bytes, " in line
    # Beside it what is the newest by its name, and what is the newest.
    assert {path.name for path in directory.iterdir()} == {upgrade.name, ahead.name, taken[-1]}
    assert line.endswith(" s; 1 older removed")
    # What was taken last, whatever is dated later.
    told = (tmp_path / "metrics" / "etcd-snapshot.prom").read_text().splitlines()[-1]
    assert one is not None and told == f"k8sgu_etcd_snapshot_timestamp_seconds {int(one.taken.timestamp())}"
    path = directory / taken[-1]
    assert (stat.S_IMODE(path.stat().st_mode), stat.S_IMODE(directory.stat().st_mode)) == (0o600, 0o700)
    with etcd_cluster.restored(tmp_path, etcd.members["cp-0"].programs, path) as back:
        assert back.etcdctl("cp-0", "get", "more", "--print-value-only").stdout.strip() == "2"


def test_the_program_fails_without_a_quorum_and_keeps_what_there_is(program: Path, tmp_path: Path) -> None:
    place = tmp_path / "etcd"
    place.mkdir()
    with etcd_cluster.running(place, version(), size=2) as etcd:
        assert backup(program, etcd, tmp_path / "snapshots").returncode == 0
        before = {path.name for path in (tmp_path / "snapshots").iterdir()}
        etcd.stop("cp-1")
        done = backup(program, etcd, tmp_path / "snapshots")
        assert (done.returncode, done.stdout) == (1, "")
        [line] = done.stderr.splitlines()
        assert line.startswith("no snapshot was taken: etcd on this node does not serve: ")
        assert {path.name for path in (tmp_path / "snapshots").iterdir()} == before and len(before) == 1


def test_a_learner_is_named(program: Path, tmp_path: Path) -> None:
    place = tmp_path / "etcd"
    place.mkdir()
    with etcd_cluster.running(place, version(), size=1) as etcd:
        peer = api_server.free_port()
        etcd.etcdctl("cp-0", "member", "add", "cp-1", "--learner", f"--peer-urls=https://127.0.0.1:{peer}")
        etcd.members["cp-1"] = etcd_cluster.Member("cp-1", api_server.free_port(), peer, version())
        etcd.start("cp-1", state="existing")
        deadline = time.monotonic() + WAIT_S
        while etcd.etcdctl("cp-1", "endpoint", "status", check=False).returncode:
            assert time.monotonic() < deadline, f"the learner does not answer within {WAIT_S} s"
            time.sleep(0.1)
        done = backup(program, etcd, tmp_path / "snapshots", name="cp-1")
        assert (done.returncode, done.stdout) == (1, "")
        assert "this node's member is a learner; take it on another member" in done.stderr
        assert not (tmp_path / "snapshots").exists()
