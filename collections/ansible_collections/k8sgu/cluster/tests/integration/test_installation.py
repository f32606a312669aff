# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a playbook says of an ansible-core that nobody tested, and of a second copy of the collection."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import ansible_program

COLLECTION = ansible_program.ROOT / "collections/ansible_collections/k8sgu/cluster"
TESTED = '">=2.19.0,<2.22.0"'
PLAYBOOK = """
- hosts: "{{ query('k8sgu.cluster.hosts', 'localhost', inventory='any') }}"
  connection: local
  gather_facts: false
  tasks:
    - ansible.builtin.meta: noop
"""
OTHERS = ">=3.0.0,<3.1.0"


def installed(base: Path, versions: str = "") -> Path:
    """A copy of the collection below `base`, tested with other versions of ansible-core where `versions` says so."""
    place = base / "ansible_collections/k8sgu/cluster"
    shutil.copytree(COLLECTION, place, ignore=shutil.ignore_patterns("tests", "__pycache__"))
    runtime = place / "meta/runtime.yml"
    text = runtime.read_text()
    assert TESTED in text
    runtime.write_text(text.replace(TESTED, f'"{versions}"') if versions else text)
    return place


def play(directory: Path, *collections: Path, mismatch: str = "") -> tuple[int, str]:
    """Status and output, in one line, of a playbook that begins as all of the collection's do, and does nothing."""
    path = ":".join(map(str, collections))
    (directory / "ansible.cfg").write_text(f"[defaults]\ncollections_path = {path}\n")
    environment = {"ANSIBLE_CONFIG": str(directory / "ansible.cfg"), "COLUMNS": "1000"}
    if mismatch:
        environment["ANSIBLE_COLLECTIONS_ON_ANSIBLE_VERSION_MISMATCH"] = mismatch
    (directory / "play.yml").write_text(PLAYBOOK)
    done = ansible_program.run(
        "ansible-playbook", "-i", "localhost,", "play.yml", cwd=directory, environment=environment
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_one_copy_and_a_tested_version_are_no_word_worth(tmp_path: Path) -> None:
    installed(tmp_path / "a")
    status, output = play(tmp_path, tmp_path / "a")
    assert status == 0 and "PLAY RECAP" in output, output
    assert "WARNING" not in output


def test_a_second_copy_is_told_and_which_one_runs(tmp_path: Path) -> None:
    first, second = installed(tmp_path / "a"), installed(tmp_path / "b")
    for running, other in ((first, second), (second, first)):
        status, output = play(tmp_path, running.parents[2], other.parents[2])
        assert status == 0, output
        assert output.count("k8sgu.cluster is installed twice. ") == 1, output
        assert f"{running} (version 0.1.0) is the one that runs; {other} (version 0.1.0) is not used. " in output


@pytest.mark.parametrize(("mismatch", "told"), [("", 1), ("warning", 1), ("ignore", 0)])
def test_an_untested_version_is_told_with_the_range(tmp_path: Path, mismatch: str, told: int) -> None:
    installed(tmp_path / "a", OTHERS)
    status, output = play(tmp_path, tmp_path / "a", mismatch=mismatch)
    assert status == 0, output
    # Ansible's own words, and ours.
    assert output.count("Collection k8sgu.cluster does not support Ansible version 2.") == told, output
    assert output.count(f"and k8sgu.cluster is tested with {OTHERS} alone: install one of those") == told, output


def test_an_untested_version_is_refused_where_the_user_wants_that(tmp_path: Path) -> None:
    installed(tmp_path / "a", OTHERS)
    status, output = play(tmp_path, tmp_path / "a", mismatch="error")
    assert status != 0 and "does not support Ansible version 2." in output, output
