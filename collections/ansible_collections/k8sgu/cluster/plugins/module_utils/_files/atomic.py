# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Atomic writes: temporary file in the same directory, owner and mode, content, fsync, rename, fsync of the directory.

Upstream facts: rename(2) replaces its target in one step, https://man7.org/linux/man-pages/man2/rename.2.html;
a new name is durable only once its directory is synced, https://man7.org/linux/man-pages/man2/fsync.2.html.
"""

# Paths are text here, and resolving links is what this file does.
# ruff: noqa: PTH100, PTH101, PTH102, PTH105, PTH108, PTH110, PTH112, PTH114, PTH118, PTH119, PTH120, PTH123, PTH208
from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import signal
import stat
import threading
import time
from typing import Iterable, Iterator, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._files.locks import lock

# A temporary file is ".<name>.<process id>.<8 hex digits>.k8sgu", so that what killed runs left can be found.
_SUFFIX = ".k8sgu"
_JOURNAL = ".commit" + _SUFFIX
_LOCK_TIMEOUT_S = 60
_SYNC_THREADS = 16


class FileError(Exception):
    """The path cannot be used as requested; the text says what to do."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path


def resolve_destination(path: str) -> str:
    """The real path that a write to `path` replaces.

    Follows a link to a file in the same directory. Raises FileError if `path` is a directory, a device or similar, or a
    symbolic link to another directory.
    """
    path = os.path.abspath(path)
    real_parent = os.path.realpath(os.path.dirname(path))
    target = os.path.join(real_parent, os.path.basename(path))
    if os.path.islink(target):
        followed = os.path.realpath(target)
        if os.path.dirname(followed) != real_parent:
            raise FileError(
                path, f"is a symbolic link to {followed}, outside its directory; remove the link or name its target"
            )
        target = followed
    try:
        kind = os.lstat(target).st_mode
    except FileNotFoundError:
        return target
    except NotADirectoryError as error:
        raise FileError(path, "one of its parents is not a directory") from error
    except OSError as error:
        raise FileError(path, f"cannot be examined: {error.strerror}") from error
    if stat.S_ISDIR(kind):
        raise FileError(path, "is a directory; name a file in it, or remove it")
    if not stat.S_ISREG(kind):
        raise FileError(path, "is not a regular file; name another path, or remove it")
    return target


def ensure_directory(path: str, mode: int = 0o700, owner: int = -1, group: int = -1) -> bool:
    """Create `path` and its missing parents, each with `mode`, `owner` and `group` (-1: the process's).

    Existing directories are left unchanged. Returns whether one was created. Raises FileError.
    """
    path = os.path.abspath(path)
    missing = []
    current = path
    while not os.path.isdir(current):
        # Check again: a parallel run may have made it meanwhile.
        if os.path.lexists(current) and not os.path.isdir(current):
            raise FileError(current, "is not a directory; remove it, or name another path")
        if not os.path.isdir(current):
            missing.append(current)
            current = os.path.dirname(current)
    for directory in reversed(missing):
        try:
            os.mkdir(directory, mode)
            _own(directory, owner, group)
            os.chmod(directory, mode)  # the umask restricts mkdir's mode
        except FileExistsError:
            continue  # a parallel run was faster
        except OSError as error:
            raise FileError(directory, f"cannot be created: {error.strerror}") from error
        sync_directory(os.path.dirname(directory))
    return bool(missing)


def atomic_write(
    path: str,
    data: bytes,
    mode: int = 0o644,
    owner: int = -1,
    group: int = -1,
    directory_mode: int | None = None,
    backup: bool = False,
) -> str | None:
    """Replace the content of `path` atomically; a reader sees the old file or the new one, never a part.

    path: the file; see resolve_destination for what is refused.
    data: its whole new content, in bytes.
    mode: permission bits, set before the content is visible, regardless of the umask.
    owner, group: numeric ids; -1 for the process's.
    directory_mode: if given, missing parents are created with these bits (0o700 for keys).
    backup: keep the old file beside it first.

    Returns the path of the backup, or None if there was no old file. Raises FileError.
    """
    target = resolve_destination(path)
    if directory_mode is not None:
        ensure_directory(os.path.dirname(target), directory_mode, owner, group)
    saved = backup_file(target) if backup else None
    _clear_strays([target])
    temporary = _write_temporary(path, target, data, mode, owner, group)
    try:
        _sync_files([temporary])
        os.replace(temporary, target)
    except OSError as error:
        raise FileError(path, f"cannot be replaced: {error.strerror}") from error
    finally:
        _forget(temporary)
    sync_directory(os.path.dirname(target))
    return saved


