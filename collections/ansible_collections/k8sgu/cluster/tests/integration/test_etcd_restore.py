# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""k8sgu.cluster.etcd_restore on a real etcd: what the snapshot had is there, whatever was cut off on the way."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import ansible_program
import etcd_cluster

ID, LATER = "20261129T181500Z", "20261129T191500Z"
KEYS = 50
MIB = 1 << 20
WAIT_S = 20
SECRET = "k8s:enc:secretbox:v1:key-2:"
CA = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@contextlib.contextmanager
def filled(folder: Path) -> Iterator[etcd_cluster.Etcd]:
    version = etcd_cluster.programs("3.6")
    if version is None:
        pytest.skip("no mirror with etcd 3.6; fill one with `make up`")
    with etcd_cluster.running(folder, version, size=1) as etcd:
        etcd.fill(
            {
                **{f"/registry/pods/{number}": "x" * 200 for number in range(KEYS)},
                "/registry/secrets/demo/one": f"{SECRET}xyz",
                "/registry/configmaps/kube-system/kube-root-ca.crt": CA,
                "/registry/masterleases/10.0.0.10": "an API server that is gone",
            }
        )
        yield etcd


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[etcd_cluster.Etcd]:
    """One that a test may change."""
    with filled(tmp_path) as etcd:
        yield etcd


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[etcd_cluster.Etcd]:
    """One that stays as it is."""
    with filled(tmp_path_factory.mktemp("kept")) as etcd:
        yield etcd


def options(etcd: etcd_cluster.Etcd, state: str, **given: Any) -> dict[str, Any]:
    member = etcd.members["cp-0"]
    return {
        "id": ID,
        "state": state,
        "name": "cp-0",
        "peer_url": f"https://127.0.0.1:{member.peer}",
        "nodes": ["cp-0", "cp-1"],
        "authority": CA,
        "encryption_prefixes": [SECRET],
        "data_dir": str(etcd.directory / "cp-0"),
        "directory": str(etcd.directory / "snapshots"),
        "record": str(etcd.directory / "state" / "etcd-restore.json"),
        "etcdutl": str(member.programs / "etcdutl"),
        **given,
    }


def restore(etcd: etcd_cluster.Etcd, state: str, check: bool = False, **given: Any) -> dict[str, Any]:
    return etcd.run("etcd_restore", "cp-0", check, **options(etcd, state, **given))


def told(etcd: etcd_cluster.Etcd) -> dict[str, Any]:
    places = {name: options(etcd, "placed")[name] for name in ("directory", "record", "data_dir")}
    return etcd.run("etcd_snapshot_info", "cp-0", **places)


def taken(etcd: etcd_cluster.Etcd) -> str:
    given = {name: options(etcd, "placed")[name] for name in ("directory", "etcdutl")}
    return Path(etcd.run("etcd_snapshot", "cp-0", series="backup", **given)["path"]).name


def pods(etcd: etcd_cluster.Etcd) -> int:
    return len(etcd.etcdctl("cp-0", "get", "/registry/pods/", "--prefix", "--keys-only").stdout.split())


def revision(etcd: etcd_cluster.Etcd) -> int:
    return int(etcd.statuses()["cp-0"]["header"]["revision"])


