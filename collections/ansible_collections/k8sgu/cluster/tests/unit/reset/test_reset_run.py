# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A reset of a directory tree, killed after each of its steps in turn. The rest is in the molecule scenarios."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._component import origin as origins
from ansible_collections.k8sgu.cluster.plugins.module_utils._component import record as records
from ansible_collections.k8sgu.cluster.plugins.module_utils._component import systemd, undo
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import (
    Component,
    ComponentError,
    Directory,
    File,
    Leaves,
    Link,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call
from ansible_collections.k8sgu.cluster.plugins.module_utils._reset import apply, node, run
from ansible_collections.k8sgu.cluster.plugins.module_utils._reset import plan as plans
from ansible_collections.k8sgu.cluster.plugins.module_utils._reset.plan import Now

Commands = list[list[str]]


class Killed(BaseException):
    pass


def seen(root: Path) -> dict[str, Any]:
    return {str(path.relative_to(root)): undo.examine(str(path)) for path in sorted(root.rglob("*"))}


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Commands:
    """A node in a directory. What would be run on it is listed."""
    home, owner = tmp_path / "var/lib/k8sgu", tmp_path / "etc/k8sgu"
    done: Commands = []
    for module in (origins, apply, run):
        monkeypatch.setattr(module, "HOME", str(home))
    for module in (origins, apply):
        monkeypatch.setattr(module, "PATH", str(home / "origin.json"))
    monkeypatch.setattr(run, "OWNER", str(owner / "cluster.json").lstrip("/"))
    monkeypatch.setattr(plans, "LAST", (str(owner), str(home)))
    monkeypatch.setattr(records, "DIRECTORY", str(home / "component"))
    monkeypatch.setattr(records, "LOCK", str(tmp_path / "lock"))
    monkeypatch.setattr(run.os, "geteuid", lambda: 0)
    monkeypatch.setattr(systemd, "run", lambda command, **_more: done.append(list(command)) or "")

    def read(origin: origins.Origin) -> Now:
        paths = {path: undo.examine(path) for path in origin.paths}
        below = {path: [entry.name for entry in Path(path).iterdir()] for path in paths if Path(path).is_dir()}
        return Now(paths=paths, below=below)

    monkeypatch.setattr(node, "read", read)
    return done


@pytest.fixture
def build(tmp_path: Path, commands: Commands) -> Callable[[], dict[str, Any]]:
    """Builds the node, and returns what was there before."""

    def make() -> dict[str, Any]:
        (tmp_path / "etc").mkdir()
        (tmp_path / "var/lib").mkdir(parents=True)
        (tmp_path / "etc/hosts").write_text("before")
        before = seen(tmp_path)
        etc = tmp_path / "etc"
        component = Component(
            name="zz",
            directories=[Directory(str(etc / name), "root", "root", 0o755) for name in ("k8sgu", "kubernetes")],
            files=[
                File(str(etc / "k8sgu/cluster.json"), b"{}"),
                File(str(etc / "hosts"), b"ours"),
                File(str(etc / "time/servers.d/ours"), b"ours"),
            ],
            links=[Link(str(etc / "link"), "ours")],
            on_change=[["reread"]],
            leaves=Leaves(paths=[str(tmp_path / "var/log/pods")]),
        )
        origins.remember([component], {})
        for path, text in (
            ("etc/k8sgu/cluster.json", json.dumps({"cluster": "demo"})),
            ("etc/kubernetes/pki/key", "made while it ran"),
            ("etc/hosts", "ours"),
            ("etc/time/servers.d/ours", "ours"),
            ("var/log/pods/a/log", "made while it ran"),
            ("var/lib/k8sgu/component/zz.json", "{}"),
        ):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        (etc / "link").symlink_to("ours")
        return before

    return make


def reset(check_mode: bool = False) -> dict[str, Any]:
    return run.run(Call({"cluster": "demo", "lock_timeout": 1}, check_mode))


def test_it_is_as_before_and_a_second_run_changes_nothing(
    tmp_path: Path, commands: Commands, build: Callable[[], dict[str, Any]]
) -> None:
    before = build()
    built = seen(tmp_path)
    planned = reset(check_mode=True)
    assert planned["changed"] and seen(tmp_path) == built and commands == []
    assert reset() == {**planned, "changed": True}
    assert seen(tmp_path) == before
    assert commands == [["systemctl", "daemon-reload"], ["reread"]]
    assert reset() == {"changed": False, "steps": [], "stays": []}
    (tmp_path / "lock").unlink(missing_ok=True)
    assert seen(tmp_path) == before


def test_killed_after_each_step_the_next_run_ends_the_same(
    tmp_path: Path, commands: Commands, build: Callable[[], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = [apply.remove_tree, apply.remove_file, undo.restore, undo.remove_file]
    kills = 0
    for at in range(1, 100):
        root = tmp_path
        for name in ("etc", "var"):
            if (root / name).exists():
                remove[0](str(root / name))
        before = build()
        commands.clear()
        left = at

        def counted(act: Callable[..., Any]) -> Callable[..., Any]:
            def one(*arguments: Any) -> Any:
                nonlocal left
                done = act(*arguments)
                left -= 1
                if left == 0:
                    raise Killed
                return done

            return one

        with monkeypatch.context() as patched:
            for module, name in ((apply, "remove_tree"), (apply, "remove_file"), (undo, "restore")):
                patched.setattr(module, name, counted(getattr(module, name)))
            try:
                reset()
            except Killed:
                kills += 1
            else:
                break
        ended = reset()
        assert "failed" not in ended, ended
        (root / "lock").unlink(missing_ok=True)
        assert seen(root) == before, at
        assert ["reread"] in commands, at
    assert kills > 6


def test_what_cannot_be_removed_is_said_and_the_rest_is_done(
    tmp_path: Path, commands: Commands, build: Callable[[], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    build()
    held = str(tmp_path / "etc/kubernetes/pki")
    monkeypatch.setattr(node, "mount_points", lambda: ["/", held])
    result = reset()
    assert result["failed"] and f"{held} is still mounted there" in result["msg"]
    assert (tmp_path / "etc/hosts").read_text() == "before"
    # Whose it is, and what is still to be done.
    assert (tmp_path / "etc/k8sgu/cluster.json").exists() and origins.read() is not None
    monkeypatch.setattr(node, "mount_points", lambda: ["/"])
    assert "failed" not in reset() and origins.read() is None


@pytest.mark.parametrize(
    ("owner", "said"),
    [
        ({"cluster": "other"}, "this node belongs to the cluster 'other', not to 'demo'"),
        ({"cluster": "demo"}, r"built before k8sgu recorded what was there before it\. Run site\.yml once"),
    ],
)
def test_a_node_of_another_cluster_and_one_without_a_record_are_refused(
    tmp_path: Path, commands: Commands, build: Callable[[], dict[str, Any]], owner: dict[str, str], said: str
) -> None:
    build()
    (tmp_path / "etc/k8sgu/cluster.json").write_text(json.dumps(owner))
    if owner["cluster"] == "demo":
        Path(origins.PATH).unlink()
    built = seen(tmp_path)
    with pytest.raises(ComponentError, match=said):
        reset(check_mode=True)
    assert seen(tmp_path) == built


def test_packages_of_an_installation_that_was_cut_off_go_too(
    commands: Commands, build: Callable[[], dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    build()
    before = origins.read()
    assert before is not None
    nobody: dict[str, list[str]] = {"users": [], "groups": []}
    before.installing, before.asked = {"packages": ["bash"], **nobody}, ["docker.io"]
    origins.write(before)
    monkeypatch.setattr(origins, "_installed", lambda: {"packages": ["bash", "docker.io"], **nobody})
    read = node.read
    monkeypatch.setattr(node, "read", lambda origin: dataclasses.replace(read(origin), packages=["bash", "docker.io"]))
    assert "purge package docker.io  # it came with us" in reset(check_mode=True)["steps"]
