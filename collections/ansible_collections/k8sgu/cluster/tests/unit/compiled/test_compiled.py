# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node keeps: whole or not at all, and the same from the same sources."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ansible_collections.k8sgu.cluster.plugins.plugin_utils import _compiled
from ansible_collections.k8sgu.cluster.plugins.plugin_utils._compiled import on_node

CALL = re.compile(r'execute\(self, "([\w.]+):(\w+)"')
# What is executed so: module and function.
FUNCTIONS = {"_component.run": "execute", "_upgrade.facts": "execute", "_verify.node": "execute"}
# What is placed on nodes as a program, as roles name it.
ZIPAPPS = {"_etcd.backup", "_etcd.defragment", "_etcd.drill", "_etcd.upload"}
UTILS = "ansible_collections/k8sgu/cluster/plugins/module_utils"
PLUGINS = Path(__file__).resolve().parents[3] / "plugins"


def names(archive: str) -> set[str]:
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(archive))) as content:
        return {name.removeprefix(f"{UTILS}/") for name in content.namelist()}


def test_these_are_all_that_are_executed_so() -> None:
    called = [call for path in (PLUGINS / "action").glob("*.py") for call in CALL.findall(path.read_text())]
    assert dict(called) == FUNCTIONS


@pytest.mark.parametrize("module", FUNCTIONS)
def test_the_same_sources_are_the_same_archive(module: str) -> None:
    digest, archive = _compiled._archive(module)
    _compiled._archive.cache_clear()
    assert _compiled._archive(module) == (digest, archive)
    assert _compiled._archive("_files.present")[0] != digest


@pytest.mark.parametrize("module", FUNCTIONS)
def test_all_that_it_imports_is_in_the_archive_and_nothing_else_of_ours_or_ansibles(
    module: str, tmp_path: Path
) -> None:
    """In a Python that has the standard library alone, as a node's."""
    archive = _compiled._archive(module)[1]
    path = on_node.unpack(archive, str(tmp_path))
    modules = [f"{UTILS}/{name}".removesuffix(".py").removesuffix("/__init__") for name in sorted(names(archive))]
    program = f"""
import sys, importlib
sys.path[:] = [{path!r}, *(one for one in sys.path if "-packages" not in one)]
for name in {[name.replace("/", ".") for name in modules]!r}:
    importlib.import_module(name)
module = sys.modules["{UTILS.replace("/", ".")}.{module}"]
assert callable(module.{FUNCTIONS[module]}) and "ansible" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_what_a_node_does_not_need_is_not_sent() -> None:
    """What only the controller imports, what is imported for types, and the options of modules."""
    assert names(_compiled._archive("_verify.node")[1]) == {
        "_encryption/__init__.py",
        "_encryption/scan.py",
        "_etcd/__init__.py",
        "_etcd/etcdctl.py",
        "_etcd/snapshots.py",
        "_verify/__init__.py",
        "_verify/backups.py",
        "_verify/checks.py",
        "_verify/listeners.py",
        "_verify/node.py",
        "_verify/ports.py",
        "_verify/sandbox.py",
        "_verify/swap.py",
        "_verify/tls.py",
    }
    component = names(_compiled._archive("_component.run")[1])
    assert component >= {"_component/apply.py", "_files/atomic.py", "_files/present.py"}
    assert not component & {"_component/options.py", "_component/prepare.py", "_options/module.py"}


def test_a_module_that_is_not_there_is_a_fault_of_ours() -> None:
    with pytest.raises(AssertionError, match=r"there is no _verify\.nodes in module_utils"):
        _compiled._archive("_verify.nodes")


def test_these_are_all_programs_that_roles_place() -> None:
    texts = [path.read_text() for path in PLUGINS.with_name("roles").rglob("*.yml")]
    assert {name for text in texts for name in re.findall(r"zipapp'?: '?([\w.]+)", text)} == ZIPAPPS


@pytest.mark.parametrize("module", sorted(ZIPAPPS))
def test_a_program_is_the_same_whoever_builds_it(module: str, tmp_path: Path) -> None:
    """As another controller with a checkout of its own, where files have other times."""
    other = tmp_path / "ansible_collections/k8sgu/cluster/plugins"
    shutil.copytree(PLUGINS, other, copy_function=shutil.copyfile, ignore=shutil.ignore_patterns("__pycache__"))
    build = f"import sys; from {_compiled.__name__} import zipapp; sys.stdout.buffer.write(zipapp({module!r}))"
    done = subprocess.run(
        [sys.executable, "-c", build], capture_output=True, check=True, timeout=60, env={"PYTHONPATH": str(tmp_path)}
    )
    assert done.stdout == _compiled.zipapp(module)
    # Nothing of the moment, and nothing that depends on a library's version.
    with zipfile.ZipFile(io.BytesIO(done.stdout)) as content:
        assert {(one.date_time, one.compress_type) for one in content.infolist()} == {((1980, 1, 1, 0, 0, 0), 0)}


@pytest.mark.parametrize("module", sorted(ZIPAPPS))
def test_a_program_runs_without_ansible_and_without_a_sites_packages(module: str, tmp_path: Path) -> None:
    path = tmp_path / "program.pyz"
    path.write_bytes(_compiled.zipapp(module))
    path.chmod(0o755)
    assert path.read_bytes().startswith(b"#!/usr/bin/python3 -IS\n")
    strict = [sys.executable, "-IS", "-W", "error", str(path), "--help"]
    for command in (strict, [str(path), "--help"]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("usage: ")
    # Neither from here nor from anywhere else.
    loaded = (
        f"import sys, runpy; sys.argv[1:] = ['--help']\ntry:\n runpy.run_path({str(path)!r}, run_name='__main__')\n"
    )
    loaded += "except SystemExit:\n pass\nprint([n for n in sys.modules if n.split('.')[0] == 'ansible'])"
    done = subprocess.run([sys.executable, "-I", "-c", loaded], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_program_of_no_module_is_refused() -> None:
    with pytest.raises(LookupError, match=r"there is no _etcd\.nothing in module_utils"):
        _compiled.zipapp("_etcd.nothing")


def test_who_comes_second_finds_it_in_place_and_leaves_nothing(tmp_path: Path) -> None:
    digest, archive = _compiled._archive("_component.run")
    path = tmp_path / "python" / digest
    for _run in range(2):
        on_node.keep(archive, str(path))
        assert [entry.name for entry in path.parent.iterdir()] == [digest]
    assert (path / UTILS / "_files/present.py").is_file()


def test_an_archive_that_is_broken_leaves_nothing(tmp_path: Path) -> None:
    broken = base64.b64encode(b"not an archive").decode()
    with pytest.raises(Exception, match="not a zip file"):
        on_node.keep(broken, str(tmp_path / "python" / "digest"))
    assert list((tmp_path / "python").iterdir()) == []
