# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots of etcd: which one serves, which go, how much room one needs, what is no whole one, and what is refused."""

from __future__ import annotations

import datetime
import hashlib
import struct
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import bolt, etcd_snapshot, snapshot_file, snapshots
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.etcdctl import EtcdError
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.options import ARGUMENT_SPECS
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.snapshots import Snapshot
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, carry_out

NOON = datetime.datetime(2026, 11, 29, 12, 0, 0, tzinfo=datetime.timezone.utc)
HOUR = datetime.timedelta(hours=1)
MIB = 2**20


def taken(hours_ago: float, series: str = "upgrade", label: str = "a-to-b", revision: int = 7) -> Snapshot:
    return Snapshot(NOON - hours_ago * HOUR, "3.6.14", revision, series, label)


@pytest.mark.parametrize("label", ["1.36.4-to-1.37.2", ""])
def test_a_name_says_all_about_a_snapshot(label: str) -> None:
    one = taken(1, label=label)
    assert snapshots.parse(one.name) == one
    assert one.name.startswith("20261129T110000Z_etcd-3.6.14_rev-7_upgrade")


@pytest.mark.parametrize(
    "name",
    [
        "snapshot.db",
        "20261129T110000Z_etcd-3.6.14_rev-7_upgrade.db.part",
        ".20261129T110000Z_etcd-3.6.14_rev-7_upgrade.db",
        "20261329T110000Z_etcd-3.6.14_rev-7_upgrade.db",
        "20261129T110000Z_etcd-3.6.14_rev-7_.db",
        "20261129T110000Z_etcd-3.6.14_rev-7_up/grade.db",
    ],
)
def test_another_file_is_no_snapshot(name: str) -> None:
    assert snapshots.parse(name) is None


def test_the_newest_is_listed_first() -> None:
    names = [taken(3).name, "note.txt", taken(1).name, taken(2, "backup", "").name]
    assert [one.taken for one in snapshots.listed(names)] == [NOON - hours * HOUR for hours in (1, 2, 3)]


SERVES: list[tuple[str, list[Snapshot], str, list[float]]] = [
    ("none is there", [], "a-to-b", []),
    ("two of this label", [taken(1), taken(5)], "a-to-b", [1, 5]),
    ("of another label", [taken(1, label="b-to-a")], "a-to-b", []),
    ("of another series", [taken(1, "backup")], "a-to-b", []),
    ("too old", [taken(23), taken(25)], "a-to-b", [23]),
    ("of a clock that ran ahead", [taken(-1)], "a-to-b", []),
    ("without a label each is taken", [taken(1, label="")], "", []),
]


@pytest.mark.parametrize(("case", "found", "label", "expected"), SERVES, ids=[row[0] for row in SERVES])
def test_which_snapshot_makes_another_one_needless(
    case: str, found: list[Snapshot], label: str, expected: list[float]
) -> None:
    served = snapshots.serving(found, "upgrade", label, NOON, 24 * 3600)
    assert [one.taken for one in served] == [NOON - hours * HOUR for hours in expected]


def test_the_newest_of_a_series_stay() -> None:
    found = [taken(1), taken(2, "backup"), taken(3, label="other"), taken(4), taken(5, "backup")]
    sizes = {one.name: MIB for one in found}
    why = "1 of upgrade are kept"
    assert snapshots.surplus(found, "upgrade", 1, sizes, MIB, 100) == [(found[2], why), (found[3], why)]
    assert snapshots.surplus(found, "upgrade", 3, sizes, MIB, 100) == []


def test_room_is_for_the_snapshot_and_something_to_spare() -> None:
    assert snapshots.room(1000 * MIB, 1200 * MIB, "/s") == ""
    said = snapshots.room(1000 * MIB, 1200 * MIB - 1, "/s")
    assert said == (
        "etcd's database has 1000 MiB, so that its snapshot needs 1200 MiB with room to spare, and /s has 1199 MiB "
        "free; make room, or name another directory"
    )


def page(number: int, flags: int, *elements: tuple[int, bytes, bytes], size: int) -> bytes:
    """A leaf with (flags, key, value), or a branch with (page, key, nothing)."""
    header, body, data = struct.pack("<QHHL", number, flags, len(elements), 0), b"", b""
    for index, (first, key, value) in enumerate(elements):
        position = (len(elements) - index) * 16 + len(data)
        if flags & 0x02:
            body += struct.pack("<LLLL", first, position, len(key), len(value))
        else:
            body += struct.pack("<LLQ", position, len(key), first)
        data += key + value
    return (header + body + data).ljust(size, b"\0")


def meta(number: int, transaction: int, root: int, size: int) -> bytes:
    content = struct.pack("<LLLLQQQQQ", 0xED0CDAED, 2, size, 0, root, 0, 2, 9, transaction)
    total = 0xCBF29CE484222325
    for byte in content:
        total = (total ^ byte) * 0x100000001B3 % 2**64
    header = struct.pack("<QHHL", number, 0x04, 0, 0)
    return (header + content + struct.pack("<Q", total)).ljust(size, b"\0")


