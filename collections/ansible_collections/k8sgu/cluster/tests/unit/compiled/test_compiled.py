# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node keeps: whole or not at all, and the same from the same sources."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from ansible_collections.k8sgu.cluster.plugins.plugin_utils import _compiled
from ansible_collections.k8sgu.cluster.plugins.plugin_utils._compiled import on_node

PACKAGES = ("_files", "_component")


def test_the_same_sources_are_the_same_archive_in_any_order() -> None:
    digest, archive = _compiled._archive(PACKAGES)
    _compiled._archive.cache_clear()
    assert _compiled._archive(tuple(reversed(PACKAGES))) == (digest, archive)
    assert _compiled._archive(("_files",))[0] != digest


def test_who_comes_second_finds_it_in_place_and_leaves_nothing(tmp_path: Path) -> None:
    digest, archive = _compiled._archive(PACKAGES)
    path = tmp_path / "python" / digest
    for _run in range(2):
        on_node.keep(archive, str(path))
        assert [entry.name for entry in path.parent.iterdir()] == [digest]
    assert (path / "ansible_collections/k8sgu/cluster/plugins/module_utils/_files/present.py").is_file()


def test_an_archive_that_is_broken_leaves_nothing(tmp_path: Path) -> None:
    broken = base64.b64encode(b"not an archive").decode()
    with pytest.raises(Exception, match="not a zip file"):
        on_node.keep(broken, str(tmp_path / "python" / "digest"))
    assert list((tmp_path / "python").iterdir()) == []
