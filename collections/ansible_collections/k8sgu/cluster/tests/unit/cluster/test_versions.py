# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Version numbers and names of architectures."""

from __future__ import annotations

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster.architectures import mirror_name
from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster.versions import is_release, nearest, numbers, three


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.36.4", (1, 36, 4)),
        ("v1.36", (1, 36)),
        ("22.04", (22, 4)),
        ("6.1.0-18-amd64", (6, 1, 0, 18, 64)),
        ("sid", ()),
    ],
)
def test_the_numbers_of_a_version(version: str, expected: tuple[int, ...]) -> None:
    assert numbers(version) == expected


def test_what_is_left_out_is_zero() -> None:
    assert three("1.26") == three("1.26.0") < three("1.26.1") < three("1.27") < three("1.100")
    assert three("1.36.4-rc.1") == (1, 36, 4)


@pytest.mark.parametrize(
    ("version", "expected"),
    [("1.36.4", True), ("v1.36.4", True), ("1.36", False), ("1.36.4-rc.1", False), ("", False), ("1.36.4\n", False)],
)
def test_whole_releases(version: str, expected: bool) -> None:
    assert is_release(version) is expected


@pytest.mark.parametrize(
    ("version", "expected"),
    [("1.36.9", "1.36.10"), ("1.99.0", "1.37.2"), ("0.9", "1.36.4"), ("2", "1.36.4"), ("newest", "1.37.2")],
)
def test_the_nearest_counts_numbers_and_not_letters(version: str, expected: str) -> None:
    assert nearest(version, ["1.37.2", "1.36.10", "1.36.4"]) == expected


@pytest.mark.parametrize(
    ("machine", "expected"),
    [("x86_64", "amd64"), ("amd64", "amd64"), ("aarch64", "arm64"), ("arm64", "arm64"), ("riscv64", None), ("", None)],
)
def test_an_architecture_by_any_of_its_names(machine: str, expected: str | None) -> None:
    assert mirror_name(machine) == expected
