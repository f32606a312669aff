"""The command line: labs side by side, clear errors, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_support import BIN, RunningLab, ec2lab, make_cloud

from ec2lab import residue

NAME = f"cli-{os.getpid()}"
DIRECTORIES = (Path(f"/var/lib/ec2lab/{NAME}"), Path(f"/run/ec2lab/{NAME}"))


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[RunningLab]:
    running = RunningLab(NAME, tmp_path)
    try:
        yield running
    finally:
        running.down()


def settled(lab: str) -> residue.Snapshot:
    return residue.snapshot(DIRECTORIES, lab=lab)


def test_down_leaves_nothing(lab: RunningLab) -> None:
    before = settled(NAME)
    lab.up()
    cloud = make_cloud(lab)
    instances = cloud.run(2)
    cloud.wait(instances, "running")
    during = residue.difference(before, settled(NAME))
    assert any(line.startswith("new process") for line in during)
    assert any(line.startswith("new namespace") for line in during)
    lab.down()
    assert residue.difference(before, settled(NAME)) == []


def test_down_leaves_nothing_after_a_crash(lab: RunningLab) -> None:
    before = settled(NAME)
    lab.up()
    cloud = make_cloud(lab)
    cloud.run(2)
    os.kill(lab.daemon(), signal.SIGKILL)  # amid booting
    time.sleep(0.2)
    lab.down()
    assert residue.difference(before, settled(NAME)) == []


def test_down_works_on_a_damaged_lab_and_on_none(lab: RunningLab) -> None:
    before = settled(NAME)
    lab.up()
    assert any(line.startswith("new route: unreachable") for line in residue.difference(before, settled(NAME)))
    DIRECTORIES[0].joinpath("lab.json").write_text("{")
    refused = ec2lab("env", NAME, check=False)
    assert refused.returncode == 1
    assert "damaged" in refused.stderr
    lab.down()
    assert residue.difference(before, settled(NAME)) == []
    assert "there was no lab" in ec2lab("down", NAME).stderr


def test_a_damaged_state_and_a_taken_port_are_one_line_errors(lab: RunningLab) -> None:
    lab.up()
    port = int(lab.environment["AWS_ENDPOINT_URL"].rsplit(":", 1)[1])
    crash(lab)
    with listening(port):
        taken = ec2lab("up", NAME, check=False)
    assert taken.returncode == 1
    assert f"port {port} of 127.0.0.1" in taken.stderr
    assert "Traceback" not in taken.stderr
    DIRECTORIES[0].joinpath("api.state").write_bytes(b"no state")
    damaged = ec2lab("up", NAME, check=False)
    assert damaged.returncode == 1
    assert "api.state cannot be read back" in damaged.stderr
    assert "ec2lab down" in damaged.stderr
    assert "Traceback" not in damaged.stderr


def listening(port: int) -> socket.socket:
    """A listening socket on the port, once the kernel has closed the killed daemon's."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_server(("127.0.0.1", port))
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def crash(lab: RunningLab) -> None:
    pid = lab.daemon()
    os.kill(pid, signal.SIGKILL)
    while Path(f"/proc/{pid}/exe").exists():
        time.sleep(0.05)


