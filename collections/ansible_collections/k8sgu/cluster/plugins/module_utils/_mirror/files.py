# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Places large files atomically: a temporary file beside the target, fsync, rename; by hard link where possible."""

# Paths come and go as text here.
# ruff: noqa: PTH101, PTH103, PTH105, PTH108, PTH116, PTH118, PTH120, PTH123
from __future__ import annotations

import contextlib
import os
import secrets
from typing import IO, Callable, Iterator

from ansible_collections.k8sgu.cluster.plugins.module_utils._files import (
    stray_temporaries,
    sync_directory,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.errors import storage_errors

CHUNK = 1 << 20
PROGRAM_MODE = 0o755
DATA_MODE = 0o644


def temporary_name(path: str) -> str:
    """A name beside `path` that _files.stray_temporaries recognises once its writer is gone."""
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}.{os.getpid()}.{secrets.token_hex(4)}.k8sgu")


def clear_strays(path: str) -> None:
    """Remove temporary files that killed runs left beside `path`."""
    for stray in stray_temporaries(path):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(stray)


@contextlib.contextmanager
def replacing(path: str, mode: int) -> Iterator[IO[bytes]]:
    """A stream whose content becomes `path` when the block succeeds, and is removed when it raises."""
    with storage_errors(path):
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        clear_strays(path)
        temporary = temporary_name(path)
        try:
            with open(temporary, "wb") as stream:
                yield stream
                stream.flush()
                os.fchmod(stream.fileno(), mode)
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        sync_directory(os.path.dirname(path))


def sync_file(path: str) -> None:
    """Flush a file to disk, so that its final name never appears without its content."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def copy_stream(source: IO[bytes], target: IO[bytes], on_chunk: Callable[[bytes], None] | None = None) -> None:
    for chunk in iter(lambda: source.read(CHUNK), b""):
        target.write(chunk)
        if on_chunk:
            on_chunk(chunk)


def place(source: str, path: str, mode: int) -> None:
    """Make `path` the same file as `source`: a hard link on the same file system, otherwise a copy."""
    with storage_errors(path):
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        clear_strays(path)
        temporary = temporary_name(path)
        try:
            os.link(source, temporary)
            if os.stat(temporary).st_mode & 0o777 != mode:
                os.chmod(temporary, mode)
            sync_file(temporary)
            # rename(2) does nothing when both names are links to the same file, so remove the temporary one.
            os.replace(temporary, path)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            sync_directory(os.path.dirname(path))
            return
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
    with open(source, "rb") as stream, replacing(path, mode) as target:
        copy_stream(stream, target)
