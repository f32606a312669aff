# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many bytes of etcd's file its values take, by the way bbolt lays them out. Pure.

Values are in the order of their revisions, several to a page of 4 KiB, or, if they are large, at least two to a run of
pages: of values of 2.3 KiB two take 8 KiB. So the file is larger than what is in it, and by how much depends on their
size. bbolt splits a page that is over-full where it is filled to `_FILL`, never before its second element, and not at
all up to four elements: splitTwo and splitIndex in https://github.com/etcd-io/bbolt/blob/main/node.go
"""

from __future__ import annotations

from typing import Iterable

_PAGE = 4096
_PAGE_HEADER = 16
# A leaf's element has its place in 16 bytes, and its key, which is a revision, has 17:
# https://github.com/etcd-io/etcd/blob/main/server/storage/mvcc/revision.go
_ELEMENT = 16 + 17
# What etcd adds to key and value: tags, lengths, three revisions. mvccpb.KeyValue; with a lease nine bytes more.
_KEY_VALUE = 20
# etcd's own choice for the bucket of values, since revisions only grow: UnsafeSeqPut in
# https://github.com/etcd-io/etcd/blob/main/server/storage/backend/batch_tx.go
_FILL = 0.9
_LEAST_ELEMENTS = 2
# A page above names each page with its first revision and its number. The other buckets of an etcd have a few pages.
_BRANCH_ELEMENT = _ELEMENT
_OTHERS = 8 * _PAGE


class Pages:
    """Values that are added in the order of their revisions."""

    def __init__(self) -> None:
        self._whole = 0
        self._leaves = 0
        self._bytes = self._elements = 0

    def add(self, message: int) -> None:
        """One value; `message`: the bytes of etcd's KeyValue."""
        size = message + _ELEMENT
        if self._elements >= _LEAST_ELEMENTS and self._bytes + size > _FILL * _PAGE:
            self._close()
        self._bytes = (self._bytes or _PAGE_HEADER) + size
        self._elements += 1

    def _close(self) -> None:
        self._whole += _rounded(self._bytes)
        self._leaves += 1
        self._bytes = self._elements = 0

    @property
    def bytes(self) -> int:
        """Of a file that has just been defragmented."""
        leaves = self._leaves + 1
        branches = _rounded(int(leaves * _BRANCH_ELEMENT / _FILL))
        return self._whole + _rounded(self._bytes) + branches + _OTHERS


def message(key: int, value: int) -> int:
    """Bytes of etcd's KeyValue for a key and a value of that many bytes."""
    return key + value + _KEY_VALUE


def each(size: int) -> float:
    """Bytes of the file for each of many values with a KeyValue of `size` bytes."""
    own = size + _ELEMENT
    fit = max(_LEAST_ELEMENTS, int((_FILL * _PAGE - _PAGE_HEADER) // own))
    return (_rounded(_PAGE_HEADER + fit * own) + _BRANCH_ELEMENT / _FILL) / fit


def packed(messages: Iterable[int]) -> int:
    """Bytes of the file for values with these sizes, in the order of their revisions."""
    pages = Pages()
    for one in messages:
        pages.add(one)
    return pages.bytes


def _rounded(size: int) -> int:
    return -(-size // _PAGE) * _PAGE
