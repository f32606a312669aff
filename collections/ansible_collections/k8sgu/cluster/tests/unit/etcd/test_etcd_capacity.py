# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What etcd's database needs, of what is intended and of what is there, and each input that is bad."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.filter.capacity_report import capacity_report
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import capacity, pages, quota
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.capacity import CapacityError, Reading
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.capacity_report import report

MIB, GIB = 1 << 20, 1 << 30
NOW = datetime.datetime(2026, 11, 29, 18, 0, tzinfo=datetime.timezone.utc)
DAY = 86400
METRICS = """
# TYPE apiserver_resource_objects gauge
apiserver_resource_objects{group="",resource="nodes"} 2
apiserver_resource_objects{group="",resource="pods"} 10
apiserver_resource_objects{group="",resource="events"} 92
apiserver_resource_objects{group="",resource="secrets"} 500
apiserver_resource_objects{group="batch",resource="jobs"} 0
apiserver_resource_objects{group="test.k8sgu.io",resource="widgets"} -1
apiserver_resource_size_estimate_bytes{group="",resource="nodes"} 7264
apiserver_resource_size_estimate_bytes{group="",resource="pods"} 51580
apiserver_resource_size_estimate_bytes{group="",resource="events"} -1
apiserver_resource_size_estimate_bytes{group="",resource="secrets"} 1150000
"""
OLD_METRICS = 'apiserver_storage_objects{resource="pods"} 10\napiserver_storage_objects{resource="jobs.batch"} 3\n'
TOLD = {
    "cp-0": {"snapshots": [], "revision": 90_000, "database": {"size": 6 * MIB, "used": 5 * MIB}},
    "cp-1": {"snapshots": [], "revision": 90_001, "database": {"size": 5 * MIB, "used": 4 * MIB}},
    "cp-2": {},
}


def made(expected: Any = None, earlier: Any = None, size: int = 4 * GIB, percent: int = 45, **more: Any) -> Any:
    metrics = {"rc": 0, "stdout": METRICS, **more.get("metrics", {})}
    text = json.dumps(earlier) if earlier else ""
    return report(expected or {}, metrics, more.get("told", TOLD), text, size, percent, NOW)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        # Many to a page of 4 KiB, of which nine tenths are filled.
        (67, 4096 / 36),
        # Two take two pages, or three: measured in the lab as 3998 and 6089 bytes.
        (2538, 4096),
        (4606, 6144),
        (1_000_000, 1_001_472),
    ],
)
def test_what_one_of_many_values_takes(message: int, expected: float) -> None:
    assert pages.each(message) == pytest.approx(expected, rel=0.01)
    assert pages.packed([message] * 5000) / 5000 == pytest.approx(expected, rel=0.1)


def test_an_empty_database_has_a_few_pages() -> None:
    assert 0 < pages.packed([]) < 100_000


def test_a_small_cluster_that_is_intended() -> None:
    found = made({"nodes": 2, "control_plane_nodes": 1, "pods": 10}).document
    assert found["source"] == "what is intended" and found["problems"] == []
    # As measured in the lab: 0.6 MiB after a compaction, and 1.4 writes a second.
    assert found["bytes"]["live"] == pytest.approx(622_592, rel=0.2)
    assert found["writes_per_second"] == pytest.approx(1.4, rel=0.2)
    assert (found["machine"], found["suggested_quota"]) == ("small", GIB)
    assert (found["growth_bytes_per_day"], found["quota_used_up_in_days"]) == (0, None)
    assert found["disk"]["volume_gib"] == quota.volume_gib(GIB)


def test_growth_ends_at_the_quota() -> None:
    expected = {"nodes": 10, "others": [{"name": "reports", "count": 1000, "bytes": 8000, "per_day": 1000}]}
    found = made(expected)
    each = pages.each(pages.message(capacity.KEY, 8000 + capacity.METADATA))
    assert found.document["growth_bytes_per_day"] == pytest.approx(1000 * each, abs=1)
    days = (4 * GIB - found.document["bytes"]["file"]) * 0.55 / (1000 * each)
    assert found.document["quota_used_up_in_days"] == pytest.approx(days, abs=0.1)
    # Half a year of it, with free pages and a quarter to spare.
    assert found.document["suggested_quota"] == 4 * GIB
    assert any(line.startswith("quota of 4 GiB used up") and "days" in line for line in found.lines)


def test_sizes_as_the_machines_of_etcd_s_own_table() -> None:
    told = [made({"nodes": nodes}).document["machine"] for nodes in (50, 51, 250, 1000, 1001, 5000)]
    assert told == ["small", "medium", "medium", "large", "xLarge", "xLarge"]