def test_a_deletion_is_undone_and_no_time_goes_backwards(etcd: etcd_cluster.Etcd) -> None:
    """Every state is called as in the playbook, first in check mode and afterwards once more."""
    name = taken(etcd)
    members = etcd.statuses()["cp-0"]["header"]["cluster_id"]
    etcd.etcdctl("cp-0", "del", "--prefix", "/registry/pods/")
    etcd.fill({"/registry/pods/later": "lost by the restore"})
    before = revision(etcd)
    given: dict[str, Any] = {"snapshot": name}
    for state in ("prepared", "aside", "placed", "serving", "finished"):
        if state == "aside":
            refused = restore(etcd, state)
            assert refused["failed"] and refused["msg"].endswith("stop etcd first: systemctl stop etcd"), refused
            etcd.stop("cp-0")
        if state == "serving":
            etcd.start("cp-0")
        planned = restore(etcd, state, check=True, **given)
        done = restore(etcd, state, **given)
        again = restore(etcd, state, **given)
        assert not done.get("failed") and done["changed"] and not again["changed"], (state, done, again)
        # In check mode etcd is not asked.
        assert planned["changed"] or state == "serving", (state, planned)
        if state == "prepared":
            assert (done["keys"], again["keys"], again["snapshot"]) == (KEYS + 3, KEYS + 3, name)
            assert told(etcd)["restoring"] == {
                "id": ID,
                "snapshot": name,
                "placed": False,
                **{part: done[part] for part in ("keys", "revision")},
            }
        if state == "placed":
            assert told(etcd)["restoring"]["placed"] and told(etcd)["set_aside"] == [ID]
        if state == "serving":
            assert done["plan"] == ["remove 1 addresses of API servers from the snapshot's time"]
    assert told(etcd)["restoring"] == {} and told(etcd)["set_aside"] == [ID]
    assert pods(etcd) == KEYS
    assert revision(etcd) > before + 10**8
    # Who watched from a revision of the time before has to list anew.
    old = etcd.etcdctl("cp-0", "get", "/registry/pods/1", f"--rev={before}", check=False)
    assert "required revision has been compacted" in old.stderr
    # A member of the cluster that was would be refused by its id.
    assert etcd.statuses()["cp-0"]["header"]["cluster_id"] != members
    assert (etcd.directory / "cp-0" / f"member-before-{ID}" / "snap" / "db").stat().st_size > 0


QUOTA = 24 * MIB


@contextlib.contextmanager
def used_up(folder: Path, kept: int) -> Iterator[etcd_cluster.Etcd]:
    """One that takes no writes: `kept` keys of a MiB each, and one that was overwritten until the quota was used up."""
    version = etcd_cluster.programs("3.6")
    if version is None:
        pytest.skip("no mirror with etcd 3.6; fill one with `make up`")
    with etcd_cluster.running(folder, version, size=1, flags=[f"--quota-backend-bytes={QUOTA}"]) as etcd:
        etcd.fill({"/registry/configmaps/kube-system/kube-root-ca.crt": CA})
        etcd.fill({f"/registry/pods/{number}": "x" * MIB for number in range(kept)})
        with pytest.raises(AssertionError, match="database space exceeded"):
            for number in range(40):
                etcd.fill({"/registry/configmaps/demo/growing": str(number % 10) * MIB})
        yield etcd


def taking_writes(etcd: etcd_cluster.Etcd) -> bool:
    return etcd.etcdctl("cp-0", "put", "/registry/pods/new", "value", check=False).returncode == 0


def alarms(etcd: etcd_cluster.Etcd) -> str:
    return etcd.etcdctl("cp-0", "alarm", "list").stdout.strip()


def restored_up_to_its_start(etcd: etcd_cluster.Etcd, name: str) -> None:
    for state in ("prepared", "aside", "placed"):
        if state == "aside":
            etcd.stop("cp-0")
        done = restore(etcd, state, snapshot=name)
        assert not done.get("failed"), done
    etcd.start("cp-0")
    deadline = time.monotonic() + WAIT_S
    # Its health is that it takes writes.
    while etcd.etcdctl("cp-0", "get", "health", check=False).returncode:
        assert time.monotonic() < deadline, (etcd.directory / "cp-0.log").read_text()[-2000:]
        time.sleep(0.1)


