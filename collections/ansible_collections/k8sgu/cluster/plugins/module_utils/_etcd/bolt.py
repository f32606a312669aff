# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads a bucket of a bbolt database, such as etcd's, without a program that would write to the file.

The format: https://github.com/etcd-io/bbolt/tree/main/internal/common (page.go, meta.go, bucket.go). A page has a
header and elements, each of which says where its key and value are, counted from itself. A branch's values are pages; a
leaf's values are data, or buckets, which begin with the number of their first page, or have it with them.
"""

# Paths are text here, as in the options.
# ruff: noqa: PTH123
from __future__ import annotations

import contextlib
import mmap
import struct
from typing import Iterator

_HEADER = struct.Struct("<QHHL")
_META = struct.Struct("<LLLLQQQQQ")
_CHECKSUM = struct.Struct("<Q")
_LEAF = struct.Struct("<LLLL")
_BRANCH = struct.Struct("<LLQ")
_BUCKET = struct.Struct("<QQ")
_MAGIC, _VERSION = 0xED0CDAED, 2
_IS_BRANCH, _IS_LEAF = 0x01, 0x02
_IS_BUCKET = 0x01
# Those that a machine's pages may have.
_PAGE_SIZES = tuple(1 << bits for bits in range(9, 17))
# Deeper than any database of less than many terabytes; a file that leads in circles ends here.
_DEPTH = 32


class BoltError(Exception):
    """The file is not a database, or is damaged."""


def bucket(path: str, name: bytes) -> dict[bytes, bytes]:
    """Keys and values of a bucket at the top; empty if there is none. Raises BoltError, OSError."""
    return dict(items(path, name))


def items(path: str, name: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The same one after the other, in the order of the keys, for a bucket that may be larger than memory."""
    with open(path, "rb") as stream:
        try:
            held = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise BoltError("the file is empty") from error
        with contextlib.closing(held):
            yield from _Database(held).items(name)


class _Database:
    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._page_size, self._root = self._newest()

    def items(self, name: bytes) -> Iterator[tuple[bytes, bytes]]:
        try:
            for flags, key, value in self._walk(self._root * self._page_size):
                if key == name and flags & _IS_BUCKET:
                    [root, _sequence] = _BUCKET.unpack_from(self._data, value.start)
                    # A small bucket's only page is with it.
                    start = root * self._page_size if root else value.start + _BUCKET.size
                    for _flags, own, content in self._walk(start):
                        yield own, self._data[content]
                    return
        except (struct.error, IndexError) as error:
            raise BoltError(f"it ends before its data does: {error}") from error

    def _newest(self) -> tuple[int, int]:
        """Page size and root of the newer one of the two meta pages, which are written in turn."""
        found = []
        for offset in (0, *_PAGE_SIZES):
            start = offset + _HEADER.size
            if start + _META.size + _CHECKSUM.size > len(self._data):
                break
            magic, version, size, _flags, root, _sequence, _free, _pages, transaction = _META.unpack_from(
                self._data, start
            )
            if (magic, version) != (_MAGIC, _VERSION):
                continue
            [checksum] = _CHECKSUM.unpack_from(self._data, start + _META.size)
            if checksum == _fnv(self._data[start : start + _META.size]):
                found.append((transaction, size, root))
        if not found:
            raise BoltError("it is no database of etcd")
        _transaction, size, root = max(found)
        return size, root

    def _walk(self, start: int, depth: int = 0) -> Iterator[tuple[int, bytes, slice]]:
        """Flags, key and the value's place, of each element of the page at `start` and of those below it."""
        if depth > _DEPTH:
            raise BoltError("its pages lead in circles")
        _number, flags, count, _more = _HEADER.unpack_from(self._data, start)
        if not flags & (_IS_LEAF | _IS_BRANCH):
            raise BoltError(f"the page at {start} is of no kind that holds data")
        for index in range(count):
            if flags & _IS_LEAF:
                here = start + _HEADER.size + index * _LEAF.size
                kind, position, key_size, value_size = _LEAF.unpack_from(self._data, here)
                key = here + position
                value = key + key_size
                if value + value_size > len(self._data):
                    raise BoltError("it ends before its data does")
                yield kind, self._data[key:value], slice(value, value + value_size)
            else:
                here = start + _HEADER.size + index * _BRANCH.size
                _position, _key_size, page = _BRANCH.unpack_from(self._data, here)
                yield from self._walk(page * self._page_size, depth + 1)


def _fnv(data: bytes) -> int:
    """FNV-1a of 64 bits: http://www.isthe.com/chongo/tech/comp/fnv/"""
    total = 0xCBF29CE484222325
    for byte in data:
        total = (total ^ byte) * 0x100000001B3 % 2**64
    return total
