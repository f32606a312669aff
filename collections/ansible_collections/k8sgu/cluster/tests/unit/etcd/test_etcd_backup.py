# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Snapshots that members of etcd take by themselves: when each is due, which stay, and what the program says."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.k8sgu.cluster.plugins.filter.snapshot_calendar import snapshot_calendar
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import backup, etcd_snapshot, schedule, snapshots
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.etcdctl import EtcdError
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.snapshots import Snapshot
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call

NOON = datetime.datetime(2026, 11, 29, 12, 0, 0, tzinfo=datetime.timezone.utc)
DAY_S = 24 * 3600
MIB = 2**20


def times(calendar: str) -> list[int]:
    """The seconds of a day at which a calendar expression is due, as systemd.time(7) has it."""
    match = re.fullmatch(r"\*-\*-\* ([\d*/]+):([\d/]+):(\d+) UTC", calendar)
    assert match, calendar

    def values(part: str, most: int) -> list[int]:
        if part == "*":
            return list(range(most))
        first, _slash, step = part.partition("/")
        return list(range(int(first), most, int(step))) if step else [int(first)]

    return [
        hour * 3600 + minute * 60 + int(match[3]) for hour in values(match[1], 24) for minute in values(match[2], 60)
    ]


@pytest.mark.parametrize("members", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("minutes", schedule.INTERVALS)
def test_members_share_the_interval_evenly(minutes: int, members: int) -> None:
    names = [f"demo-control-plane-{number}" for number in range(members)]
    due = {name: times(schedule.calendar(minutes, name, names)) for name in names}
    for name in names:
        gaps = [later - earlier for earlier, later in zip(due[name], [*due[name][1:], due[name][0] + DAY_S])]
        assert gaps == [minutes * 60] * (DAY_S // (minutes * 60)), name
    together = sorted(second for name in names for second in due[name])
    gaps = {later - earlier for earlier, later in zip(together, [*together[1:], together[0] + DAY_S])}
    # Seconds are whole.
    assert max(gaps) - min(gaps) <= 1 and min(gaps) == minutes * 60 // members


def test_a_members_times_do_not_depend_on_the_order_of_the_inventory() -> None:
    assert schedule.calendar(15, "b", ["a", "b", "c"]) == "*-*-* *:05/15:00 UTC"
    assert schedule.calendar(15, "b", ["c", "b", "a"]) == "*-*-* *:05/15:00 UTC"
    assert schedule.calendar(120, "b", ["a", "b", "c"]) == "*-*-* 00/2:40:00 UTC"


@pytest.mark.parametrize("minutes", [-15, 7, 25, 45, 90, 300, 1441, 2880])
def test_an_interval_that_does_not_fit_is_refused(minutes: int) -> None:
    assert schedule.problem(minutes).startswith(f"every {minutes} minutes does not fit into an hour or a day evenly; ")
    with pytest.raises(AnsibleFilterError, match="does not fit"):
        snapshot_calendar(["a"], "a", minutes)


def test_the_filter_says_what_it_was_given() -> None:
    assert snapshot_calendar(["a", "b"], "a", "15") == "*-*-* *:00/15:00 UTC"
    with pytest.raises(AnsibleFilterError, match=r"c is not among the members \(a, b\)"):
        snapshot_calendar(["a", "b"], "c", 15)
    with pytest.raises(AnsibleFilterError, match="0 is for none"):
        snapshot_calendar(["a"], "a", 0)


def taken(minutes_ago: int, series: str = "backup") -> Snapshot:
    return Snapshot(NOON - datetime.timedelta(minutes=minutes_ago), "3.6.14", 1000 - minutes_ago, series)


def gone(found: list[Snapshot], keep: int, each: int, free: int, percent: int = 50) -> list[int]:
    """How many minutes ago those were taken that go, where each has `each` MiB and `free` MiB are free beside them."""
    sizes = {one.name: each * MIB for one in found}
    return [
        int((NOON - one.taken).total_seconds()) // 60
        for one, _why in snapshots.surplus(found, "backup", keep, sizes, free * MIB, percent)
    ]


@pytest.mark.parametrize(
    ("keep", "each", "free", "expected"),
    [
        (96, 20, 10000, []),
        (3, 20, 10000, [45, 60]),
        # 500 MiB together and 500 free: half of that is what they have.
        (96, 100, 500, []),
        (96, 100, 499, [60]),
        (96, 100, 100, [45, 60]),
        (2, 100, 100, [30, 45, 60]),
        (96, 4096, 0, [30, 45, 60]),
        (96, 4096, 4096, [45, 60]),
        (1, 4096, 0, [15, 30, 45, 60]),
    ],
)
def test_backups_never_have_more_than_their_part_of_the_disk(
    keep: int, each: int, free: int, expected: list[int]
) -> None:
    found = [taken(minutes) for minutes in (0, 15, 30, 45, 60)]
    assert gone(found, keep, each, free) == expected


def test_the_newest_stays_however_large_it_is() -> None:
    assert gone([taken(0), taken(15)], 96, 4096, 0, percent=10) == [15]
    assert gone([taken(0)], 96, 4096, 100) == []


def test_without_a_part_of_the_disk_the_number_alone_counts() -> None:
    found = [taken(minutes) for minutes in (0, 15, 30)]
    assert gone(found, 3, 4096, 0, percent=100) == []


def test_other_series_are_neither_removed_nor_counted() -> None:
    found = [taken(0), taken(5, "upgrade"), taken(15), taken(20, "manual")]
    assert gone(found, 1, 100, 10000) == [15]


class Runs:
    """Stands for the module: what each call of it gives, an error or a result. `slept` and `now` are the program's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: Any) -> None:
        self.answers = list(answers)
        self.calls: list[Call] = []
        self.now = 0.0
        monkeypatch.setattr(etcd_snapshot, "run", self.run)
        monkeypatch.setattr(backup.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(backup.time, "sleep", self.sleep)

    def run(self, call: Call) -> dict[str, Any]:
        self.calls.append(call)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


RESULT = {
    "path": "/s/20261129T120000Z_etcd-3.6.14_rev-7_backup.db",
    "plan": ["take a snapshot", "remove one", "remove two"],
    "revision": 7,
    "keys": 5,
    "bytes": 20512,
    "seconds": 0.31,
}


def test_a_snapshot_is_one_line_and_its_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    runs = Runs(monkeypatch, RESULT)
    assert backup.main(["--keep=5", f"--metrics={tmp_path}"]) == 0
    assert capsys.readouterr() == (
        "20261129T120000Z_etcd-3.6.14_rev-7_backup.db: revision 7, 5 keys, 20512 bytes, 0.31 s; 2 older removed\n",
        "",
    )
    options = runs.calls[0].options
    assert (options["series"], options["label"], options["keep"]) == ("backup", "", 5)
    assert (options["directory"], options["disk_percent"]) == ("/var/lib/k8sgu/snapshots", 50)
    assert (tmp_path / "etcd-snapshot.prom").read_text().splitlines()[1:] == [
        "# TYPE k8sgu_etcd_snapshot_timestamp_seconds gauge",
        f"k8sgu_etcd_snapshot_timestamp_seconds {int(NOON.timestamp())}",
    ]


def test_a_snapshot_counts_also_where_its_time_cannot_be_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "metrics").write_text("")
    runs = Runs(monkeypatch, RESULT)
    assert backup.main(["--keep=5", f"--metrics={tmp_path / 'metrics'}"]) == 0
    said = capsys.readouterr()
    assert len(runs.calls) == 1 and said.out.count("\n") == 1 and said.err.startswith("no metrics were written: ")


def test_a_member_that_is_restarted_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    runs = Runs(monkeypatch, EtcdError("it does not serve"), EtcdError("it does not serve"), RESULT)
    assert backup.main(["--keep=5", f"--metrics={tmp_path}"]) == 0
    assert len(runs.calls) == 3 and capsys.readouterr().err == ""


@pytest.mark.parametrize(("patience", "calls"), [("0", 1), ("60", 13)])
def test_what_does_not_end_is_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, patience: str, calls: int
) -> None:
    runs = Runs(monkeypatch, EtcdError("no snapshot was taken: there is no room"))
    assert backup.main(["--keep=5", f"--patience={patience}", f"--metrics={tmp_path}"]) == 1
    assert len(runs.calls) == calls and not any(tmp_path.iterdir())
    assert capsys.readouterr() == ("", "no snapshot was taken: there is no room\n")


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    settings = tmp_path / "env"
    settings.write_text("")
    given = [f"--directory={tmp_path / 'file'}", f"--environment={settings}", "--etcdctl=/nonexistent/etcdctl"]
    assert backup.main(["--keep=5", "--patience=0", *given]) == 1
    assert "etcd on this node does not serve" in capsys.readouterr().err
