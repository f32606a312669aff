# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which snapshot a member has to put into the bucket, and what it says where it cannot."""

from __future__ import annotations

import datetime
import json

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import snapshots, upload
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.snapshots import Snapshot

NOON = datetime.datetime(2026, 11, 30, 12, 0, 0, tzinfo=datetime.timezone.utc)


def name(minutes: int, series: str = "backup") -> str:
    """Of a snapshot that was taken these minutes after noon."""
    return Snapshot(NOON + datetime.timedelta(minutes=minutes), "3.6.14", 1000 + minutes, series).name


@pytest.mark.parametrize(
    ("names", "uploaded", "wanted"),
    [
        ([], "", None),
        ([name(-30), name(-15)], "", name(-15)),
        ([name(-30), name(-15)], name(-30), name(-15)),
        ([name(-30), name(-15)], name(-15), None),
        # It was removed since; an older one is no news.
        ([name(-30)], name(-15), None),
        ([name(-5, "upgrade"), "note.txt", ".taking.7.01234567"], "", None),
        # Dated by a clock that ran ahead, and what was put there by it.
        ([name(60), name(-15)], "", name(-15)),
        ([name(60), name(-15)], name(60), name(-15)),
        ([name(-15)], "something else", name(-15)),
    ],
)
def test_the_newest_is_put_there_once(names: list[str], uploaded: str, wanted: str | None) -> None:
    found = upload.newest(names, uploaded, NOON)
    assert (found.name if found else None) == wanted


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"name": "a"}'])
def test_a_record_that_cannot_be_read_is_none(text: str) -> None:
    assert snapshots.uploaded(text) == {}


def test_a_record() -> None:
    written = {"name": name(0), "to": "s3://b/demo/etcd/", "at": "20261130T120001Z", "bytes": 5, "seconds": 0.1}
    assert snapshots.uploaded(json.dumps(written)) == {"name": name(0), "to": "s3://b/demo/etcd/"}


def answered(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "as S3 says it"}}, "PutObject")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (answered("NoSuchBucket"), "run playbooks/infrastructure.yml, which makes it (NoSuchBucket)"),
        (answered("AccessDenied"), "this node's role may not put it there"),
        (answered("PermanentRedirect"), "in another region"),
        (answered("RequestTimeTooSkewed"), "chronyc tracking"),
        (answered("SlowDown"), "as S3 says it"),
        (NoCredentialsError(), "this node's role gives no credentials"),
        (EndpointConnectionError(endpoint_url="https://b.s3.us-east-1.amazonaws.com"), "it needs a way out"),
    ],
)
def test_what_is_wrong_is_told_with_the_way_out(error: Exception, told: str) -> None:
    assert told in upload.reason(error)
