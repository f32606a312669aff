# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which snapshot is restored where, what is refused, and what a database tells of its cluster."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.filter.restore_way import restore_way
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import (
    contents,
    etcd_snapshot_info,
    pages,
    restore_plan,
    snapshots,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.contents import Contents
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.restore_plan import Place

NOW = datetime.datetime(2026, 11, 29, 18, 30, tzinfo=datetime.timezone.utc)
OLD = "20261128T180000Z_etcd-3.6.14_rev-4000_upgrade_1.36.4-to-1.37.2.db"
NEW = "20261129T182000Z_etcd-3.6.14_rev-5000_backup.db"
BEGUN = {"id": "20261129T181500Z", "snapshot": OLD, "revision": 4000, "keys": 9, "placed": False}


def node(name: str, *snapshots: str, revision: int = 5300, **more: Any) -> dict[str, Any]:
    found = {"snapshots": list(snapshots), "revision": revision, "restoring": {}, "set_aside": []}
    found.update({"installed": True, "free": 2**30, **more})
    return {"name": name, "found": found}


def way(
    *nodes: dict[str, Any], wanted: str = "latest", places: Sequence[Place] = (), opened: str = ""
) -> restore_plan.Way:
    when = snapshots.parse(opened)
    return restore_plan.way(nodes, wanted, NOW, places, when.taken if when else None)


def state_dir(*names: str, size: int = 2**20) -> Place:
    return Place(restore_plan.STATE_DIR, "state directory", dict.fromkeys(names, size))


def bucket(*names: str, problem: str = "") -> Place:
    return Place(restore_plan.BUCKET, "bucket mine", dict.fromkeys(names, 2**20), problem)


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
    ([node("cp-1")], "latest", "no member has a snapshot in /var/lib/k8sgu/snapshots; put one into"),
    (
        [node("cp-1", NEW), node("cp-2", OLD)],
        "",
        "k8sgu_restore_snapshot: empty; give one of these, or latest:"
        f"\n  {NEW}  (cp-1, 10 min old)\n  {OLD}  (cp-2, 24 h old)",
    ),
    ([node("cp-1", NEW)], "x.db", "k8sgu_restore_snapshot: x.db is nowhere; give one of these, or latest:"),
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


def test_new_machines_of_members_that_are_gone_join_afterwards() -> None:
    """A majority was terminated: site.yml made other machines, and stopped before it put etcd there."""
    found = way(node("cp-1", NEW), node("cp-2", installed=False), node("cp-3", installed=False))
    assert (found.problem, found.source, found.left_out) == ("", "cp-1", ["cp-2", "cp-3"])
    told = "\n".join(found.lines)
    assert "cp-2, cp-3: not touched, since etcd was never there; site.yml has them join" in told
    assert "cp-1: stop etcd and move its data aside" in told
    assert "join etcd, one after another" not in told and "verify" not in found.lines


@pytest.mark.parametrize(
    "more", [{"installed": True}, {"set_aside": [BEGUN["id"]]}, {"restoring": BEGUN}], ids=lambda more: next(iter(more))
)
def test_a_node_that_has_something_of_etcd_is_not_left_out(more: dict[str, Any]) -> None:
    """It could start again with what it had."""
    found = way(node("cp-1", OLD), node("cp-2", **{"installed": False, **more}), wanted=OLD)
    assert (found.problem, found.left_out) == ("", [])
    assert "cp-2: join etcd, one after another, with its data" in found.lines and "verify" in found.lines


def test_one_that_changed_nothing_need_not_go_on() -> None:
    found = way(node("cp-1", OLD, restoring=BEGUN), node("cp-2", NEW))
    assert (found.snapshot, found.goes_on, found.id) == (NEW, False, "20261129T183000Z")


def test_what_no_member_has_is_brought_to_the_first() -> None:
    """Which is the one that etcd is installed on."""
    nodes = [node("cp-2"), node("cp-1", installed=False), node("cp-3", OLD)]
    found = way(*nodes, places=[state_dir(NEW, OLD), bucket(OLD)])
    assert (found.problem, found.source, found.snapshot) == ("", "cp-2", NEW)
    assert (found.brought, found.spare) == (restore_plan.STATE_DIR, False)
    assert found.lines[:2] == [
        f"cp-2: get {NEW} from the state directory",
        f"cp-2: check {NEW}, and prepare its data beside etcd's",
    ]
    found = way(*nodes, places=[state_dir(OLD), bucket(OLD, NEW)])
    assert (found.source, found.snapshot, found.brought, found.spare) == ("cp-2", NEW, restore_plan.BUCKET, True)
    assert found.lines[:2] == [
        f"controller: get {NEW} from the bucket mine, and decrypt it",
        f"cp-2: get {NEW} from the controller",
    ]
    # What was fetched before the run was cut off.
    found = way(*nodes, places=[state_dir(NEW), bucket(NEW)])
    assert (found.brought, found.spare) == (restore_plan.STATE_DIR, True)


def test_a_member_s_own_copy_is_preferred() -> None:
    found = way(node("cp-1"), node("cp-2", NEW), places=[state_dir(NEW, OLD), bucket(NEW, OLD)])
    assert (found.source, found.snapshot, found.brought, found.spare) == ("cp-2", NEW, "", False)
    assert not [line for line in found.lines if "get " in line]


def test_all_places_are_listed() -> None:
    found = way(node("cp-1", OLD), wanted="", places=[state_dir(NEW), bucket(OLD, NEW)])
    assert found.problem == (
        "k8sgu_restore_snapshot: empty; give one of these, or latest:"
        f"\n  {NEW}  (state directory, 10 min old)\n  {NEW}  (bucket mine, 10 min old)"
        f"\n  {OLD}  (cp-1, 24 h old)\n  {OLD}  (bucket mine, 24 h old)"
    )


def test_a_place_that_cannot_be_listed_stands_in_the_way_only_of_the_latest() -> None:
    places = [state_dir(), bucket(problem="no permission")]
    told = "The bucket mine is left out: no permission"
    found = way(node("cp-1", OLD), wanted=OLD, places=places)
    assert (found.problem, found.source, found.lines[0]) == ("", "cp-1", told)
    for wanted, said in (
        ("latest", "k8sgu_restore_snapshot: latest, and which that is is not known; give one of these:"),
        ("", "k8sgu_restore_snapshot: empty; give one of these, or latest:"),
        (NEW, f"k8sgu_restore_snapshot: {NEW} is nowhere; give one of these, or latest:"),
    ):
        assert (
            way(node("cp-1", OLD), wanted=wanted, places=places).problem == f"{said}\n  {OLD}  (cp-1, 24 h old)\n{told}"
        )
    assert way(node("cp-1"), places=places).problem.startswith(f"{told}; no member has a snapshot in ")
    # It knows which one.
    found = way(node("cp-1", OLD, restoring=BEGUN, set_aside=[BEGUN["id"]]), places=places)
    assert (found.problem, found.lines[0]) == ("", told)


def test_after_a_backup_was_opened_the_empty_cluster_s_own_is_not_the_latest() -> None:
    between = "20261129T100000Z_etcd-3.6.14_rev-4500_backup.db"
    found = way(node("cp-1", NEW), places=[state_dir(OLD)], opened=between)
    assert (found.snapshot, found.brought) == (OLD, restore_plan.STATE_DIR)
    found = way(node("cp-1", NEW), wanted=NEW, places=[state_dir(OLD)], opened=between)
    assert (found.snapshot, found.brought) == (NEW, "")
    assert way(node("cp-1", NEW), opened=between).problem == (
        "k8sgu_restore_snapshot: latest, and each is of the new cluster; give one of these:"
        f"\n  {NEW}  (cp-1, 10 min old; of the new cluster, made after the backup was opened)"
    )


def test_what_cannot_be_brought_is_said_before() -> None:
    for nodes, said in (
        (
            [node("cp-1", installed=False)],
            f"{NEW} is in the state directory, and etcd is installed nowhere; run site.yml",
        ),
        (
            [node("cp-1", free=2**20)],
            f"{NEW} has 1 MiB, so that cp-1 needs 102 MiB for it with room to spare, and /var/lib/k8sgu/snapshots has "
            "1 MiB free; make room there",
        ),
    ):
        assert way(*nodes, places=[state_dir(NEW)]).problem.startswith(said)


def test_what_a_run_that_was_cut_off_was_bringing_counts_as_free(tmp_path: Path) -> None:
    (tmp_path / "ansible-tmp-1").mkdir()
    (tmp_path / "ansible-tmp-1" / ".source.db").write_bytes(b"x" * 1000)
    (tmp_path / NEW).write_bytes(b"x" * 500)
    assert etcd_snapshot_info._below(str(tmp_path)) == 1500
    assert etcd_snapshot_info._below(str(tmp_path / "none")) == 0


def test_the_filter_reads_what_ansible_has_found() -> None:
    found = {"cp-1": node("cp-1", OLD)["found"]}
    files = [{"path": f"/state/snapshots/{NEW}", "size": 2**20}]
    listed = {"snapshots": [{"name": NEW, "bytes": 2**20}]}
    told = restore_way(found, NEW, files, "mine", listed)
    assert (told["problem"], told["source"], told["brought"], told["spare"]) == ("", "cp-1", "state_dir", True)
    told = restore_way(found, NEW, [], "mine", {"failed": True, "msg": "no permission"})
    assert told["problem"].endswith("The bucket mine is left out: no permission")
    opened = json.dumps({"opened": "20261129T100000Z"})
    for last_restore, snapshot in (
        ("", OLD),
        (json.dumps({"finished": "2026-11-28T10:00:00Z"}), OLD),
        (json.dumps({"finished": "2026-11-29T10:20:00Z"}), NEW),
    ):
        assert restore_way(found, "latest", files, opened=opened, last_restore=last_restore)["snapshot"] == snapshot


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
