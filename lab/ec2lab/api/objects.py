"""The contents of S3's objects: files beside the API's state, which has their names alone.

A file is written once, before the call that makes it an object's content, and never changed: objects that are copied,
or completed from parts, share files. What the saved state does not name is removed after each change, so a call that
is undone, an object that is deleted and a daemon that is killed all leave nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

CHUNK = 1 << 18


@dataclass(frozen=True)
class Segment:
    """`size` bytes of a file, from byte `start` on."""

    name: str
    start: int
    size: int


class Body:
    """An object's content, read piece by piece. A slice of it is another; `bytes` is never made of the whole."""

    def __init__(self, segments: Iterable[Segment], md5: str = "") -> None:
        self.segments = tuple(segment for segment in segments if segment.size)
        self._md5 = md5

    def __len__(self) -> int:
        return sum(segment.size for segment in self.segments)

    def __getitem__(self, wanted: slice) -> Body:
        first, last, step = wanted.indices(len(self))
        if step != 1:
            raise ValueError("a content has slices of consecutive bytes")
        found, position = [], 0
        for segment in self.segments:
            begin, end = max(first, position), min(last, position + segment.size)
            if begin < end:
                found.append(Segment(segment.name, segment.start + begin - position, end - begin))
            position += segment.size
        return Body(found)

    def __iter__(self) -> Iterator[bytes]:
        """Opens every file now, so that they can be read to the end although the object is deleted meanwhile."""
        with contextlib.ExitStack() as opening:
            files = [opening.enter_context(directory().open(segment)) for segment in self.segments]
            held = opening.pop_all()
        return _pieces(self.segments, files, held)

    def md5(self) -> str:
        if not self._md5:
            digest = hashlib.md5(usedforsecurity=False)
            for piece in self:
                digest.update(piece)
            self._md5 = digest.hexdigest()
        return self._md5


def _pieces(segments: Iterable[Segment], files: list[BinaryIO], held: contextlib.ExitStack) -> Iterator[bytes]:
    with held:
        for segment, file in zip(segments, files, strict=True):
            left = segment.size
            while left:
                piece = file.read(min(left, CHUNK))
                if not piece:
                    raise OSError(f"an object's file is shorter than it was: {segment.name}")
                left -= len(piece)
                yield piece


def joined(bodies: Iterable[Body]) -> Body:
    return Body([segment for body in bodies for segment in body.segments])


class Incoming:
    """A content that is being received."""

    def __init__(self, name: str, file: BinaryIO) -> None:
        self.name, self.size, self.kept = name, 0, False
        self._file = file
        self._md5 = hashlib.md5(usedforsecurity=False)

    def write(self, piece: bytes) -> None:
        self._file.write(piece)
        self._md5.update(piece)
        self.size += len(piece)

    @property
    def md5(self) -> str:
        return self._md5.hexdigest()

    def body(self) -> Body:
        """The whole content; returns once it is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return Body([Segment(self.name, 0, self.size)], self.md5)


class Directory:
    """The files; readable by their owner alone, as the state."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._incoming: set[str] = set()

    @contextmanager
    def receive(self) -> Iterator[Incoming]:
        """A new file, which is removed again unless the caller sets `kept`."""
        self.path.mkdir(mode=0o700, exist_ok=True)
        name = uuid.uuid4().hex
        with self._lock:
            self._incoming.add(name)
        try:
            descriptor = os.open(self.path / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                incoming = Incoming(name, file)
                try:
                    yield incoming
                finally:
                    if not incoming.kept:
                        (self.path / name).unlink(missing_ok=True)
        finally:
            with self._lock:
                self._incoming.discard(name)

    def put(self, content: bytes) -> Body:
        """For contents that moto makes itself; the caller holds the API's lock and saves."""
        with self.receive() as incoming:
            incoming.write(content)
            incoming.kept = True
            return incoming.body()

    def open(self, segment: Segment) -> BinaryIO:
        file = (self.path / segment.name).open("rb")
        file.seek(segment.start)
        return file

    def sweep(self, named: set[str]) -> None:
        """Removes every file that is neither in `named` nor being received."""
        if not self.path.is_dir():
            return
        with self._lock:
            for entry in list(self.path.iterdir()):
                if entry.name not in named and entry.name not in self._incoming:
                    entry.unlink(missing_ok=True)

    def sync(self) -> None:
        """Returns once the files' names are on the disk, as the files are."""
        if not self.path.is_dir():
            return
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class _Chosen:
    """moto's objects are global to the process, and so is where their contents are."""

    directory: Directory | None = None


def use(path: Path) -> Directory:
    _Chosen.directory = Directory(path)
    return _Chosen.directory


def directory() -> Directory:
    if _Chosen.directory is None:
        raise RuntimeError("no directory has been chosen for the contents of objects")
    return _Chosen.directory
