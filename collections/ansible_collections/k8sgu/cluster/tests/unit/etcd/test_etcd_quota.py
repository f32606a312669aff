# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disk that a quota needs, and the quota that the defaults have."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import quota

COLLECTION = Path(__file__).resolve().parents[3]


def default(role: str, name: str) -> int:
    return int(yaml.safe_load((COLLECTION / f"roles/{role}/defaults/main.yml").read_text())[name])


@pytest.mark.parametrize(
    ("size", "volume", "root", "beside"),
    [
        (quota.LEAST, 1, 6, 6),
        (256 * quota.MIB, 1, 7, 6),
        (quota.GIB, 3, 9, 8),
        (4 * quota.GIB, 9, 19, 15),
        (quota.MOST, 18, 32, 23),
    ],
)
def test_the_disk_that_a_quota_needs(size: int, volume: int, root: int, beside: int) -> None:
    assert (quota.volume_gib(size), quota.root_gib(size, False), quota.root_gib(size, True)) == (volume, root, beside)
    assert quota.disk_faults(size, 0, root) == [] == quota.disk_faults(size, volume, beside)
    assert len(quota.disk_faults(size, 0, root - 1)) == 1
    assert len(quota.disk_faults(size, volume, beside - 1)) == 1


def test_the_defaults_fit_each_other() -> None:
    size = default("cluster_facts", quota.OPTION)
    assert quota.fault(size) == ""
    assert quota.disk_faults(size, default("cluster_facts", quota.VOLUME), default("infrastructure", quota.ROOT)) == []


def test_where_no_quota_fits_none_is_offered() -> None:
    [problem] = quota.disk_faults(quota.LEAST, 0, 5)
    assert problem.endswith("or etcd a volume of its own (k8sgu_etcd_volume_size: 1)")


def test_sizes_as_people_say_them() -> None:
    assert [quota.shown(size) for size in (quota.MIB // 2, 32 * quota.MIB, quota.GIB * 3 // 2)] == [
        "0.5 MiB",
        "32 MiB",
        "1.5 GiB",
    ]
