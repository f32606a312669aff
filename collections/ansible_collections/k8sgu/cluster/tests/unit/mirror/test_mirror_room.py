# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A build that cannot end for lack of room is not begun."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror import room
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.gobuild import Order

KUBERNETES = Order("kubernetes/1.36", (), (), "amd64", "", (), (("kubelet", "./cmd/kubelet"),))
DNS = Order("coredns/1.14", (), (), "amd64", "", (), (("coredns", "."),))


def test_what_is_built_already_needs_nothing() -> None:
    assert room.needs([]) == {}


def test_every_build_adds_its_own() -> None:
    one, two = room.needs([KUBERNETES]), room.needs([KUBERNETES, DNS, DNS])
    assert set(one) == set(two) == set(room.SETTINGS)
    assert two["GOCACHE"] - one["GOCACHE"] == 2 * room.needs([DNS])["GOCACHE"] > 0


@pytest.mark.parametrize(
    ("places", "faults"),
    [
        # One file system for both: what they need together.
        ({"GOCACHE": ("/a", 1, 300), "cache_dir": ("/b", 1, 300)}, []),
        ({"GOCACHE": ("/a", 1, 299), "cache_dir": ("/b", 1, 299)}, ["/a, /b: 299 MiB are free"]),
        # One for each.
        ({"GOCACHE": ("/a", 1, 200), "cache_dir": ("/b", 2, 100)}, []),
        ({"GOCACHE": ("/a", 1, 199), "cache_dir": ("/b", 2, 100)}, ["/a: 199 MiB are free"]),
        ({"GOCACHE": ("/a", 1, 0), "cache_dir": ("/b", 2, 0)}, ["/a: 0 MiB are free", "/b: 0 MiB are free"]),
    ],
)
def test_needs_on_one_file_system_are_added_up(places: dict[str, tuple[str, int, int]], faults: list[str]) -> None:
    found = room.shortages({"GOCACHE": 200, "cache_dir": 100}, places)
    assert [text[: len(expected)] for text, expected in zip(found, faults)] == faults
    assert len(found) == len(faults)
    assert all("at a larger file system" in text for text in found)


def test_a_directory_that_is_not_there_yet_is_on_the_file_system_above(tmp_path: Path) -> None:
    path, device, free = room.place(str(tmp_path / "a" / "b"))
    assert (path, device) == (str(tmp_path / "a" / "b"), tmp_path.stat().st_dev)
    assert free > 0