def test_a_labs_own_mirror_is_no_other_labs(lab: RunningLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.up()
    mirror = Path(lab.environment["EC2LAB_MIRROR_DIR"])
    mirror.joinpath("kept").touch()
    other = RunningLab(f"{NAME}-b", tmp_path / "other")
    try:
        monkeypatch.setenv("EC2LAB_MIRROR_DIR", str(mirror))  # as in a shell with `ec2lab env` of the first
        other.up()
        assert other.environment["EC2LAB_MIRROR_DIR"] != str(mirror)
    finally:
        other.down()
    assert mirror.joinpath("kept").exists()


def test_two_labs_side_by_side(lab: RunningLab, tmp_path: Path) -> None:
    other = RunningLab(f"{NAME}-b", tmp_path / "other")
    lab.up()
    try:
        other.up()
        here, there = lab.environment, other.environment
        assert here["AWS_ENDPOINT_URL"] != there["AWS_ENDPOINT_URL"]
        assert (here["EC2LAB_NAME"], there["EC2LAB_NAME"]) == (lab.name, other.name)
        callers = [each.client("sts").get_caller_identity() for each in (lab, other)]
        assert callers[0]["Account"] != callers[1]["Account"]
        assert [who["Arn"].rpartition(":")[2] for who in callers] == [
            f"user/{each.name}/lab-admin" for each in (lab, other)
        ]
        one, two = make_cloud(lab), make_cloud(other)
        first, second = one.run(PrivateIpAddress="10.240.0.10"), two.run(PrivateIpAddress="10.240.0.10")
        one.wait(first, "running")
        two.wait(second, "running")
        assert one.see(first[0])["PublicIpAddress"] != two.see(second[0])["PublicIpAddress"]
        assert one.say(first[0], "hostname") == two.say(second[0], "hostname") == "ip-10-240-0-10"
        assert one.metadata(first[0], "meta-data/instance-id") == first[0]
        assert two.metadata(second[0], "meta-data/instance-id") == second[0]
        other.down()
        assert one.say(first[0], "hostname") == "ip-10-240-0-10"
    finally:
        other.down()


def test_a_name_that_is_up(lab: RunningLab) -> None:
    lab.up()
    refused = ec2lab("up", NAME, check=False)
    assert refused.returncode == 1
    assert "is up already" in refused.stderr


def refused(*arguments: str, **environment: str) -> str:
    """The error; asserts that nothing was made."""
    done = ec2lab(*arguments, check=False, **environment)
    assert done.returncode != 0
    assert not DIRECTORIES[0].exists()
    assert "Traceback" not in done.stderr
    return done.stderr


def test_an_address_range_in_use() -> None:
    own = subprocess.run(["ip", "-4", "-o", "addr", "show", "lo"], capture_output=True, text=True, check=True)
    assert "127.0.0.1" in own.stdout
    assert "in use" in refused("up", NAME, "--public-range", "127.0.0.0/22")
    assert "not a network" in refused("up", NAME, "--public-range", "198.18.0.0/33")
    assert "too small" in refused("up", NAME, "--public-range", "198.18.0.0/30")


def test_a_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "in use" in refused("up", NAME, "--api-port", str(taken.getsockname()[1]))
    assert "1 to 65535" in refused("up", NAME, "--api-port", "70000")


def test_names_that_cannot_be() -> None:
    for name in ("Upper", "a_b", "-a", "x" * 33):
        assert "cannot be a lab's name" in refused("status", "--", name)


def test_a_mirror_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "not a directory" in refused("up", NAME, "--mirror-dir", str(tmp_path / "file"))


def test_an_up_that_fails_halfway_leaves_nothing() -> None:
    before = settled(NAME)
    assert "/proc/nothing" in refused("up", NAME, "--mirror-dir", "/proc/nothing/mirror")
    assert residue.difference(before, settled(NAME)) == []


def test_no_such_lab_instance_or_fault() -> None:
    assert "there is no lab" in refused("env", NAME)
    assert "which this shell is pointed at (EC2LAB_NAME" in refused("env", NAME, EC2LAB_NAME=NAME)
    assert "there is no lab" in refused("status", NAME)
    assert "no machine" in refused("fault", "power-off", "i-0123456789abcdef0")
    assert "invalid choice" in refused("fault", "flood", "i-0123456789abcdef0")


def test_a_missing_program_is_named_before_anything_changes(tmp_path: Path) -> None:
    """A PATH with everything but systemd-nspawn."""
    for directory in ("/usr/sbin", "/usr/bin", "/sbin", "/bin"):
        for program in Path(directory).iterdir():
            if program.name != "systemd-nspawn" and not (tmp_path / program.name).exists():
                (tmp_path / program.name).symlink_to(program)
    said = refused("up", NAME, PATH=str(tmp_path))
    assert "systemd-nspawn" in said
    assert "systemd-container" in said
    shown = ec2lab("doctor", check=False, PATH=str(tmp_path))
    assert shown.returncode == 1
    assert "MISSING  systemd-nspawn" in shown.stdout


def test_without_root_it_says_what_to_run() -> None:
    nobody = shutil.which("setpriv")
    assert nobody, "util-linux has setpriv"
    done = subprocess.run(
        [nobody, "--reuid=65534", "--regid=65534", "--clear-groups", str(BIN / "ec2lab"), "status", NAME],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "sudo" in done.stderr
    assert f"ec2lab status {NAME}" in done.stderr


def test_a_full_disk_is_an_error_of_the_api(lab: RunningLab) -> None:
    """With the lab's state on a small file system: a call that cannot be saved has no effect."""
    from botocore.exceptions import ClientError

    DIRECTORIES[0].mkdir(mode=0o700, parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(DIRECTORIES[0])], check=True)
    try:
        lab.up()
        ec2 = lab.client("ec2")
        before = len(ec2.describe_vpcs()["Vpcs"])
        filler = DIRECTORIES[0] / "filler"
        descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT)
        with pytest.raises(OSError, match="No space"):
            while True:
                os.write(descriptor, bytes(4096))
        os.close(descriptor)
        with pytest.raises(ClientError, match="No space left"):
            ec2.create_vpc(CidrBlock="10.1.0.0/16")
        assert len(ec2.describe_vpcs()["Vpcs"]) == before
        filler.unlink()
        ec2.create_vpc(CidrBlock="10.1.0.0/16")
    finally:
        os.kill(lab.daemon(), signal.SIGKILL)
        time.sleep(0.5)
        subprocess.run(["umount", str(DIRECTORIES[0])], check=True)
