# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a program needs of the system, by this machine's own programs and a static one."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster.versions import numbers
from ansible_collections.k8sgu.cluster.plugins.module_utils._component import elf, fetch
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import Artifact, ComponentError

DYNAMIC = shutil.which("ls") or "/bin/ls"
# https://docs.python.org/3/library/os.html#os.confstr: without it this is no system with glibc.
pytestmark = pytest.mark.skipif(not elf.glibc_here(), reason="this system's C library is not glibc")


def test_a_dynamic_program_needs_its_loader_and_a_glibc() -> None:
    loader, version = elf.needs(DYNAMIC)
    assert Path(loader).exists() and numbers("2.2") < numbers(version) <= numbers(elf.glibc_here())
    assert elf.cannot_run(DYNAMIC) == ""
    assert elf.cannot_run(DYNAMIC, "2.1") == f"it is linked against glibc {version}, and this system has 2.1"
    assert elf.cannot_run(DYNAMIC, "") == f"it is linked against glibc {version}, and this system has none"


@pytest.mark.skipif(not shutil.which("readelf"), reason="readelf (binutils) is not here to compare with")
@pytest.mark.parametrize("program", [DYNAMIC, sys.executable])
def test_the_version_is_what_readelf_says(program: str) -> None:
    said = subprocess.run(["readelf", "--version-info", program], capture_output=True, text=True, check=True).stdout
    names = [word.removeprefix("GLIBC_") for word in said.split() if word.startswith("GLIBC_")]
    assert elf.needs(program)[1] == max(names, key=numbers)


def test_a_loader_that_is_missing(tmp_path: Path) -> None:
    content = Path(DYNAMIC).read_bytes()
    loader = elf.needs(DYNAMIC)[0]
    changed = tmp_path / "program"
    changed.write_bytes(content.replace(loader.encode(), loader[:-1].encode() + b"9"))
    assert elf.cannot_run(str(changed)) == f"its loader {loader[:-1]}9 is not there"


@pytest.mark.parametrize("cut", [6, 63, 300, 5000])
def test_what_is_no_whole_program_is_not_judged(tmp_path: Path, cut: int) -> None:
    (tmp_path / "cut").write_bytes(Path(DYNAMIC).read_bytes()[:cut])
    assert elf.cannot_run(str(tmp_path / "cut"), "2.1") == ""
    (tmp_path / "script").write_text("#!/bin/sh\n")
    assert elf.cannot_run(str(tmp_path / "script"), "2.1") == ""


def test_such_a_program_is_not_placed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = Path(DYNAMIC).read_bytes()
    staged = tmp_path / "staged"
    staged.mkdir()
    total = hashlib.sha256(content).hexdigest()
    (staged / total).write_bytes(content)
    artifact = Artifact(str(tmp_path / "opt" / "runc"), "files/runc", total, len(content))
    monkeypatch.setattr(elf, "glibc_here", lambda: "2.1")
    told = "runc from the pushed copy cannot run on this system: it is linked against"
    with pytest.raises(ComponentError, match=told):
        fetch.install([artifact], "", "", str(staged))
    assert list((tmp_path / "opt").iterdir()) == []