@pytest.mark.parametrize(
    ("expected", "size", "problem"),
    [
        (
            {"nodes": 100, "others": [{"name": "reports", "count": 0, "bytes": 20000, "per_day": 3000}]},
            4 * GIB,
            "the quota (4 GiB) may be used up in 3",
        ),
        (
            {"nodes": 100, "secrets": {"count": 1_000_000, "bytes": 5000}},
            8 * GIB,
            "the database needs 10",
        ),
        ({"nodes": 10, "secrets": {"count": 10_000, "bytes": 5000}}, 64 * MIB, "(64 MiB) may be used up today"),
        ({"nodes": 5001}, 4 * GIB, "5001 nodes are more than Kubernetes is made for, 5000"),
        ({"nodes": 5000, "pods": 150_001}, 4 * GIB, "150001 pods are more than Kubernetes is made for, 150000"),
        ({"nodes": 1, "pods": 111}, 4 * GIB, "111 pods a node are more than Kubernetes is made for, 110"),
    ],
)
def test_what_does_not_do_is_said(expected: dict[str, Any], size: int, problem: str) -> None:
    assert any(problem in one for one in made(expected, size=size).problems), made(expected, size=size).problems


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        ("many", "k8sgu_etcd_expected: 'many' is no dictionary; give one such as {nodes: 100"),
        ({"pods": 10}, "k8sgu_etcd_expected.nodes: missing; how many nodes?"),
        ({"nodes": 0}, "k8sgu_etcd_expected.nodes: 0; how many nodes?"),
        ({"nodes": 3, "pods": -1}, "k8sgu_etcd_expected.pods: -1; give a number that is 0 or more"),
        ({"nodes": "few"}, "k8sgu_etcd_expected.nodes: 'few'; give a number"),
        ({"nodes": True}, "k8sgu_etcd_expected.nodes: True; give a number"),
        ({"nodes": 3, "events_per_hour": "inf"}, "k8sgu_etcd_expected.events_per_hour: 'inf'; give a number"),
        ({"nodes": 3, "podz": 5}, "k8sgu_etcd_expected.podz: there is no such key; did you mean pods?"),
        ({"nodes": 3, "x": 5}, "k8sgu_etcd_expected.x: there is no such key; there are nodes, "),
        ({"nodes": 3, "secrets": 500}, "k8sgu_etcd_expected.secrets: 500 is no dictionary; give {count: 500"),
        ({"nodes": 3, "secrets": {"count": 5}}, "k8sgu_etcd_expected.secrets.bytes: missing"),
        ({"nodes": 3, "secrets": {"count": 5, "bytes": 9, "size": 1}}, "k8sgu_etcd_expected.secrets.size: there is no"),
        (
            {"nodes": 3, "configmaps": {"count": 5, "bytes": 2_000_000}},
            "k8sgu_etcd_expected.configmaps.bytes: 2e+06 is more than etcd takes in one request, 1572864",
        ),
        ({"nodes": 3, "others": {"name": "x"}}, "k8sgu_etcd_expected.others: {'name': 'x'} is no list"),
        ({"nodes": 3, "others": [{"count": 5, "bytes": 9}]}, "k8sgu_etcd_expected.others[0]: "),
        ({"nodes": 3, "others": [{"name": "x", "count": -5, "bytes": 9}]}, "others[0].count: -5; give a number"),
    ],
)
def test_what_is_intended_wrongly_is_one_error(expected: Any, said: str) -> None:
    with pytest.raises(CapacityError) as error:
        made(expected)
    assert said in str(error.value) and "; give a number that is 0 or more; give" not in str(error.value)
    assert str(error.value).count("k8sgu_etcd_expected") == 1
    told = capacity_report(expected, {}, {}, "", 4 * GIB, 45)
    assert told == {"document": {}, "lines": [], "problems": [], "fault": str(error.value)}


def test_every_fault_of_what_is_intended_is_told_at_once() -> None:
    with pytest.raises(CapacityError) as error:
        made({"pods": -1, "nodez": 4, "secrets": {"count": "x", "bytes": 1}})
    assert str(error.value).count("k8sgu_etcd_expected.") == 4


