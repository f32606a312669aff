"""The environment with the newest ansible-core: what names it, and what a run that fails or is killed leaves."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from ec2lab.errors import LabError
from ec2lab.image import Archive

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from tools import newest_ansible

SOURCES = (("sources.list", "deb http://archive.example/debian bookworm main\n"),)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it will be, in a cache of the test's own and on a machine whose archive nobody asks."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(newest_ansible, "host_archive", lambda: Archive("debian", "bookworm", SOURCES))
    return newest_ansible.directory()


def makes(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The places where it was made, which takes no time here."""
    made: list[Path] = []

    def make(place: Path) -> None:
        made.append(place)
        (place / "venv" / "bin").mkdir(parents=True)

    monkeypatch.setattr(newest_ansible, "_make", make)
    return made


def test_it_is_the_newest_of_the_versions_that_are_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("ansible-core==2.9.27; a\nansible-core==2.21.5; b\nansible-core==2.19.14; c\nboto3==9.9\n")
    monkeypatch.setattr(newest_ansible, "CONSTRAINTS", constraints)
    assert newest_ansible.version() == "2.21.5"


def test_a_pin_an_archive_or_a_release_gives_it_another_name(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {place}
    monkeypatch.setitem(newest_ansible.PYTHONS, "debian", ("forky", "python3.14"))
    names.add(newest_ansible.directory())
    monkeypatch.setattr(newest_ansible, "host_archive", lambda: Archive("debian", "bookworm", (("other", ""),)))
    names.add(newest_ansible.directory())
    (tmp_path / "constraints.txt").write_text("ansible-core==2.22.0\n")
    monkeypatch.setattr(newest_ansible, "CONSTRAINTS", tmp_path / "constraints.txt")
    names.add(newest_ansible.directory())
    assert len(names) == 4
    assert {name.parent for name in names} == {tmp_path / "cache" / "k8sgu" / "newest-ansible"}


def test_it_is_made_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = makes(monkeypatch)
    assert newest_ansible.ensure() == newest_ansible.ensure() == place / "venv" / "bin"
    assert made == [place]


def test_what_a_killed_run_left_is_made_anew(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "root").mkdir(parents=True)
    made = makes(monkeypatch)
    newest_ansible.ensure()
    assert made == [place] and not (place / "root").exists()


def test_a_failure_leaves_nothing_and_says_why(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        newest_ansible,
        "_unpack",
        lambda archive, python, root: newest_ansible._run(["sh", "-c", "echo no such suite >&2; exit 4"], 10),
    )
    assert newest_ansible.main() == 1
    assert capsys.readouterr().err == "newest_ansible: sh ended with status 4:\nno such suite\n\n"
    assert [entry.name for entry in place.parent.iterdir()] == [".lock"]


def test_what_is_missing_is_named_with_the_way_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert newest_ansible.main() == 1
    assert capsys.readouterr().err.startswith("newest_ansible: mmdebstrap is missing: make venv installs it")


def test_a_machine_of_another_distribution_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def unknown() -> None:
        raise LabError("that must be Debian's or Ubuntu's, not Fedora's")

    monkeypatch.setattr(newest_ansible, "host_archive", unknown)
    assert newest_ansible.main() == 1
    assert capsys.readouterr().err == "newest_ansible: that must be Debian's or Ubuntu's, not Fedora's\n"


def test_what_hangs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(newest_ansible.NotMade, match=r"^sleep did not finish within 0 min$"):
        newest_ansible._run(["sleep", "60"], 0.2)


def test_what_nobody_used_for_long_is_removed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    makes(monkeypatch)
    old, recent = place.with_name("old"), place.with_name("recent")
    for other, age in ((old, newest_ansible.UNUSED_S + 60), (recent, 60)):
        other.mkdir(parents=True)
        (other / "made").touch()
        os.utime(other / "made", (time.time() - age,) * 2)
    newest_ansible.ensure()
    assert place.exists() and recent.exists() and not old.exists()
