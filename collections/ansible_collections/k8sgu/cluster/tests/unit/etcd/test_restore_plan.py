# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which snapshot is restored where, what is refused, and what a database tells of its cluster."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import contents, pages, restore_plan
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.contents import Contents

NOW = datetime.datetime(2026, 11, 29, 18, 30, tzinfo=datetime.timezone.utc)
OLD = "20261128T180000Z_etcd-3.6.14_rev-4000_upgrade_1.36.4-to-1.37.2.db"
NEW = "20261129T182000Z_etcd-3.6.14_rev-5000_backup.db"
BEGUN = {"id": "20261129T181500Z", "snapshot": OLD, "revision": 4000, "keys": 9, "placed": False}


def node(name: str, *snapshots: str, revision: int = 5300, **more: Any) -> dict[str, Any]:
    found = {"snapshots": list(snapshots), "revision": revision, "restoring": {}, "set_aside": [], **more}
    return {"name": name, "found": found}


def way(*nodes: dict[str, Any], wanted: str = "latest") -> restore_plan.Way:
    return restore_plan.way(nodes, wanted, NOW)


def test_the_newest_of_all_members_is_restored_where_it_is() -> None:
    found = way(node("cp-1", OLD), node("cp-2", NEW, OLD), node("cp-3"))
    assert found.problem == ""
    assert (found.source, found.snapshot, found.id) == ("cp-2", NEW, "20261129T183000Z")
    assert (
        "cp-2: start etcd with the snapshot's data; what was written since 2026-11-29 18:20:00 UTC is lost "
        in "\n".join(found.lines)
    )
    assert "cp-1, cp-3: join etcd, one after another, with its data" in found.lines
    assert "(10 min; 300 revisions)" in "\n".join(found.lines)


def test_one_is_chosen_by_its_name() -> None:
    found = way(node("cp-1", OLD), node("cp-2", NEW), wanted=OLD)
    assert (found.source, found.snapshot) == ("cp-1", OLD)
    assert "(24 h; 1300 revisions)" in "\n".join(found.lines)


@pytest.mark.parametrize(
    ("revision", "snapshots", "expected"),
    [
        (5300, [OLD], 1_000_001_300),
        # etcd does not answer: a later snapshot shows how far it was at least.
        (0, [OLD, NEW], 1_000_001_000),
        # A restore of an older snapshot put the revisions up before.
        (1_000_005_300, [OLD], 2_000_001_300),
    ],
)
def test_no_revision_is_given_twice(revision: int, snapshots: list[str], expected: int) -> None:
    assert way(node("cp-1", *snapshots, revision=revision), wanted=OLD).bump == expected


def test_without_etcd_it_is_said_that_the_loss_is_not_known() -> None:
    found = way(node("cp-1", NEW, revision=0))
    assert found.problem == "" and "how many is not known, since etcd does not answer" in "\n".join(found.lines)


REFUSED = [
    ([node("cp-1")], "latest", "no member has a snapshot in /var/lib/k8sgu/snapshots; copy one there"),
    (
        [node("cp-1", NEW), node("cp-2", OLD)],
        "",
        "k8sgu_restore_snapshot: empty; give one of these, or latest:"
        f"\n  {NEW}  (cp-1, 10 min old)\n  {OLD}  (cp-2, 24 h old)",
    ),
    ([node("cp-1", NEW)], "x.db", "k8sgu_restore_snapshot: x.db is on no member; give one of these, or latest:"),
    (
        [node("cp-1", NEW), {"name": "cp-2", "found": None}],
        "latest",
        "cp-2 could not be asked, and could come back with the data that is replaced; start what is stopped, or",
    ),
    (
        [node("cp-1", NEW, OLD, restoring=BEGUN, set_aside=[BEGUN["id"]]), node("cp-2")],
        NEW,
        f"k8sgu_restore_snapshot: {NEW}, and a restore from {OLD} was begun on cp-1 and has not come to its end;",
    ),
]


@pytest.mark.parametrize(("nodes", "wanted", "said"), REFUSED)
def test_what_cannot_be_is_refused(nodes: list[dict[str, Any]], wanted: str, said: str) -> None:
    assert way(*nodes, wanted=wanted).problem.startswith(said)


def test_what_is_lost_is_said() -> None:
    found = way(node("cp-1", NEW))
    assert found.lost == "what was written since 2026-11-29 18:20:00 UTC is lost (10 min; 300 revisions)"


@pytest.mark.parametrize("wanted", ["", "latest", OLD])
def test_one_that_was_cut_off_goes_on(wanted: str) -> None:
    """Whatever is newer by then, and wherever data was set aside already."""
    found = way(
        node("cp-1", OLD, restoring=BEGUN, revision=0), node("cp-2", NEW, set_aside=[BEGUN["id"]]), wanted=wanted
    )
    assert (found.source, found.snapshot, found.id, found.goes_on) == ("cp-1", OLD, BEGUN["id"], True)
    assert found.lines[0] == "A restore that was begun at 20261129T181500Z goes on."


def test_one_that_changed_nothing_need_not_go_on() -> None:
    found = way(node("cp-1", OLD, restoring=BEGUN), node("cp-2", NEW))
    assert (found.snapshot, found.goes_on, found.id) == (NEW, False, "20261129T183000Z")


