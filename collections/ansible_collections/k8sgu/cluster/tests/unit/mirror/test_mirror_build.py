# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds with the real Go toolchain: the same bytes twice, another architecture, clear words where one cannot be."""

from __future__ import annotations

import struct
import subprocess
import threading
from pathlib import Path

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._files import sha256_of
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror import gobuild
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.errors import MirrorError
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.gobuild import (
    Builder,
    Order,
    Sources,
    Toolchain,
    check_toolchain,
    find_toolchain,
    orders,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.release import Recipe
from ansible_collections.k8sgu.cluster.tests.unit.mirror.mirror_support import RELEASES, write_release, write_tool

WHY = ("source: build", "source: upstream or directory")
ELF_MACHINE = {"amd64": 62, "arm64": 183}


@pytest.fixture
def toolchain() -> Toolchain:
    found = find_toolchain()
    if found is None:
        pytest.skip("no Go toolchain on this machine")
    return found


def build(toolchain: Toolchain, root: Path, cache: Path, order: Order) -> dict[str, str]:
    return Builder(toolchain, Sources(str(root)), str(cache), threading.Event()).build(order, lambda _state: None)


def pause(arch: str) -> Order:
    [order] = orders([(Recipe("pause", (("pause", "."),)), arch)])
    return order


def test_two_builds_are_the_same_bytes(toolchain: Toolchain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is shared: other caches, another directory, another user's settings, by the environment and by go env."""
    digests = []
    for number in (1, 2):
        root = tmp_path / f"tree{number}"
        root.mkdir()
        subprocess.run(["cp", "-r", str(RELEASES / "build" / "pause"), str(root)], check=True)
        monkeypatch.setenv("GOCACHE", str(tmp_path / f"gocache{number}"))
        monkeypatch.setenv("GOFLAGS", "" if number == 1 else "-tags=other")
        monkeypatch.setenv("GOAMD64", "v1" if number == 1 else "v3")
        monkeypatch.setenv("GOGC", "400" if number == 1 else "50")
        settings = tmp_path / f"goenv{number}"
        settings.write_text("" if number == 1 else "GOFLAGS=-ldflags=-compressdwarf=false\nGOEXPERIMENT=nogreenteagc\n")
        monkeypatch.setenv("GOENV", str(settings))
        digests.append(sha256_of(build(toolchain, root, tmp_path / f"cache{number}", pause("amd64"))["pause"]))
    assert digests[0] == digests[1]


def test_a_proxy_set_by_go_env_is_used_and_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tmp_path / "goenv"
    settings.write_text("GOPROXY=https://user:secret@proxy.example\nGOFLAGS=-tags=other\n")
    monkeypatch.setenv("GOENV", str(settings))
    monkeypatch.delenv("GOPROXY", raising=False)
    found = find_toolchain()
    if found is None:
        pytest.skip("no Go toolchain on this machine")
    environment = found.environment()
    assert (environment["GOPROXY"], environment["GOENV"]) == ("https://user:secret@proxy.example", "off")
    assert environment["GOFLAGS"] == ""
    assert "secret" not in repr(found)
    monkeypatch.setenv("GOPROXY", "off")
    assert found.environment()["GOPROXY"] == "off"


@pytest.mark.parametrize(
    ("given", "memory", "used"),
    [(None, 24 << 30, "400"), ("150", 24 << 30, "150"), (None, 8 << 30, None), ("150", 8 << 30, "150")],
)
def test_garbage_is_collected_less_if_memory_is_plenty_and_the_user_sets_nothing(
    monkeypatch: pytest.MonkeyPatch, given: str | None, memory: int, used: str | None
) -> None:
    monkeypatch.delenv("GOGC", raising=False)
    if given:
        monkeypatch.setenv("GOGC", given)
    monkeypatch.setattr(gobuild, "_memory", lambda: memory)
    assert Toolchain("/go", "1.26.0").environment().get("GOGC") == used


@pytest.mark.parametrize("arch", ["amd64", "arm64"])
def test_architectures(toolchain: Toolchain, tmp_path: Path, arch: str) -> None:
    path = build(toolchain, RELEASES / "build", tmp_path, pause(arch))["pause"]
    machine = struct.unpack_from("<H", Path(path).read_bytes(), 18)[0]
    assert machine == ELF_MACHINE[arch]


def test_version_is_stamped_and_kept(toolchain: Toolchain, tmp_path: Path) -> None:
    releases = write_release(tmp_path, {})
    recipe = write_tool(releases)
    [order] = orders([(Recipe("tool", (("tool", "."),), stamp=(("main.version", "1.0.0"),)), "amd64")])
    assert recipe["stamp"] == dict(order.stamp)
    path = build(toolchain, releases / "build", tmp_path / "cache", order)["tool"]
    made = Path(path).stat().st_mtime_ns
    said = subprocess.run([path], capture_output=True, text=True, check=True, timeout=60)
    assert said.stderr == "hello 1.0.0\n"
    assert build(toolchain, releases / "build", tmp_path / "cache", order)["tool"] == path
    assert Path(path).stat().st_mtime_ns == made
    write_tool(releases, text="changed")
    assert build(toolchain, releases / "build", tmp_path / "cache", order)["tool"] != path


def test_a_damaged_cache_is_built_again(toolchain: Toolchain, tmp_path: Path) -> None:
    path = Path(build(toolchain, RELEASES / "build", tmp_path, pause("amd64"))["pause"])
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    build(toolchain, RELEASES / "build", tmp_path, pause("amd64"))
    assert path.read_bytes() == whole


def test_recipes_with_the_same_flags_are_one_build() -> None:
    one, two = Recipe("k", (("a", "m/a"),), ("t",)), Recipe("k", (("b", "m/b"),), ("t",))
    other = Recipe("k", (("c", "m/c"),), ())
    made = orders([(one, "amd64"), (two, "amd64"), (other, "amd64"), (one, "arm64")])
    assert [(order.arch, [name for name, _package in order.packages]) for order in made] == [
        ("amd64", ["a", "b"]),
        ("amd64", ["c"]),
        ("arm64", ["a"]),
    ]


def test_no_toolchain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.which", lambda _name, path=None: None)
    sources = Sources(str(RELEASES / "build"))
    with pytest.raises(
        MirrorError, match=r"needs Go 1\.\d+\.\d+ or newer, and there is no `go` on PATH; install it from"
    ):
        check_toolchain(find_toolchain(), sources, ["containerd/2.4.2", "pause"], *WHY)


def test_toolchain_that_is_too_old() -> None:
    sources = Sources(str(RELEASES / "build"))
    with pytest.raises(
        MirrorError, match=r"needs Go 1\.26\.6 or newer \(for containerd/2\.4\.2\), and /old/go is 1\.26\.5"
    ):
        check_toolchain(Toolchain("/old/go", "1.26.5"), sources, ["pause", "containerd/2.4.2"], *WHY)
    check_toolchain(Toolchain("/new/go", "1.27"), sources, ["containerd/2.4.2"], *WHY)


def test_program_that_does_not_compile(toolchain: Toolchain, tmp_path: Path) -> None:
    releases = write_release(tmp_path, {})
    write_tool(releases)
    (releases / "build" / "tool" / "main.go").write_text("package main\n\nfunc main() { nonsense }\n")
    [order] = orders([(Recipe("tool", (("tool", "."),)), "amd64")])
    with pytest.raises(
        MirrorError, match=r"(?s)go build of tool \(tool, amd64\) ended with status 1.*undefined: nonsense"
    ):
        build(toolchain, releases / "build", tmp_path / "cache", order)
    assert not list((tmp_path / "cache" / "build").glob("*"))


def test_source_that_does_not_match_its_pin(
    toolchain: Toolchain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module proxy that serves something other than what go.sum pins."""
    root = tmp_path / "build"
    proxy = tmp_path / "proxy" / "example.org" / "lib" / "@v"
    proxy.mkdir(parents=True)
    (proxy / "v1.0.0.info").write_text('{"Version": "v1.0.0"}')
    (proxy / "v1.0.0.mod").write_text("module example.org/lib\n")
    (root / "tool").mkdir(parents=True)
    (root / "tool" / "go.mod").write_text("module k8sgu.io/build/tool\n\ngo 1.21\n\nrequire example.org/lib v1.0.0\n")
    (root / "tool" / "go.sum").write_text(f"example.org/lib v1.0.0/go.mod h1:{'A' * 43}=\n")
    (root / "tool" / "main.go").write_text('package main\n\nimport _ "example.org/lib"\n\nfunc main() {}\n')
    monkeypatch.setenv("GOPROXY", f"file://{tmp_path}/proxy")
    monkeypatch.setenv("GOMODCACHE", str(tmp_path / "modcache"))
    [order] = orders([(Recipe("tool", (("tool", "."),)), "amd64")])
    with pytest.raises(MirrorError, match=r"does not match the committed go\.sum; it was not used"):
        build(toolchain, root, tmp_path / "cache", order)


def test_recipe_without_pins(tmp_path: Path) -> None:
    (tmp_path / "tool").mkdir()
    with pytest.raises(MirrorError, match="nothing is built without its pins"):
        Sources(str(tmp_path)).key(Recipe("tool", (("tool", "."),)), ".", "amd64")
    with pytest.raises(MirrorError, match="the recipe of the build cannot be read"):
        Sources(str(tmp_path)).key(Recipe("none", (("tool", "."),)), ".", "amd64")
