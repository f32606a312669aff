# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a program can run here: its loader and the version of glibc that it was linked against.

https://refspecs.linuxfoundation.org/elf/gabi4+/ch5.pheader.html and
https://refspecs.linuxfoundation.org/LSB_5.0.0/LSB-Core-generic/LSB-Core-generic/symversion.html
"""

# Paths are text here, as in the options and in results.
# ruff: noqa: PTH110, PTH123

from __future__ import annotations

import os
import re
import struct
from typing import BinaryIO, Iterator

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster.versions import numbers

_ELF64_LITTLE = b"\x7fELF\x02\x01"
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_STRTAB, _DT_VERNEED = 5, 0x6FFFFFFE
_GLIBC = re.compile(r"GLIBC_(\d+(?:\.\d+)+)")
# No program needs more libraries or versions; a damaged one must not be read forever.
_MOST = 1000


class _Elf:
    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        offset, size, count = struct.unpack("<32xQ14xHH", self.read(0, 58))
        headers = [struct.unpack("<IIQQQQQQ", self.read(offset + size * n, 56)) for n in range(count)]
        self.segments = [(kind, start, address, length) for kind, _flags, start, address, _p, length, _m, _a in headers]

    def read(self, offset: int, size: int) -> bytes:
        self._stream.seek(offset)
        found = self._stream.read(size)
        if len(found) < size:
            raise ValueError("it ends too early")
        return found

    def text(self, offset: int) -> str:
        self._stream.seek(offset)
        return self._stream.read(256).partition(b"\0")[0].decode("ascii", "replace")

    def place(self, address: int) -> int:
        """Where in the file an address of the running program is."""
        for kind, start, begin, length in self.segments:
            if kind == _PT_LOAD and begin <= address < begin + length:
                return int(start + address - begin)
        raise ValueError("it names an address that it does not have")

    def segment(self, wanted: int) -> tuple[int, int] | None:
        return next(((start, length) for kind, start, _address, length in self.segments if kind == wanted), None)

    def dynamic(self) -> dict[int, int]:
        start, length = self.segment(_PT_DYNAMIC) or (0, 0)
        return dict(struct.unpack("<QQ", self.read(start + at, 16)) for at in range(0, length - 15, 16))

    def versions(self) -> Iterator[str]:
        """Every version of a library that the program needs, such as GLIBC_2.34."""
        entries = self.dynamic()
        if _DT_VERNEED not in entries or _DT_STRTAB not in entries:
            return
        names, need = self.place(entries[_DT_STRTAB]), self.place(entries[_DT_VERNEED])
        for _library in range(_MOST):
            auxiliary, following = struct.unpack("<8xII", self.read(need, 16))
            at = need + auxiliary
            for _version in range(_MOST):
                name, after = struct.unpack("<8xII", self.read(at, 16))
                yield self.text(names + name)
                if not after:
                    break
                at += after
            if not following:
                return
            need += following


def needs(path: str) -> tuple[str, str]:
    """The loader and the newest glibc that a program needs; both empty for a static one, and for a script."""
    with open(path, "rb") as stream:
        if stream.read(6) != _ELF64_LITTLE:
            return "", ""
        try:
            elf = _Elf(stream)
            start, length = elf.segment(_PT_INTERP) or (0, 0)
            loader = elf.read(start, length).rstrip(b"\0").decode("ascii", "replace") if length else ""
            found = [match.group(1) for match in map(_GLIBC.fullmatch, elf.versions()) if match]
        except (ValueError, struct.error):
            # What cannot be read is not judged; its checksum says that it is what was published.
            return "", ""
    return loader, max(found, key=numbers) if found else ""


def glibc_here() -> str:
    """The version of this system's glibc, such as 2.31; empty with another C library."""
    try:
        name, _space, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (ValueError, OSError):
        return ""
    return version if name == "glibc" else ""


def cannot_run(path: str, here: str | None = None) -> str:
    """Why a program cannot run on this system; empty if it can. `here`: the system's glibc."""
    loader, wanted = needs(path)
    here = glibc_here() if here is None else here
    if wanted and (not here or numbers(wanted) > numbers(here)):
        return f"it is linked against glibc {wanted}, and this system has {here or 'none'}"
    if loader and not os.path.exists(loader):
        return f"its loader {loader} is not there"
    return ""