@pytest.mark.parametrize("killed", [False, True], ids=["", "cut off"])
def test_a_snapshot_that_was_taken_while_the_quota_was_used_up(tmp_path: Path, killed: bool) -> None:
    """The alarm is in its data, and so is the history that filled the quota. The restored etcd takes writes."""
    with used_up(tmp_path, kept=3) as etcd:
        restored_up_to_its_start(etcd, taken(etcd))
        # What etcd does by itself: the alarm of a member that is gone, and no writes.
        assert alarms(etcd).endswith("alarm:NOSPACE") and not taking_writes(etcd)
        if killed:
            command, environment = etcd.module("etcd_restore", "cp-0", **options(etcd, "serving"))
            process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
            deadline = time.monotonic() + WAIT_S
            while etcd.statuses()["cp-0"]["dbSize"] > QUOTA // 2:
                assert time.monotonic() < deadline and process.poll() is None
            process.kill()
            process.wait()
        done = restore(etcd, "serving")
        assert done["changed"] and done["plan"][-1] == "clear the alarm NOSPACE: there is room again", done
        assert [line.partition(":")[0] for line in done["plan"]] == [
            *("compact etcd's history", "defragment cp-0", "clear the alarm NOSPACE"),
        ]
        assert alarms(etcd) == "" and taking_writes(etcd)
        assert etcd.statuses()["cp-0"]["dbSize"] < QUOTA // 2 and pods(etcd) == 3 + 1
        assert restore(etcd, "serving") | {"revision": 0} == {"changed": False, "plan": [], "revision": 0}


def test_a_snapshot_whose_values_fill_the_quota(tmp_path: Path) -> None:
    with used_up(tmp_path, kept=8) as etcd:
        name = taken(etcd)
        for check in (True, False):
            refused = restore(etcd, "prepared", check, snapshot=name, quota=8 * MIB)
            assert refused["failed"], refused
            assert (
                f"what is in {name} takes 10 MiB without its history, and fills etcd's quota of 8 MiB" in refused["msg"]
            )
        assert [path.name for path in (etcd.directory / "cp-0").iterdir()] == ["member"]
        # etcd's own quota is another one than the description's, or they are nearly the same.
        etcd.flags = [f"--quota-backend-bytes={8 * MIB}"]
        restored_up_to_its_start(etcd, name)
        refused = restore(etcd, "serving")
        assert refused["failed"] and "what is in it still fills its quota (cp-0: 9." in refused["msg"], refused
        assert "etcdctl del --prefix /registry/events/" in refused["msg"] and not taking_writes(etcd)
        # The way out that it names.
        etcd.etcdctl("cp-0", "del", "/registry/pods/0", "/registry/pods/4")
        assert restore(etcd, "serving")["changed"] and taking_writes(etcd)


CUTS = ["prepared", "aside", "placed"]


@pytest.mark.parametrize("cut", CUTS)
def test_cut_off_after_any_state_the_next_run_ends_the_same(etcd: etcd_cluster.Etcd, cut: str) -> None:
    """The playbook calls all states again, but for those before `placed` once that is reached."""
    name = taken(etcd)
    etcd.etcdctl("cp-0", "del", "--prefix", "/registry/pods/")
    for attempt in range(2):
        placed = told(etcd)["restoring"].get("placed", False)
        for state in ("prepared", "aside", "placed", "serving", "finished"):
            if placed and state == "aside":
                continue
            if state == "aside":
                etcd.stop("cp-0")
            if state == "serving" and etcd.members["cp-0"].process is None:
                etcd.start("cp-0")
            done = restore(etcd, state, snapshot=name)
            assert not done.get("failed"), (state, done)
            if not attempt and state == cut:
                break
    assert pods(etcd) == KEYS and told(etcd)["set_aside"] == [ID]
    assert sorted(path.name for path in (etcd.directory / "cp-0").iterdir()) == ["member", f"member-before-{ID}"]


def test_one_that_was_only_prepared_gives_way_to_another(etcd: etcd_cluster.Etcd) -> None:
    first = taken(etcd)
    assert restore(etcd, "prepared", snapshot=first)["changed"]
    etcd.fill({"/registry/pods/more": "x"})
    second = taken(etcd)
    assert restore(etcd, "prepared", snapshot=second, id=LATER)["changed"]
    assert told(etcd)["restoring"]["snapshot"] == second
    assert sorted(path.name for path in (etcd.directory / "cp-0").iterdir()) == ["member", f"restored-{LATER}"]
    # On a node that is not the source this time, the next state removes it.
    etcd.stop("cp-0")
    assert restore(etcd, "aside", id="20261129T201500Z")["changed"]
    assert told(etcd)["restoring"] == {}
    assert [path.name for path in (etcd.directory / "cp-0").iterdir()] == ["member-before-20261129T201500Z"]
    refused = restore(etcd, "placed", id="20261129T201500Z")
    assert refused["failed"] and refused["msg"].startswith("no data was prepared for the restore 20261129T201500Z")


