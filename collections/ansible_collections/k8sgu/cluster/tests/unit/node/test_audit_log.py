# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who did what: periods, filters, rotated files, truncated lines."""

from __future__ import annotations

import datetime
import json
import os

import pytest

from ansible_collections.k8sgu.cluster.plugins.filter.audit_table import audit_table
from ansible_collections.k8sgu.cluster.plugins.module_utils._node.audit_events import AuditError, Wanted, moment, search

NOW = datetime.datetime(2026, 11, 23, 12, 0, tzinfo=datetime.timezone.utc)


def event(minute, user="alice", verb="delete", resource="secrets", name="db", **more):
    subresource = more.pop("subresource", "")
    reference = {"resource": resource, "namespace": "demo", "name": name, "apiGroup": "", "subresource": subresource}
    return {
        "stage": "ResponseComplete", "auditID": f"{minute}", "verb": verb, "user": {"username": user},
        "objectRef": reference, "responseStatus": {"code": 200}, "sourceIPs": ["198.51.100.7"], "userAgent": "kubectl",
        "requestURI": "/x?y", "requestReceivedTimestamp": f"2026-11-23T11:{minute:02d}:00.000000Z", **more,
    }  # fmt: skip


def write(path, *events, tail=""):
    path.write_text("".join(json.dumps(one) + "\n" for one in events) + tail)
    return path


def wanted(since="2h", **filters):
    return Wanted(moment(since, "since", NOW), NOW, **filters)


def minutes(path, limit=100, **filters):
    rows, _found = search(path, "node", wanted(**filters), limit)
    return [int(one["id"]) for one in rows]


def test_rotated_files_and_truncated_lines(tmp_path):
    log = write(tmp_path / "audit.log", event(30), tail='{"stage": "Respon')
    write(tmp_path / "audit-2026-11-23T11-20-00.000.log", event(10), event(20), tail="\n")
    write(tmp_path / "other.log", event(40))
    assert minutes(log) == [10, 20, 30]


def test_a_rotated_file_older_than_the_window_is_not_read(tmp_path):
    log = write(tmp_path / "audit.log", event(30))
    old = write(tmp_path / "audit-old.log", event(20))
    long_ago = (NOW - datetime.timedelta(days=1)).timestamp()
    os.utime(old, (long_ago, long_ago))
    os.utime(log, (long_ago, long_ago))  # the current one counts always
    assert minutes(log) == [30]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, [10, 20, 30]),
        ({"since": "45m"}, [20, 30]),
        ({"since": "2026-11-23T11:25:00Z"}, [30]),
        ({"users": ["al*"]}, [10]),
        ({"users": ["carol"]}, [30]),  # whom bob acted as
        ({"verbs": ["get", "list"]}, [20]),
        ({"resources": ["pods"]}, [30]),
        ({"resources": ["pods/exec"]}, [30]),
        ({"resources": ["secrets"], "names": ["d?"]}, [10]),
        ({"namespaces": ["kube-*"]}, []),
    ],
)
def test_filters(tmp_path, filters, found):
    log = write(
        tmp_path / "audit.log",
        event(10),
        event(20, user="bob", verb="get", name="other"),
        event(30, user="bob", resource="pods", subresource="exec", impersonatedUser={"username": "carol"}),
        {**event(31), "stage": "ResponseStarted"},
    )
    assert minutes(log, **filters) == found


def test_the_newest_are_kept_and_the_rest_counted(tmp_path):
    log = write(tmp_path / "audit.log", event(30), event(10), event(20))
    rows, found = search(log, "node", wanted(), 2)
    assert ([one["id"] for one in rows], found) == (["20", "30"], 3)


@pytest.mark.parametrize("text", ["yesterday", "", "12", "-1h", "1w"])
def test_a_time_that_is_none(text):
    with pytest.raises(AuditError, match=r"^since: .* such as 90m, 2h or 3d"):
        moment(text, "since", NOW)


def test_a_node_without_a_log(tmp_path):
    with pytest.raises(AuditError, match="is this a control-plane node"):
        search(tmp_path / "audit.log", "node", wanted(), 1)


def test_the_name_of_what_was_created(tmp_path):
    created = event(10, verb="create", name="", requestObject={"metadata": {"name": "new"}})
    rows, _found = search(write(tmp_path / "audit.log", created), "node", wanted(), 1)
    assert rows[0]["name"] == "new"


def test_table(tmp_path):
    log = write(tmp_path / "audit.log", event(10), event(5, impersonatedUser={"username": "carol"}))
    lines = audit_table(search(log, "node", wanted(), 9)[0])
    assert [line.split() for line in lines[1:]] == [
        ["2026-11-23T11:05:00Z", "alice", "as", "carol", "delete", "secrets", "demo/db", "200", "198.51.100.7"],
        ["2026-11-23T11:10:00Z", "alice", "delete", "secrets", "demo/db", "200", "198.51.100.7"],
    ]
