"""Control groups, the recipe and messages, as far as they can be tested without a node."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ec2lab import cgroups, doctor, host, image, residue
from ec2lab.errors import LabError
from ec2lab.machine import Machines, MachineSpec, common

V1 = """proc /proc proc rw 0 0
tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,relatime,name=systemd 0 0
"""


def test_hierarchies_of_version_1_are_recognised_by_their_options() -> None:
    found = {str(h.mountpoint): h for h in cgroups.hierarchies(V1)}
    assert set(found) == {"/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup/systemd"}
    assert {"cpu", "cpuacct"} <= found["/sys/fs/cgroup/cpu,cpuacct"].controllers


def test_a_hierarchy_of_version_2_says_what_it_offers(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    (found,) = cgroups.hierarchies(f"cgroup2 {tmp_path} cgroup2 rw,nosuid 0 0\n")
    assert (found.version, found.controllers) == (2, frozenset({"cpu", "memory", "pids"}))


def test_the_root_of_version_2_delegates_what_is_needed_only_while_there_are_labs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, mark = tmp_path / "root", tmp_path / "mark"
    root.mkdir()
    present = {"pids"}

    def write(path: Path, text: str) -> int:
        """What the kernel makes of a write to subtree_control."""
        if path.parent == root:
            (present.add if text[0] == "+" else present.discard)(text[1:])
        return len(text)

    def read(path: Path) -> str:
        return " ".join(sorted(present)) if path.parent == root else ""

    with monkeypatch.context() as patched:
        patched.setattr(cgroups, "MARK", mark)
        patched.setattr(
            cgroups, "hierarchies", lambda: [cgroups.Hierarchy(root, 2, frozenset({"memory", "pids", "rdma"}))]
        )
        patched.setattr(cgroups, "_read", read)
        patched.setattr(cgroups, "_write", write)
        for lab in ("x", "y"):
            cgroups.create(lab, "i-1")
        assert present == {"memory", "pids"}  # no rdma, which no node needs
        cgroups.remove("x")
        assert present == {"memory", "pids"}
        cgroups.remove("y")
        assert present == {"pids"}, "what the host handed on itself stays"
    assert not mark.exists()


def test_version_2_hands_controllers_on_and_limits_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "MARK", tmp_path / "mark")
    root = tmp_path
    group = root / "ec2lab.x" / "i-1"
    for directory in (root, root / "ec2lab.x", group):
        directory.mkdir(exist_ok=True)
        (directory / "cgroup.subtree_control").write_text("")
        (directory / "memory.max").write_text("max")
        (directory / "cpu.max").write_text("max 100000")
    hierarchy = cgroups.Hierarchy(root, 2, frozenset({"memory"}))
    monkeypatch.setattr(cgroups, "hierarchies", lambda: [hierarchy])
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    places = cgroups.create("x", "i-1", memory_mib=64, cpus=2)
    # Neither is the group that hands the controllers on: such a one can have no processes.
    assert places == cgroups.Places((group / "launcher",), (group / "node",))
    for directory in (root, root / "ec2lab.x", group):
        assert (directory / "cgroup.subtree_control").read_text() == "+memory"
    assert (group / "memory.max").read_text() == str(64 << 20)
    assert (group / "cpu.max").read_text() == "200000 100000"


def test_version_1_fills_cpusets_from_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for directory, cpus in ((tmp_path, "0-1\n"), (tmp_path / "ec2lab.x", "\n"), (tmp_path / "ec2lab.x" / "i-1", "\n")):
        directory.mkdir(exist_ok=True)
        (directory / "cpuset.cpus").write_text(cpus)
        (directory / "cpuset.mems").write_text("0\n")
    monkeypatch.setattr(cgroups, "hierarchies", lambda: [cgroups.Hierarchy(tmp_path, 1, frozenset({"cpuset"}))])
    cgroups.create("x", "i-1")
    assert (tmp_path / "ec2lab.x" / "i-1" / "cpuset.cpus").read_text() == "0-1\n"


def test_a_lab_s_weight_is_that_of_its_virtual_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = tmp_path / "ec2lab.x"
    lab.mkdir()
    (lab / "cpu.shares").write_text("1024\n")
    monkeypatch.setattr(cgroups, "hierarchies", lambda: [cgroups.Hierarchy(tmp_path, 1, frozenset({"cpu"}))])
    cgroups.create("x", "i-1")
    assert (lab / "cpu.shares").read_text() == "1024\n"  # containers, which mostly wait
    cgroups.create("x", "i-2", own_share=True)
    assert (lab / "cpu.shares").read_text() == "2048"


def test_without_any_hierarchy_a_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "hierarchies", list)
    with pytest.raises(LabError, match="no cgroup hierarchy is mounted"):
        cgroups.create("x", "i-1")


def test_the_images_name_is_its_recipe() -> None:
    archive = image.Archive("debian", "bookworm", (("debian.sources", "Suites: bookworm"),))
    assert image._key(archive) == image._key(archive)
    assert image._key(archive) != image._key(image.Archive("debian", "trixie", archive.sources))


@pytest.mark.parametrize(
    ("content", "own"),
    [
        ("deb http://archive.example/debian bookworm main", True),
        ("deb [arch=amd64] http://mirror.example/debian bookworm main contrib", True),
        (
            "Types: deb\nSuites: bookworm\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg",
            True,
        ),
        ("Types: deb\nSuites: bookworm\nComponents: main\nSigned-By: /usr/share/keyrings/vendor.gpg", False),
        ("deb https://packages.example/apt tool-bookworm tools", False),
    ],
)
def test_only_the_distributions_own_archive_counts(content: str, own: bool) -> None:
    assert image._is_own(content) is own


def spec(**more: object) -> MachineSpec:
    fields = {
        "private_ip": "10.0.0.4",
        "subnet_cidr": "10.0.0.0/24",
        "mac": "02:00:00:00:00:04",
        "hostname": "h",
    } | more
    return MachineSpec("i-1", "vpc-1", **fields)  # type: ignore[arg-type]


def test_an_address_outside_its_subnet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"10\.9\.0\.4 is not in its subnet 10\.0\.0\.0/24"):
        common.write_seed(tmp_path, spec(private_ip="10.9.0.4"))


def test_a_full_disk_is_noticed_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = image.Image("key", "debian", "bookworm", "x86_64", tmp_path)
    monkeypatch.setattr(image, "cached_image", lambda: made)
    monkeypatch.setattr(common, "FREE_BYTES", 1 << 60)
    machines = Machines("x", tmp_path / "state")
    with pytest.raises(LabError, match="free some space, or terminate instances"):
        machines.create(spec())
    assert machines.state("i-1") is None


def test_without_an_image_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "cached_image", lambda: None)
    with pytest.raises(LabError, match="`ec2lab up` makes it"):
        Machines("x", tmp_path).create(spec())


def test_ids_are_not_paths(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="is not an instance id"):
        Machines("x", tmp_path).delete("../other")


def test_differences_are_readable() -> None:
    before = {"mount": frozenset({"a", "b"}), "file": frozenset({"f"})}
    after = {"mount": frozenset({"b", "c"}), "file": frozenset({"f"})}
    assert residue.difference(before, after) == ["new mount: c", "missing mount: a"]
    assert residue.difference(before, before) == []


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    check = doctor._program(doctor.PROGRAMS[0])
    assert (check.ok, check.remedy) == (False, "apt-get install systemd-container")


def test_a_missing_feature_has_the_trials_error() -> None:
    check = doctor._trial("x", "p", "modprobe x", True, ["sh", "-c", "echo no such thing >&2; exit 3"], "")
    assert (check.ok, check.detail) == (False, "no such thing")


def test_missing_root_is_reported_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    missing = doctor.missing(tmp_path)
    assert missing[0].name == "root"
    assert "sudo" in missing[0].remedy


@pytest.mark.parametrize("chosen", ["fedora", "ubuntu-18.04", "Debian"])
def test_a_distribution_that_has_no_image_is_refused(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(image.DISTRIBUTION_VARIABLE, chosen)
    with pytest.raises(LabError, match=f"EC2LAB_DISTRIBUTION={chosen} names no image: use debian, ubuntu, oldest"):
        image.chosen_archive()


def test_ubuntu_is_made_from_its_own_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(image.DISTRIBUTION_VARIABLE, "ubuntu-24.04")
    archive = image.chosen_archive()
    assert (archive.distribution, archive.release) == ("ubuntu", "noble")
    assert "noble-security main universe" in archive.sources[0][1]


@pytest.mark.parametrize("chosen", ["debian-11", "oldest"])
def test_another_release_of_debian_is_made_from_the_hosts_archive(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(image.DISTRIBUTION_VARIABLE, chosen)
    own = "deb http://archive/debian bookworm main\ndeb http://archive/debian-security bookworm-security main\n"
    monkeypatch.setattr(image, "host_archive", lambda: image.Archive("debian", "bookworm", (("sources.list", own),)))
    other = "deb http://archive/debian bullseye main\ndeb http://archive/debian-security bullseye-security main\n"
    assert image.chosen_archive() == image.Archive("debian", "bullseye", (("sources.list", other),))


def test_a_host_with_ubuntu_makes_no_debian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "host_archive", lambda: image.Archive("ubuntu", "noble", ()))
    monkeypatch.setenv(image.DISTRIBUTION_VARIABLE, "debian-11")
    with pytest.raises(LabError, match="EC2LAB_DISTRIBUTION=debian-11 needs a host with Debian"):
        image.chosen_archive()
    monkeypatch.setenv(image.DISTRIBUTION_VARIABLE, "oldest")
    assert image.chosen_archive().release == "focal"


def test_keys_that_are_not_the_pinned_ones_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: io.BytesIO(b"something else"))
    with pytest.raises(LabError, match="its SHA-256 differs"):
        image._ubuntu_keyring(tmp_path)


def test_an_unreachable_archive_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(LabError, match="unset EC2LAB_DISTRIBUTION to use the host's own"):
        image._ubuntu_keyring(tmp_path)


@pytest.mark.parametrize(
    ("before", "held", "meanwhile", "after"),
    [("128", "8192", None, "128"), ("128", "8192", "500", "500"), ("9000", "9000", None, "9000")],
)
def test_a_shared_limit_is_raised_and_restored(
    before: str, held: str, meanwhile: str | None, after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit, mark = tmp_path / "limit", tmp_path / "mark"
    monkeypatch.setattr(host, "_INOTIFY", limit)
    monkeypatch.setattr(host, "_INOTIFY_MARK", mark)
    limit.write_text(before)
    for _lab in range(2):
        host.hold_inotify_limit()
    assert limit.read_text().strip() == held
    assert host.original_inotify_limit() == before
    if meanwhile:
        limit.write_text(meanwhile)
    host.release_inotify_limit()
    assert limit.read_text().strip() == after
    assert not mark.exists()


# The node's own programs


def test_nothing_of_the_lab_is_executable() -> None:
    """A tool that runs every executable of a directory, as Ansible's script inventories do, finds none here."""
    package = Path(image.__file__).parent
    assert [path for path in package.rglob("*") if path.is_file() and path.stat().st_mode & 0o111] == []