def database(size: int = 4096) -> bytes:
    """Two buckets: one with pages of its own, a branch and two leaves, and one that is inline."""
    inline = struct.pack("<QQ", 0, 0) + page(0, 0x02, (0, b"clusterVersion", b"3.6.0"), size=0)
    root = [(1, b"cluster", inline), (1, b"members", struct.pack("<QQ", 4, 0))]
    return b"".join(
        [
            # The older one leads to a page that is no longer the root.
            meta(0, 8, 6, size),
            meta(1, 9, 3, size),
            page(2, 0x10, size=size),
            page(3, 0x02, *root, size=size),
            page(4, 0x01, (5, b"1f", b""), (6, b"ab", b""), size=size),
            page(5, 0x02, (0, b"1f", b"{}"), (0, b"2f", b'{"name":"cp-1"}'), size=size),
            page(6, 0x02, (0, b"ab", b"{}"), size=size),
        ]
    )


@pytest.mark.parametrize("size", [4096, 16384])
def test_a_bucket_is_read_with_all_its_pages(tmp_path: Path, size: int) -> None:
    path = tmp_path / "db"
    path.write_bytes(database(size))
    assert bolt.bucket(str(path), b"members") == {b"1f": b"{}", b"2f": b'{"name":"cp-1"}', b"ab": b"{}"}
    assert bolt.bucket(str(path), b"cluster") == {b"clusterVersion": b"3.6.0"}
    assert bolt.bucket(str(path), b"lease") == {}


BROKEN = [
    ("empty", b"", "the file is empty"),
    ("no database", b"\x7fELF" * 5000, "it is no database of etcd"),
    ("its meta pages are damaged", database().replace(struct.pack("<Q", 9), struct.pack("<Q", 7)), "no database"),
    ("cut off", database()[: 4096 * 5], "it ends before its data does"),
    ("a page of another kind", database()[: 4096 * 5] + database()[4096 * 2 :], "of no kind that holds data"),
]


@pytest.mark.parametrize(("case", "content", "expected"), BROKEN, ids=[row[0] for row in BROKEN])
def test_what_is_no_whole_database_is_an_error(tmp_path: Path, case: str, content: bytes, expected: str) -> None:
    path = tmp_path / "db"
    path.write_bytes(content)
    with pytest.raises(bolt.BoltError, match=expected):
        bolt.bucket(str(path), b"members")


def test_pages_that_lead_in_circles_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "db"
    content = database()
    path.write_bytes(content[: 4096 * 4] + page(4, 0x01, (4, b"1f", b""), size=4096) + content[4096 * 5 :])
    with pytest.raises(bolt.BoltError, match="lead in circles"):
        bolt.bucket(str(path), b"members")


def signed(content: bytes) -> bytes:
    return content + hashlib.sha256(content).digest()


PARTS = [
    ("cut off", signed(b"x" * 4096)[:-1], "of its 4127 bytes no SHA-256 is at the end, so it was cut off"),
    ("cut off at a sector", signed(b"x" * 4096)[:4096], "no SHA-256 is at the end"),
    ("changed", signed(b"x" * 4096).replace(b"x", b"y", 1), "its content is not what its SHA-256 was made of"),
    ("of another beginning", signed(b"x" * 4096)[512:], "its content is not what its SHA-256 was made of"),
]


@pytest.mark.parametrize(("case", "content", "expected"), PARTS, ids=[row[0] for row in PARTS])
def test_a_part_of_a_snapshot_is_no_snapshot(tmp_path: Path, case: str, content: bytes, expected: str) -> None:
    path = tmp_path / "s.db"
    path.write_bytes(content)
    with pytest.raises(EtcdError, match=expected):
        snapshot_file.facts(str(path), {})


BAD: list[tuple[dict[str, Any], str]] = [
    ({"keep": 0}, "keep: it is 0, and the newest snapshot always stays; give 1 or more"),
    ({"disk_percent": 0}, "disk_percent: it is 0; give 1 to 100"),
    ({"disk_percent": 101}, "disk_percent: it is 101; give 1 to 100"),
    ({"series": ""}, "series:  cannot be part of a file's name"),
    ({"series": "up_grade"}, "series: up_grade cannot be part of a file's name"),
    ({"label": "../x"}, r"label: ../x cannot be part of a file's name"),
    ({"directory": "snapshots"}, "directory: snapshots is no absolute path"),
]


@pytest.mark.parametrize(("given", "expected"), BAD)
def test_bad_options_are_refused_before_anything_is_asked(given: dict[str, Any], expected: str) -> None:
    defaults = {name: option.get("default") for name, option in ARGUMENT_SPECS["etcd_snapshot"].items()}
    result = carry_out(etcd_snapshot.MODULE, Call({**defaults, "etcdctl": "/nonexistent", **given}))
    assert result["failed"] and result["msg"].startswith(expected)
