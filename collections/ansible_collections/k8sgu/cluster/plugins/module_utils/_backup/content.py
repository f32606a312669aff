# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a backup has: a manifest, the controller's state directory, and snapshots of etcd, as one archive of tar."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tarfile
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._files import ensure_directory

FORMAT = 1
MANIFEST = "backup.json"
SUFFIX = ".tar.age"
STATE, SNAPSHOTS = "state", "snapshots"
BIRTH = "birth.json"
# What a run makes again, what was opened from an earlier backup, and what the next cluster must not be told: that it
# lived. Its etcd starts anew, and gets the data by a restore.
LEFT_OUT = frozenset({"mirror", SNAPSHOTS, BIRTH, "cordoned.json", "opened.json"})
_MOST_MANIFEST = 1 << 20


class ContentError(Exception):
    """The archive is not a backup; the text says why."""


@dataclass(frozen=True)
class Manifest:
    """`made` is UTC, `fixed` what the cluster was made with and cannot change, `snapshots` their names."""

    cluster: str
    made: str
    fixed: dict[str, Any]
    snapshots: list[str]
    format: int = FORMAT


def names_of(cluster: str) -> re.Pattern[str]:
    """What the backups of a cluster are named: after it, and the time (UTC)."""
    return re.compile(rf"{re.escape(cluster)}-\d{{8}}T\d{{6}}Z{re.escape(SUFFIX)}")


def files(state: Path) -> list[Path]:
    """The files of a state directory that a backup has, in the order of their names. Raises OSError."""
    found = []
    for entry in sorted(state.iterdir()):
        if entry.name in LEFT_OUT or entry.name.startswith("."):
            continue
        found += sorted(entry.rglob("*")) if entry.is_dir() and not entry.is_symlink() else [entry]
    return [path for path in found if path.is_file() and not path.is_symlink()]


def fixed(state: Path) -> dict[str, Any]:
    """What the cluster was made with, as the controller has recorded it. Raises OSError, ValueError."""
    try:
        found = json.loads((state / BIRTH).read_text())["fixed"]
    except (FileNotFoundError, LookupError, TypeError):
        return {}
    return dict(found)


def pack(stream: IO[bytes], state: Path, manifest: Manifest, snapshots: Sequence[Path]) -> None:
    """Writes the archive. Raises OSError."""
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        text = json.dumps(asdict(manifest), indent=2).encode()
        entry = tarfile.TarInfo(MANIFEST)
        entry.size, entry.mode = len(text), 0o600
        archive.addfile(entry, io.BytesIO(text))
        for path in files(state):
            _add(archive, path, f"{STATE}/{path.relative_to(state).as_posix()}")
        for path in snapshots:
            _add(archive, path, f"{SNAPSHOTS}/{path.name}")


def unpack(stream: IO[bytes], directory: Path) -> Manifest:
    """Puts the state into an empty directory, with the snapshots below it. Raises ContentError, FileError, OSError."""
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            manifest = _manifest(archive)
            while True:
                # Not by iterating, which begins with the first entry again.
                entry = archive.next()
                if entry is None:
                    break
                target = directory / _place(entry)
                ensure_directory(str(target.parent), 0o700)
                content = archive.extractfile(entry)
                if content is None:
                    raise ContentError(f"{entry.name} is no file")
                public = entry.mode & 0o004 and not entry.name.startswith(f"{SNAPSHOTS}/")
                _write(target, content, 0o644 if public else 0o600)
    except (tarfile.TarError, EOFError) as error:
        raise ContentError(f"it is no archive of tar ({error})") from error
    return manifest


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    with path.open("rb") as content:
        entry = archive.gettarinfo(arcname=name, fileobj=content)
        # Whoever opens it owns it.
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        archive.addfile(entry, content)


def _manifest(archive: tarfile.TarFile) -> Manifest:
    first = archive.next()
    content = archive.extractfile(first) if first and first.name == MANIFEST and first.isfile() else None
    if content is None:
        raise ContentError(f"it does not begin with {MANIFEST}, so it is no backup of a cluster")
    try:
        told = json.loads(content.read(_MOST_MANIFEST))
        if told["format"] != FORMAT:
            raise ContentError(f"it has the format {told['format']}, and this version of k8sgu knows {FORMAT}")
        return Manifest(**told)
    except (ValueError, TypeError, LookupError) as error:
        raise ContentError(f"{MANIFEST} cannot be read ({type(error).__name__})") from error


def _place(entry: tarfile.TarInfo) -> PurePosixPath:
    """Where an entry belongs, below the state directory."""
    path = PurePosixPath(entry.name)
    parts = path.parts
    if not entry.isfile() or path.is_absolute() or ".." in parts or len(parts) < 2:
        raise ContentError(f"{entry.name} does not belong into a backup")
    if parts[0] == STATE:
        return PurePosixPath(*parts[1:])
    if parts[0] == SNAPSHOTS and len(parts) == 2:
        return path
    raise ContentError(f"{entry.name} does not belong into a backup")


def _write(target: Path, content: IO[bytes], mode: int) -> None:
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(handle, "wb") as stream:
        shutil.copyfileobj(content, stream)
        os.fchmod(stream.fileno(), mode)
        stream.flush()
        os.fsync(stream.fileno())