@pytest.mark.parametrize("kind", ["node", "vm"])
def test_in_a_node_the_recipe_s_programs_are_executable(kind: str) -> None:
    node = image.RECIPE / kind
    files = [path.relative_to(node) for path in node.rglob("*") if path.is_file()]
    modes = {str(path): image._mode(path) for path in files}
    started = {
        line.partition("=")[2].lstrip("/")
        for unit in node.rglob("*.service")
        for line in unit.read_text().splitlines()
        if line.startswith("ExecStart=")
    }
    assert {place for place, mode in modes.items() if mode == 0o755} == started
    assert modes["etc/sudoers.d/90-cloud-init-users"] == 0o440


def test_the_images_name_does_not_depend_on_the_checkouts_modes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = image.Archive("debian", "bookworm", ())
    before = image._key(archive)
    shutil.copytree(image.RECIPE, tmp_path / "recipe")
    monkeypatch.setattr(image, "RECIPE", tmp_path / "recipe")
    for path in (tmp_path / "recipe").rglob("*"):
        path.chmod(0o700)
    assert image._key(archive) == before


# In mounts of its own, where an unguarded program can write to nothing of the host's.
ALONE = """set -e
mount -t tmpfs none /run
mount -o remount,bind,ro /
rm -rf /run/mount # mount's own notes
cat /proc/self/mountinfo >/run/before
status=0
sh "$1" >/dev/null || status=$?
cmp /proc/self/mountinfo /run/before
rm /run/before
ls -A /run
exit $status
"""