def replace_together(files: Mapping[str, tuple[bytes, int]], owner: int = -1, group: int = -1) -> None:
    """Replace files that belong together, such as keys and their certificates; their directories must exist.

    `files` maps a path to (content, mode). Everything is on disk before the first rename, and a journal in each
    directory lists its renames, so that finish_replace, which every reader of such a set calls first, can complete a
    run that was killed between them. The old set is valid until the journal exists, then the new one. Raises FileError.
    """
    targets = {path: resolve_destination(path) for path in files}
    _clear_strays(targets.values())
    steps: dict[str, list[tuple[str, str]]] = {}
    try:
        for path, (data, mode) in files.items():
            temporary = _write_temporary(path, targets[path], data, mode, owner, group)
            directory, name = os.path.split(targets[path])
            steps.setdefault(directory, []).append((os.path.basename(temporary), name))
        _sync_files([os.path.join(directory, one) for directory, made in steps.items() for one, _target in made])
        for directory in list(steps):
            with _locked(directory), _signals_held():
                _complete(directory)
                atomic_write(os.path.join(directory, _JOURNAL), json.dumps(steps[directory]).encode(), 0o600)
                # From here on the new set is valid: an error leaves the journal for finish_replace.
                del steps[directory]
                _complete(directory)
    finally:
        for directory, left in steps.items():
            for temporary, _target in left:
                _forget(os.path.join(directory, temporary))


def finish_replace(directory: str) -> bool:
    """Complete a replace_together in `directory` that was killed between its renames; returns whether there was one."""
    if not os.path.exists(os.path.join(directory, _JOURNAL)):
        return False
    with _locked(directory), _signals_held():
        return _complete(directory)


def pending_files(directory: str) -> dict[str, str]:
    """What finish_replace would do, for check mode: {base name of a file: path that has its new content}."""
    paths = {target: os.path.join(directory, temporary) for temporary, target in _read_journal(directory)}
    return {target: temporary for target, temporary in paths.items() if os.path.exists(temporary)}