def test_what_is_there() -> None:
    found = made(told={**TOLD, "cp-2": {"snapshots": [name(7200, 82_800)], "revision": 0, "database": {}}})
    document = found.document
    kinds = {kind["name"]: kind for kind in document["kinds"]}
    # What is 0, and what could not be counted, is not told.
    assert sorted(kinds) == ["events", "nodes", "pods", "secrets"]
    assert (kinds["secrets"]["count"], kinds["secrets"]["bytes"], kinds["events"]["guess"]) == (500, 2300, "its size")
    assert document["bytes"]["measured_used"] == 5 * MIB and document["bytes"]["used"] >= 5 * MIB
    # 7201 revisions in two hours.
    assert document["writes_per_second"] == 1.0
    assert document["growth_bytes_per_day"] is None and document["quota_used_up_in_days"] is None
    assert document["readings"] == [[NOW.timestamp(), 90_001, 5 * MIB]]
    assert document["guesses"] == ["the size of events", "what a write stores, 800 bytes"]
    assert "2 nodes, 10 pods, 604 keys" in found.lines[0]


def name(seconds_ago: int, revision: int) -> str:
    taken = NOW - datetime.timedelta(seconds=seconds_ago)
    return f"{taken:%Y%m%dT%H%M%SZ}_etcd-3.6.14_rev-{revision}_backup.db"


def test_growth_is_between_readings_a_day_apart() -> None:
    at = NOW.timestamp()
    earlier = {"readings": [[at - 100 * DAY, 1, 1], [at - 2 * DAY, 70_000, 3 * MIB], [at - 60, 90_000, 5 * MIB]]}
    document = made(earlier=earlier).document
    assert document["growth_bytes_per_day"] == MIB
    assert document["quota_used_up_in_days"] == pytest.approx(
        (4 * GIB / MIB - document["bytes"]["file"] / MIB) * 0.55, abs=1
    )
    # The oldest is forgotten, and this one is kept.
    assert [one[1] for one in document["readings"]] == [70_000, 90_000, 90_001]
    # What one intends is no reading, and loses none.
    kept = made({"nodes": 3}, earlier=earlier).document["readings"]
    assert [one[1] for one in kept] == [70_000, 90_000]


@pytest.mark.parametrize("earlier", ["", "{", "[]", '{"readings": 5}', '{"readings": [[1]]}'])
def test_an_earlier_document_that_is_none(earlier: str) -> None:
    told = capacity_report({}, {"rc": 0, "stdout": METRICS}, TOLD, earlier, 4 * GIB, 45)
    assert told["fault"] == "" and len(told["document"]["readings"]) == 1


def test_without_an_earlier_reading_the_writes_are_a_guess() -> None:
    assert any(guess.startswith("writes a second, since there is neither") for guess in made().document["guesses"])
    # A restore puts revisions up by a thousand million.
    restored = {"readings": [[NOW.timestamp() - 3600, 1_000_000_000_000, MIB]]}
    assert any(guess.startswith("writes a second") for guess in made(earlier=restored).document["guesses"])


def test_api_servers_before_1_34_tell_no_sizes() -> None:
    found = made(metrics={"stdout": OLD_METRICS})
    kinds = {kind["name"]: kind for kind in found.document["kinds"]}
    assert (kinds["pods"]["count"], kinds["jobs.batch"]["count"], kinds["pods"]["guess"]) == (10, 3, "its size")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"metrics": {"rc": 1, "stdout": "", "stderr": "connection refused\n"}},
            "the API server's metrics cannot be read: connection refused; see playbooks/verify.yml, or say what",
        ),
        ({"metrics": {"rc": None, "stdout": ""}}, "cannot be read: no answer"),
        ({"metrics": {"stdout": "up 1\n"}}, "have no apiserver_resource_objects and no apiserver_storage_objects"),
        (
            {
                "metrics": {
                    "stdout": METRICS.replace("} 2", "} 0")
                    .replace("} 10\n", "} 0\n")
                    .replace("} 92", "} 0")
                    .replace("} 500", "} 0")
                }
            },
            "have no apiserver_resource_objects",
        ),
        ({"told": {"cp-0": {}}}, "no member of etcd says how large its database is; start one"),
        ({"told": {}}, "no member of etcd says"),
    ],
)
def test_a_cluster_that_cannot_be_read(more: dict[str, Any], said: str) -> None:
    with pytest.raises(CapacityError, match="k8sgu_etcd_expected") as error:
        made(**more)
    assert said in str(error.value)


def test_without_defragmentation_half_of_the_file_may_be_free() -> None:
    found = made({"nodes": 3}, percent=0).document["bytes"]
    assert found["file"] == pytest.approx(2 * found["used"], rel=0.001)


def test_growth_that_is_negative_never_fills_the_quota() -> None:
    readings = [Reading(0, 1, 5 * MIB), Reading(2 * DAY, 2, 3 * MIB)]
    load = capacity.found([capacity.Kind("pods", 1, 5000)], {"used": 3 * MIB, "size": 5 * MIB}, readings)
    assert load.growth == -MIB
    assert capacity.calculate(load, 4 * GIB, 45).full_days is None