def test_a_member_without_data_is_marked_all_the_same(etcd: etcd_cluster.Etcd) -> None:
    """So that a later call does not take for old what the member has joined with."""
    etcd.stop("cp-0")
    living = etcd.directory / "cp-0" / "member"
    shutil.rmtree(living)
    assert restore(etcd, "aside")["changed"]
    living.mkdir()
    assert not restore(etcd, "aside")["changed"] and living.exists()


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("of another cluster", {"nodes": ["other-1"]}, "its members are cp-0, and this cluster's other-1"),
    ("of another CA", {"authority": CA.replace("AAAA", "BBBB")}, "is of another cluster: it has another CA"),
    (
        "without its key",
        {"encryption_prefixes": ["k8s:enc:secretbox:v1:key-3:"]},
        "the encryption key key-2 (secretbox)",
    ),
    ("that is not there", {"snapshot": "20261129T181500Z_etcd-3.6.14_rev-1_x.db"}, "_x.db is not there"),
    ("an id that is none", {"id": "now"}, "id: now is no time such as 20261129T180210Z"),
]


@pytest.mark.parametrize(("case", "given", "said"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_does_not_serve_is_refused_before_anything_changes(
    kept: etcd_cluster.Etcd, case: str, given: dict[str, Any], said: str
) -> None:
    name = taken(kept)
    for check in (True, False):
        result = restore(kept, "prepared", check, **{"snapshot": name, **given})
        assert result["failed"] and said in result["msg"], result
    assert [path.name for path in (kept.directory / "cp-0").iterdir()] == ["member"]
    assert told(kept)["restoring"] == {}


def test_a_damaged_one_and_one_of_a_newer_etcd_are_refused(kept: etcd_cluster.Etcd) -> None:
    name = taken(kept)
    place = kept.directory / "snapshots"
    newer = name.replace("_etcd-3.6.", "_etcd-3.7.")
    shutil.copy(place / name, place / newer)
    result = restore(kept, "prepared", snapshot=newer)
    assert result["failed"] and "was taken by etcd 3.7." in result["msg"] and "upgrade.yml" in result["msg"]
    with (place / name).open("r+b") as stream:
        stream.seek(9000)
        stream.write(b"damage")
    result = restore(kept, "prepared", snapshot=name)
    assert result["failed"] and "is not what its SHA-256 was made of" in result["msg"]
    assert [path.name for path in (kept.directory / "cp-0").iterdir()] == ["member"]


def test_the_modules_take_what_their_documentation_says(kept: etcd_cluster.Etcd, tmp_path: Path) -> None:
    """Through Ansible itself, which checks the options."""
    name = taken(kept)
    programs = kept.members["cp-0"].programs
    common = {"etcdctl": str(programs / "etcdctl"), "environment": str(kept.environment("cp-0"))}
    info = {name: options(kept, "placed")[name] for name in ("directory", "record", "data_dir")}
    results, _said = ansible_program.run_tasks(
        tmp_path,
        [
            {"k8sgu.cluster.etcd_snapshot_info": {**info, **common}, "register": "info"},
            {
                "k8sgu.cluster.etcd_restore": {**options(kept, "prepared", snapshot=name), **common},
                "register": "prepared",
            },
            {"k8sgu.cluster.etcd_restore": {"id": ID, "state": "prepared"}, "register": "bad", "ignore_errors": True},
        ],
        variables={},
    )
    assert name in results["info"]["snapshots"] and results["info"]["revision"] > KEYS
    assert results["info"]["installed"] and results["info"]["free"] > 0
    assert 0 < results["info"]["database"]["used"] <= results["info"]["database"]["size"]
    assert results["prepared"]["changed"], json.dumps(results["prepared"])
    assert "state is prepared but all of the following are missing: snapshot, name" in results["bad"]["msg"]