def backup_file(path: str) -> str | None:
    """Copy `path` to `<path>.<pid>.<YYYY-MM-DD@HH:MM:SS>~`, Ansible's form, with its owner and mode.

    Returns the copy's path, or None if `path` does not exist. Raises FileError.
    """
    target = resolve_destination(path)
    try:
        with open(target, "rb") as stream:
            data = stream.read()
            status = os.fstat(stream.fileno())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FileError(path, f"cannot be read for its backup: {error.strerror}") from error
    stamp = time.strftime("%Y-%m-%d@%H:%M:%S", time.localtime())
    copy = f"{target}.{os.getpid()}.{stamp}~"
    atomic_write(copy, data, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
    return copy


def remove_file(path: str) -> bool:
    """Remove `path`, or the link itself if it is one; returns whether it existed. Raises FileError."""
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        if os.path.isdir(path) and not os.path.islink(path):
            raise FileError(path, "is a directory; name a file in it, or remove it") from error
        raise FileError(path, f"cannot be removed: {error.strerror}") from error
    sync_directory(os.path.dirname(os.path.abspath(path)))
    return True


def stray_temporaries(target: str) -> list[str]:
    """Temporary files of `target` that killed runs left: their writer is gone and no journal needs them."""
    return _strays(os.path.dirname(os.path.abspath(target)), {os.path.basename(target)})


def sync_directory(path: str) -> None:
    """Make the names in a directory durable; ignores file systems that cannot do that."""
    try:
        handle = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def _write_temporary(path: str, target: str, data: bytes, mode: int, owner: int, group: int) -> str:
    """Write `data` to a new file beside `target`; it is private at first, and gets its mode before any content."""
    directory, name = os.path.split(target)
    temporary = os.path.join(directory, f".{name}.{os.getpid()}.{secrets.token_hex(4)}{_SUFFIX}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileNotFoundError as error:
        raise FileError(path, f"its directory {directory} does not exist; create it first") from error
    except OSError as error:
        raise FileError(path, f"cannot be written in {directory}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as stream:
            if owner != -1 or group != -1:
                os.fchown(handle, owner, group)
            os.fchmod(handle, mode)
            stream.write(data)
    except OSError as error:
        _forget(temporary)
        raise FileError(path, f"cannot be written: {error.strerror}") from error
    except BaseException:
        _forget(temporary)
        raise
    return temporary


def _sync_files(paths: list[str]) -> None:
    """Flush files to disk; several at once, so that the file system writes its journal once for all of them."""
    left = list(paths)
    errors: list[FileError] = []

    def work() -> None:
        while left and not errors:
            try:
                path = left.pop()
            except IndexError:
                return
            try:
                handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
                try:
                    os.fsync(handle)
                finally:
                    os.close(handle)
            except OSError as error:
                errors.append(FileError(path, f"cannot be written to the disk: {error.strerror}"))

    threads = [threading.Thread(target=work) for _number in range(min(len(paths), _SYNC_THREADS) - 1)]
    for thread in threads:
        thread.start()
    work()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _clear_strays(targets: Iterable[str]) -> None:
    names: dict[str, set[str]] = {}
    for target in targets:
        directory, name = os.path.split(target)
        names.setdefault(directory, set()).add(name)
    for directory, wanted in names.items():
        for stray in _strays(directory, wanted):
            _forget(stray)


def _strays(directory: str, names: set[str]) -> list[str]:
    try:
        entries = [entry for entry in os.listdir(directory) if entry.endswith(_SUFFIX)]
    except OSError:
        return []
    if not entries:
        return []
    form = re.compile(r"\.(.+)\.(\d+)\.[0-9a-f]{8}" + re.escape(_SUFFIX))
    needed = {temporary for temporary, _target in _read_journal(directory)}
    found = []
    for entry in entries:
        match = form.fullmatch(entry)
        if match and match.group(1) in names and entry not in needed and not is_alive(int(match.group(2))):
            found.append(os.path.join(directory, entry))
    return found


def _complete(directory: str) -> bool:
    """Do the renames of the journal in `directory`, if there is one; skips those that are done already."""
    steps = _read_journal(directory)
    if not steps:
        return False
    for temporary, target in steps:
        try:
            os.replace(os.path.join(directory, temporary), os.path.join(directory, target))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise FileError(os.path.join(directory, target), f"cannot be replaced: {error.strerror}") from error
    sync_directory(directory)
    _forget(os.path.join(directory, _JOURNAL))
    return True


def _read_journal(directory: str) -> list[tuple[str, str]]:
    """(temporary, target) base names of an interrupted replace_together; empty if there is none."""
    journal = os.path.join(directory, _JOURNAL)
    try:
        with open(journal, "rb") as stream:
            steps = [(str(temporary), str(target)) for temporary, target in json.loads(stream.read())]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError, TypeError) as error:
        raise FileError(journal, f"the record of an interrupted write is unreadable ({error}); remove it") from error
    if any(os.path.basename(name) != name for step in steps for name in step):
        raise FileError(journal, "the record of an interrupted write names files elsewhere; remove it")
    return steps


@contextlib.contextmanager
def _locked(directory: str) -> Iterator[None]:
    """Allow one commit at a time in a directory; the lock ends with the process."""
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise FileError(directory, f"cannot be opened: {error.strerror}") from error
    try:
        if not lock(handle, _LOCK_TIMEOUT_S):
            raise FileError(
                directory, f"another run has been writing here for {_LOCK_TIMEOUT_S} s; end it and try again"
            )
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Delay the signals that ask a program to end, for the time of a few renames."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _own(path: str, owner: int, group: int) -> None:
    if owner != -1 or group != -1:
        os.chown(path, owner, group)


def is_alive(process: int) -> bool:
    """Whether a process of this number runs, whoever it belongs to."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _forget(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)
