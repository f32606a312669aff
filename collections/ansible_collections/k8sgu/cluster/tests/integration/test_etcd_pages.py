# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What values take in the file of a real etcd is what was computed for them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import etcd_cluster

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import contents, pages

pytestmark = pytest.mark.timeout(300)
# Key and value: how many of what size.
VALUES = {"tiny": (2000, 60), "small": (1000, 700), "medium": (500, 2400), "large": (300, 4500), "huge": (20, 100_000)}
NEAR = 0.05


@pytest.mark.parametrize("kinds", [*([kind] for kind in VALUES), list(VALUES)], ids=[*VALUES, "all"])
def test_the_file_has_the_size_that_was_computed(tmp_path: Path, kinds: list[str]) -> None:
    version = etcd_cluster.programs("3.6")
    if version is None:
        pytest.skip("no mirror with etcd 3.6; fill one with `make up`")
    with etcd_cluster.running(tmp_path, version, size=1) as etcd:
        for kind in kinds:
            count, size = VALUES[kind]
            etcd.fill({f"/registry/{kind}/default/{number:05}": "x" * size for number in range(count)})
        # History and what was deleted count for nothing.
        for number in range(10):
            etcd.fill({"/registry/overwritten": str(number) * 20_000})
        etcd.fill({f"/registry/deleted/{number}": "x" * 20_000 for number in range(20)})
        etcd.etcdctl("cp-0", "del", "--prefix", "/registry/deleted/")
        path = tmp_path / "snapshot.db"
        etcd.etcdctl("cp-0", "snapshot", "save", str(path))
        computed = contents.read(str(path)).bytes
        revision = etcd.statuses()["cp-0"]["header"]["revision"]
        etcd.etcdctl("cp-0", "compact", str(revision), "--physical")
        etcd.etcdctl("cp-0", "defrag")
        measured = etcd.statuses()["cp-0"]["dbSize"]
    assert computed == pytest.approx(measured, rel=NEAR), f"{computed / measured - 1:+.1%}"
    if len(kinds) == 1:
        count, size = VALUES[kinds[0]]
        key = len(f"/registry/{kinds[0]}/default/00000")
        described = count * pages.each(pages.message(key, size))
        assert described == pytest.approx(measured, rel=3 * NEAR), f"{described / measured - 1:+.1%}"