def alone(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["unshare", "--mount", "--propagation", "private", *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts of one's own need root")


@needs_root
@pytest.mark.parametrize("kind", ["node", "vm"])
def test_a_node_s_programs_do_nothing_outside_a_node(kind: str) -> None:
    programs = sorted(path for path in (image.RECIPE / kind / image.PROGRAMS).iterdir() if path.is_file())
    assert len(programs) >= 3
    for program in programs:
        check_refusal(program)


def check_refusal(program: Path) -> None:
    done = alone("sh", "-c", ALONE, "sh", str(program))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "not a node" in done.stderr
    assert done.stdout == ""


@needs_root
@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ("mount --make-rshared /", "new host mount: / is shared"),
        ("mount --bind /dev/null /proc/sys/kernel/panic", "new host mount: /proc/sys/kernel/panic"),
    ],
)
def test_the_snapshot_sees_what_a_node_s_programs_change(change: str, seen: str) -> None:
    program = (
        "import subprocess, sys; from ec2lab import residue; before = residue.snapshot(lab='no-such');"
        "subprocess.run(sys.argv[1].split(), check=True);"
        "print(*residue.difference(before, residue.snapshot(lab='no-such')), sep='\\n')"
    )
    done = alone(sys.executable, "-c", program, change)
    assert any(line.startswith(seen) for line in done.stdout.splitlines()), done.stdout + done.stderr
