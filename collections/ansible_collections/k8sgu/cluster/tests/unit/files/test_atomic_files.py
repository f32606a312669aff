"""Atomic writes: what is refused, what a reader sees, what a killed run leaves."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils import _files
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import FileError, atomic


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_content_and_mode_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        _files.atomic_write(str(tmp_path / "a"), b"one", 0o644)
        os.umask(0)
        _files.atomic_write(str(tmp_path / "b"), b"two", 0o600)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "b").stat().st_mode) == 0o600
    assert (tmp_path / "a").read_bytes() == b"one"
    assert names(tmp_path) == ["a", "b"]


def test_the_mode_is_set_before_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    real = os.fchmod

    def watch(handle: int, mode: int) -> None:
        status = os.fstat(handle)
        seen.append((stat.S_IMODE(status.st_mode), status.st_size))
        real(handle, mode)

    monkeypatch.setattr(os, "fchmod", watch)
    _files.atomic_write(str(tmp_path / "key"), b"secret", 0o640)
    assert seen == [(0o600, 0)]


def test_directories_are_made_closed(tmp_path: Path) -> None:
    _files.atomic_write(str(tmp_path / "a" / "b" / "key"), b"", 0o600, directory_mode=0o700)
    assert [stat.S_IMODE((tmp_path / part).stat().st_mode) for part in ("a", "a/b")] == [0o700, 0o700]
    assert not _files.ensure_directory(str(tmp_path / "a"), 0o755)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700, "what exists is left as it is"


def test_a_backup_keeps_content_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "key"
    assert _files.atomic_write(str(path), b"old", 0o600, backup=True) is None
    copy = _files.atomic_write(str(path), b"new", 0o600, backup=True)
    assert copy
    assert Path(copy).read_bytes() == b"old"
    assert stat.S_IMODE(Path(copy).stat().st_mode) == 0o600


def directory(path: Path) -> None:
    path.mkdir()


def link_elsewhere(path: Path) -> None:
    (path.parent / "other").mkdir()
    (path.parent / "other" / "file").write_text("x")
    path.symlink_to("other/file")


def dangling_link_elsewhere(path: Path) -> None:
    path.symlink_to("/nonexistent/file")


def pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize("make", [directory, link_elsewhere, dangling_link_elsewhere, pipe])
def test_refused_destinations(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "file"
    make(path)
    before = names(tmp_path)
    with pytest.raises(FileError) as error:
        _files.atomic_write(str(path), b"x")
    assert error.value.path == str(path)
    with pytest.raises(FileError):
        _files.replace_together({str(path): (b"x", 0o644)})
    assert names(tmp_path) == before
    if make is link_elsewhere:
        assert (tmp_path / "other" / "file").read_text() == "x"


def test_a_missing_directory_and_a_file_in_its_place(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="does not exist"):
        _files.atomic_write(str(tmp_path / "no" / "file"), b"x")
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileError, match="not a directory"):
        _files.atomic_write(str(tmp_path / "file" / "below"), b"x", directory_mode=0o700)


def test_a_link_beside_its_target_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "name").symlink_to("real")
    _files.atomic_write(str(tmp_path / "name"), b"new")
    assert (tmp_path / "name").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("old")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match="No space left"):
        _files.atomic_write(str(tmp_path / "file"), b"new")
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_removal(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert _files.remove_file(str(tmp_path / "file"))
    assert not _files.remove_file(str(tmp_path / "file"))
    (tmp_path / "dir").mkdir()
    with pytest.raises(FileError, match="is a directory"):
        _files.remove_file(str(tmp_path / "dir"))


def test_remains_of_killed_runs_are_removed(tmp_path: Path) -> None:
    gone = os.fork()
    if gone == 0:
        os._exit(0)
    os.waitpid(gone, 0)
    (tmp_path / f".file.{gone}.0123abcd.k8sgu").write_text("stray")
    mine = tmp_path / f".file.{os.getpid()}.0123abcd.k8sgu"
    mine.write_text("another thread's")
    _files.atomic_write(str(tmp_path / "file"), b"x")
    assert names(tmp_path) == [mine.name, "file"]


def test_a_journal_that_names_files_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".commit.k8sgu").write_text('[["../x", "y"]]')
    with pytest.raises(FileError, match="elsewhere"):
        _files.finish_replace(str(tmp_path))
    (tmp_path / ".commit.k8sgu").write_text("[")
    with pytest.raises(FileError, match="unreadable"):
        _files.finish_replace(str(tmp_path))


def test_a_held_lock_ends_in_an_error_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "_LOCK_TIMEOUT_S", 0.2)
    with atomic._locked(str(tmp_path)), pytest.raises(FileError, match="another run has been writing"):
        _files.replace_together({str(tmp_path / "a"): (b"", 0o600)})
    assert names(tmp_path) == []