CA = "-----BEGIN CERTIFICATE-----\nAAAA\nBBBB\n-----END CERTIFICATE-----"
OWN = contents.certificates(CA.encode())
KEY = "k8s:enc:secretbox:v1:key-2:"


def unfit(found: Contents, name: str = NEW, version: str = "3.6.14") -> list[str]:
    return restore_plan.unfit(name, found, version, ["cp-1", "cp-2"], OWN, [KEY])


def test_the_cluster_s_own_snapshot_serves() -> None:
    assert unfit(Contents(("cp-1",), {KEY: 12}, frozenset(OWN))) == []
    # Where the CA is not to be seen, the members say it.
    assert unfit(Contents(("cp-1",), {}, frozenset())) == []


def test_all_that_speaks_against_a_snapshot_is_told_at_once() -> None:
    found = Contents(("other-1",), {"k8s:enc:secretbox:v1:key-1:": 12, KEY: 1}, frozenset())
    name = NEW.replace("3.6.14", "3.7.1")
    problems = unfit(found, name)
    assert [problem.split("; ")[0] for problem in problems] == [
        f"{name} was taken by etcd 3.7.1, and 3.6.14 is installed, which cannot read it",
        f"{name} is of another cluster: its members are other-1, and this cluster's cp-1, cp-2",
        f"12 values in {name} can be read only with the encryption key key-1 (secretbox), which this cluster "
        "does not have",
    ]


def test_a_cluster_with_the_same_names_has_another_ca() -> None:
    found = Contents(("cp-1",), {}, frozenset(contents.certificates(CA.replace("AAAA", "CCCC").encode())))
    assert unfit(found) == [f"{NEW} is of another cluster: it has another CA"]


def test_what_fills_the_quota_by_itself_is_told_before_it_is_restored() -> None:
    found = Contents(("cp-1",), {}, frozenset(OWN), bytes=4 << 20)
    for quota in (0, (4 << 20) + 1):
        assert restore_plan.unfit(NEW, found, "3.6.14", ["cp-1"], OWN, [], quota) == []
    [problem] = restore_plan.unfit(NEW, found, "3.6.14", ["cp-1"], OWN, [], 4 << 20)
    assert problem.startswith(f"what is in {NEW} takes 4 MiB without its history, and fills etcd's quota of 4 MiB")
    assert "Raise k8sgu_etcd_quota_bytes" in problem


def test_room_names_what_earlier_restores_kept() -> None:
    assert restore_plan.room(2**20, 2**30, "/var/lib/etcd", []) == []
    assert restore_plan.room(2**20, 2**20, "/var/lib/etcd", ["member-before-20261129T181500Z"]) == [
        "the snapshot's data needs 102 MiB with room to spare, and /var/lib/etcd has 1 MiB free; make room, for "
        "instance by removing what earlier restores kept (member-before-20261129T181500Z)"
    ]


def field(number: int, data: bytes) -> bytes:
    return (
        bytes([number << 3 | 2, *([len(data)] if len(data) < 128 else [len(data) & 127 | 128, len(data) >> 7])]) + data
    )


def stored(key: str, value: bytes | None) -> bytes:
    """A KeyValue; None for a key that is deleted."""
    revision = b"\x10\xac\x02\x18\xac\x02\x20\x01"
    return field(1, key.encode()) + (revision + field(5, value) if value is not None else b"")


def test_of_each_key_the_last_value_counts() -> None:
    old = b"k8s:enc:secretbox:v1:key-1:xx"
    encrypted, authority, _size = contents._values(
        (number.to_bytes(17, "big"), content)
        for number, content in enumerate(
            [
                stored("/registry/secrets/a", old),
                stored("/registry/secrets/b", old),
                stored("/registry/secrets/c", old),
                stored("/registry/secrets/d", old),
                stored("/registry/secrets/a", KEY.encode() + b"yy"),
                stored("/registry/secrets/b", None),
                stored("/registry/secrets/c", b"plain"),
                stored(
                    "/registry/configmaps/kube-system/kube-root-ca.crt", b"k8s\0..ca.crt\x12" + CA.encode() + b"\n\x1a"
                ),
            ]
        )
    )
    assert encrypted == {"k8s:enc:secretbox:v1:key-1:": 1, KEY: 1}
    assert authority == frozenset(OWN)


@pytest.mark.parametrize("content", [b"\x0a\x7fshort", b"\x0b\x01x", b"\x80"])
def test_what_is_no_value_is_said(content: bytes) -> None:
    with pytest.raises(contents.BoltError, match="no KeyValue"):
        contents._values([(bytes(17), content)])


def test_what_takes_room_is_the_last_value_of_each_key_that_is_there() -> None:
    large = b"x" * 10_000
    rows = [("a", large), ("b", large), ("c", b"small"), ("a", b"small"), ("b", None)]
    items = [(bytes(17) if value is not None else bytes(17) + b"t", stored(key, value)) for key, value in rows]
    assert contents._values(items)[2] == pages.packed([len(items[2][1]), len(items[3][1])])
