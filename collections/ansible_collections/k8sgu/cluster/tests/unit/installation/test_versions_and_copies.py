# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An ansible-core outside the tested range, and a collection that is there more than once."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import tomllib
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from ansible_collections.k8sgu.cluster.plugins.plugin_utils._installation import (
    installed_twice,
    untested_version,
    versions_tested,
)

ROOT = Path(__file__).resolve().parents[7]
COLLECTION = Path(__file__).resolve().parents[3]
TESTED = ">=2.19.0,<2.22.0"


@pytest.mark.parametrize("running", ["2.19.0", "2.19.14", "2.20.1", "2.21.5", "2.21.0rc1", "2.21.0.dev0"])
def test_a_tested_version_is_no_word_worth(running: str) -> None:
    assert untested_version(running, TESTED) is None


@pytest.mark.parametrize("running", ["2.18.9", "2.22.0", "2.22.0.dev0", "3.0.0", "of my own"])
def test_another_version_is_told_with_the_range(running: str) -> None:
    assert untested_version(running, TESTED) == (
        f"This is ansible-core {running}, and k8sgu.cluster is tested with {TESTED} alone: install one of those "
        f"(pip install 'ansible-core{TESTED}'), or expect surprises"
    )


def test_the_range_is_what_the_tests_run_with() -> None:
    """Both ends are pinned: whoever pins a newer one moves the range, and whoever moves the range pins the version."""
    tested = SpecifierSet(versions_tested(COLLECTION))
    pinned = re.findall(r"^ansible-core==([0-9.]+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    oldest, newest = sorted(Version(version) for version in pinned)
    series = [f"{oldest.major}.{oldest.minor}.0", f"{newest.major}.{newest.minor + 1}.0"]
    assert str(tested) == str(SpecifierSet(f">={series[0]},<{series[1]}"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [asked] = [one for one in project["dependencies"] if one.startswith("ansible-core")]
    assert asked == f"ansible-core>={oldest.major}.{oldest.minor},<{newest.major}.{newest.minor + 1}"
    for page in (ROOT / "README.md", COLLECTION / "README.md"):
        assert f"{oldest.major}.{oldest.minor} to {newest.major}.{newest.minor}" in page.read_text(), page


def copy(base: Path, version: str = "", manifest: str = "") -> Path:
    place = base / "ansible_collections" / "k8sgu" / "cluster"
    (place / "meta").mkdir(parents=True)
    (place / "meta" / "runtime.yml").write_text(f"requires_ansible: '{TESTED}'\n")
    if version:
        (place / "galaxy.yml").write_text(f"version: {version}\n")
    if manifest:
        (place / "MANIFEST.json").write_text(json.dumps({"collection_info": {"version": manifest}}))
    return place


def test_one_copy_is_no_word_worth_however_it_is_reached(tmp_path: Path) -> None:
    running = copy(tmp_path / "a")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    path = ["a", "b", "a/ansible_collections", "empty", "nowhere"]
    assert installed_twice(running, [str(tmp_path / place) for place in path]) is None


def test_of_two_copies_the_one_that_runs_is_told(tmp_path: Path) -> None:
    running, other = copy(tmp_path / "a", version="0.1.0"), copy(tmp_path / "b", manifest="0.0.9")
    path = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert installed_twice(running, path) == (
        f"k8sgu.cluster is installed twice. {running} (version 0.1.0) is the one that runs; {other} (version 0.0.9) is "
        "not used. Remove the one that is not meant, or name the directory of the other first in collections_path "
        "(ansible.cfg) or ANSIBLE_COLLECTIONS_PATH"
    )


def test_every_further_copy_is_told_once(tmp_path: Path) -> None:
    running, one, other = copy(tmp_path / "a"), copy(tmp_path / "b"), copy(tmp_path / "c")
    path = [str(tmp_path / place) for place in ("c", "a", "b", "b/ansible_collections")]
    told = installed_twice(running, path)
    assert told and told.startswith(f"k8sgu.cluster is installed 3 times. {running} is the one that runs; ")
    assert f"{other} and {one} is not used" in told
