"""The decisions of `up`, `down` and `doctor`, as far as they can be tested without a lab."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ec2lab import cgroups, cli, daemon, doctor, host, image, lab, names, residue
from ec2lab.errors import LabError
from ec2lab.lab import Lab

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Directories of the test's own for the labs' state and locks."""
    for module in (lab, cli, residue):
        monkeypatch.setattr(module, "STATE_ROOT", tmp_path / "state")
    for module in (lab, residue):
        monkeypatch.setattr(module, "RUN_ROOT", tmp_path / "run")
    monkeypatch.setattr(names, "NETNS_DIR", tmp_path / "netns")
    monkeypatch.setattr(host, "MARKS", (tmp_path / "mark",))
    monkeypatch.setattr(cgroups, "MARK", tmp_path / "controllers")
    for name in ("EC2LAB_MACHINE", "EC2LAB_MIRROR_DIR", "EC2LAB_NAME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


# One at a time


def test_the_lock_is_removed_with_the_last_lab_and_still_excludes(roots: Path) -> None:
    """The second waits for a lock file that the first removes; the third must wait for the second all the same."""
    inside: list[str] = []
    may_go = threading.Event()

    def enter(name: str) -> None:
        with lab.exclusive():
            inside.append(name)
            assert may_go.wait(20)
            inside.remove(name)

    with lab.exclusive():
        second = threading.Thread(target=enter, args=("second",))
        second.start()
        time.sleep(0.3)
        assert inside == []
    deadline = time.monotonic() + 20
    while inside != ["second"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    third = threading.Thread(target=enter, args=("third",))
    third.start()
    time.sleep(0.3)
    assert inside == ["second"]
    may_go.set()
    second.join()
    third.join()
    assert not (roots / "run").exists()


def test_the_lock_stays_while_there_is_a_lab(roots: Path) -> None:
    with lab.exclusive():
        (roots / "run" / "a").mkdir()
    assert (roots / "run" / ".lock").exists()


def test_other_labs_come_and_go_while_an_image_is_made(roots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Made(Exception):
        """The image is made; what comes after it is another test's."""

    def ensure_image(_say: object) -> None:
        taken = threading.Event()

        def another() -> None:
            with lab.exclusive():
                taken.set()

        threading.Thread(target=another, daemon=True).start()
        assert taken.wait(20), "another lab waits for the image"
        raise Made

    monkeypatch.setattr(doctor, "missing", lambda _directory: [])
    monkeypatch.setattr(image, "ensure_image", ensure_image)
    with pytest.raises(Made):
        cli.up(cli.parser().parse_args(["up", "a", "--machine", "container"]))


def test_looking_for_a_daemon_does_not_prevent_one_from_starting(roots: Path) -> None:
    one = Lab("a")
    one.run_dir.mkdir(parents=True)
    one.pid_file.touch()
    with one.pid_file.open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.2, fcntl.flock, (looking, fcntl.LOCK_UN)).start()
        held = daemon.hold_pid_file(one.pid_file)
    try:
        assert one.daemon_pid() == os.getpid()
        with pytest.raises(daemon.AlreadyRunning):
            daemon.hold_pid_file(one.pid_file)
    finally:
        os.close(held)


# The mirror


def test_another_labs_own_mirror_is_not_taken_from_the_environment(
    roots: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = roots / "state" / "b" / "mirror"
    assert cli.choose_mirror(Lab("b"), None) == own
    monkeypatch.setenv("EC2LAB_MIRROR_DIR", str(roots / "state" / "a" / "mirror"))
    assert cli.choose_mirror(Lab("b"), None) == own
    monkeypatch.setenv("EC2LAB_MIRROR_DIR", str(roots / "elsewhere"))
    assert cli.choose_mirror(Lab("b"), None) == roots / "elsewhere"
    assert cli.choose_mirror(Lab("b"), roots / "named") == roots / "named"
    assert cli.choose_mirror(Lab("b"), own) == own
    with pytest.raises(LabError, match="would be removed with a lab"):
        cli.choose_mirror(Lab("b"), roots / "state" / "a" / "mirror")


def test_a_lab_that_exists_keeps_its_mirror(roots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = lab.Description("a", "198.18.0.0/22", 5123, str(roots / "mirror"))
    arguments = cli.parser().parse_args(["up", "a"])
    cli.refuse_changes(known, arguments)
    monkeypatch.setenv("EC2LAB_MIRROR_DIR", str(roots / "mirror"))
    cli.refuse_changes(known, arguments)
    monkeypatch.setenv("EC2LAB_MIRROR_DIR", str(roots / "other"))
    with pytest.raises(LabError, match=r"EC2LAB_MIRROR_DIR .*other: lab a has .*mirror; `ec2lab down a` first"):
        cli.refuse_changes(known, arguments)
    monkeypatch.setenv("EC2LAB_NAME", "b")  # then `ec2lab env b` has told the other
    cli.refuse_changes(known, arguments)


def test_a_lab_that_exists_keeps_its_kind_of_machine(roots: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = lab.Description("a", "198.18.0.0/22", 5123, str(roots / "mirror"), machine="vm")
    monkeypatch.setenv("EC2LAB_MACHINE", "container")
    with pytest.raises(LabError, match=r"EC2LAB_MACHINE container: lab a has vm; `ec2lab down a` first"):
        cli.refuse_changes(known, cli.parser().parse_args(["up", "a"]))
    cli.refuse_changes(known, cli.parser().parse_args(["up", "a", "--machine", "vm"]))
    monkeypatch.delenv("EC2LAB_MACHINE")
    with pytest.raises(LabError, match=r"--machine container: lab a has vm"):
        cli.refuse_changes(known, cli.parser().parse_args(["up", "a", "--machine", "container"]))


# The lab's own internet


def test_a_lab_that_exists_keeps_its_internet(roots: Path) -> None:
    known = lab.Description("a", "198.18.0.0/22", 5123, str(roots / "mirror"), internet_dir=str(roots / "net"))
    cli.refuse_changes(known, cli.parser().parse_args(["up", "a"]))
    cli.refuse_changes(known, cli.parser().parse_args(["up", "a", "--internet-dir", str(roots / "net")]))
    with pytest.raises(LabError, match=r"--internet-dir .*other: lab a has .*net; `ec2lab down a` first"):
        cli.refuse_changes(known, cli.parser().parse_args(["up", "a", "--internet-dir", str(roots / "other")]))


# Names


@pytest.mark.parametrize(
    ("command", "given", "shells", "meant"),
    [
        ("down", None, "", "default"),
        ("down", None, "default", "default"),
        ("down", None, "a", None),
        ("up", None, "a", None),
        ("status", None, "a", None),
        ("env", None, "a", "default"),
        ("down", "b", "a", "b"),
        ("down", "default", "a", "default"),
    ],
)
def test_a_shell_pointed_at_another_lab_must_name_one(
    command: str, given: str | None, shells: str, meant: str | None
) -> None:
    if meant:
        assert cli.lab_name(command, given, shells) == meant
        return
    with pytest.raises(LabError, match=f"pointed at lab a .*`ec2lab {command} default` or `ec2lab {command} a`"):
        cli.lab_name(command, given, shells)


def test_every_lab_is_an_account_of_its_own() -> None:
    numbers = {names.account(name) for name in ("default", "a", "b", *(f"lab-{number}" for number in range(200)))}
    assert len(numbers) == 203
    assert all(len(number) == 12 and number.isdigit() for number in numbers)
    assert names.account("a") == names.account("a")


def test_a_lab_of_before_keeps_its_account(roots: Path) -> None:
    one = Lab("a")
    one.write(lab.Description("a", "198.18.0.0/22", 5123, "/mirror"))
    known = json.loads(one.description_file.read_text())
    del known["account_id"]
    one.description_file.write_text(json.dumps(known))
    description = one.description()
    assert description is not None
    assert description.account_id == lab.FIRST_ACCOUNT


def test_a_lab_of_another_version_is_read_as_far_as_it_is_known(roots: Path) -> None:
    """Labs of two versions run side by side: each asks the others for their ports and ranges."""
    one = Lab("a")
    one.write(lab.Description("a", "198.18.0.0/22", 5123, "/mirror"))
    known = one.description()
    said = json.loads(one.description_file.read_text()) | {"something_new": 1}
    one.description_file.write_text(json.dumps(said))
    assert one.description() == known
    for damaged in ("[1]", "1", "{}", '{"name": "a"}', "no JSON"):
        one.description_file.write_text(damaged)
        with pytest.raises(LabError, match="is damaged"):
            one.description()


# Faults


def test_help_lists_the_faults_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(cli.FAULT_KINDS) == [*daemon.FAULTS, *daemon.BUCKET_FAULTS]
    assert {kind for kind in cli.FAULT_KINDS if kind.startswith(cli.OF_BUCKETS)} == set(daemon.BUCKET_FAULTS)
    with pytest.raises(SystemExit):
        cli.parser().parse_args(["fault", "--help"])
    shown = capsys.readouterr().out
    assert [kind for kind in cli.FAULT_KINDS if f"\n  {kind} " not in shown] == []
    assert "clock-jump       its clock goes an hour ahead; refused for a container" in shown


@pytest.mark.parametrize(
    ("held", "name", "outcome"),
    [
        ({"a": {"one"}, "b": {"two"}}, None, "a"),
        ({"a": {"one"}, "b": {"one"}}, "b", "b"),
        ({"a": {"one"}, "b": {"one"}}, None, "the labs a, b have a bucket one: say which with --lab"),
        ({"a": set(), "b": {"two"}}, None, "there is no bucket one in any lab that is up"),
        ({"a": set(), "b": {"one"}}, "a", "there is no bucket one in lab a"),
    ],
)
def test_the_lab_that_has_a_bucket(
    monkeypatch: pytest.MonkeyPatch, held: dict[str, set[str]], name: str | None, outcome: str
) -> None:
    labs = {lab: Lab(lab) for lab in held}
    monkeypatch.setattr(Lab, "daemon_pid", lambda _lab: 1)
    monkeypatch.setattr(cli, "all_labs", lambda: list(labs.values()))
    monkeypatch.setattr(cli, "require", lambda name: (labs[name], None))
    monkeypatch.setattr(cli, "buckets_of", lambda lab: held[lab.name])
    if outcome in labs:
        assert cli.lab_of_bucket("one", name).name == outcome
    else:
        with pytest.raises(LabError, match=outcome):
            cli.lab_of_bucket("one", name)


# What is left


@pytest.mark.parametrize(("running", "asked", "seen"), [("a-b", "a-b", True), ("a-b", "a", False), ("a", "a-b", False)])
def test_a_daemon_that_is_left_is_seen(running: str, asked: str, seen: bool, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("import time; print(flush=True); time.sleep(60)")
    left = subprocess.Popen(
        [sys.executable, str(program), "-m", "ec2lab.daemon", running], stdout=subprocess.PIPE, cwd="/"
    )
    try:
        assert left.stdout is not None
        left.stdout.readline()
        processes = residue.snapshot(lab=asked)["process"]
        assert any(line.startswith(f"{left.pid} ") for line in processes) is seen
    finally:
        left.kill()
        left.wait()


def test_what_labs_share_is_left_over_when_no_other_is_up(roots: Path) -> None:
    for name in ("state", "run", "netns"):
        (roots / name).mkdir()
    for name in ("mark", "controllers"):
        (roots / name).touch()
    everything = [str(roots / name) for name in ("state", "run", "controllers", "mark")]
    assert residue._shared(None) == residue._shared("a") == everything
    (roots / "state" / "a").mkdir()
    assert residue._shared("a") == everything
    assert residue._shared("b") == residue._shared(None) == []
    (roots / "state" / "a").rmdir()
    (roots / "netns" / "ec2lab.a.vpc-1").touch()
    assert residue._shared("a") == everything
    assert residue._shared("b") == []
    (roots / "netns" / "ec2lab.a.vpc-1").unlink()
    with lab.exclusive():
        assert residue._shared("a") == []


# Networks


def test_a_labs_range_outside_the_pool_is_closed_to_nodes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [
        {"dst": "203.0.113.0/25", "metric": names.range_metric("other")},
        {"dst": "192.0.2.0/24", "metric": 1024},
        {"dst": "198.51.100.0/24"},
    ]
    monkeypatch.setattr(host, "run", lambda argv, **_: json.dumps(listed) if "unreachable" in argv else "[]")
    monkeypatch.setattr(host, "_networks", (0.0, []))
    found = host.networks()
    monkeypatch.setattr(host, "_networks", (0.0, []))
    assert "203.0.113.0/25" in found
    assert not {"192.0.2.0/24", "198.51.100.0/24"} & set(found)


# A full disk


def full(monkeypatch: pytest.MonkeyPatch, *directories: Path) -> None:
    def usage(path: Any) -> Usage:
        return Usage(1, 1, 0 if any(Path(path).is_relative_to(each) for each in directories) else 1 << 40)

    monkeypatch.setattr(shutil, "disk_usage", usage)


def test_a_full_disk_is_a_missing_requirement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, cache = tmp_path / "state", tmp_path / "cache"
    for directory in (state, cache):
        directory.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(doctor, "_trials", lambda _directory: [])
    monkeypatch.setattr("os.geteuid", lambda: 0)

    def missing() -> dict[str, str]:
        return {check.name: check.remedy for check in doctor.missing(state) if "space" in check.name}

    assert missing() == {}
    full(monkeypatch, state)
    (remedy,) = missing().values()
    # The state's place is fixed: no variable moves it.
    assert remedy == "free 2 GiB there, or mount a larger file system there"
    full(monkeypatch, cache)
    (remedy,) = missing().values()
    assert "XDG_CACHE_HOME" in remedy
    made = image.Image("key", "debian", "bookworm", "x86_64", cache)
    monkeypatch.setattr(image, "cached_image", lambda: made)
    assert missing() == {}


def test_without_room_no_image_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    full(monkeypatch, tmp_path)
    with pytest.raises(LabError, match="0 MiB free; making the nodes' image takes 2 GiB"):
        image.ensure_image(lambda _step: None)
    assert not list(tmp_path.rglob("image.json"))


def test_the_usual_disk_is_made_with_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the first launch does not wait for it; also if the image exists but the disk does not."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = image.Image("key", "debian", "bookworm", "x86_64", tmp_path)
    monkeypatch.setattr(image, "_load", lambda _path: made)
    (tmp_path / "skeleton").mkdir()
    image.ensure_image(lambda _step: None)
    assert (tmp_path / "disk-8.ext4").stat().st_size == 8 << 30


# The daemon


def test_power_comes_back_to_a_node_that_has_its_cable_again() -> None:
    """The link is removed with the power, and only a step of the controller makes it again."""
    done: list[str] = []

    class Remembered:
        def __getattr__(self, name: str) -> Any:
            return lambda *_: done.append(name)

    one: Any = daemon.Daemon.__new__(daemon.Daemon)
    one.controller = one.machines = Remembered()
    one._note = lambda *_: done.append("note")
    one.power_on("i-1")
    assert done == ["step", "start", "note"]
