# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Release files: the real ones are valid, and faults are named."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.errors import MirrorError
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.gobuild import Sources
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.plan import build_keys, image_key
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.release import (
    find_release,
    load_release,
    read_release,
)
from ansible_collections.k8sgu.cluster.tests.unit.mirror.mirror_support import RELEASES, ROOT, write_release

URL = {"url": "https://example.org/{version}/{arch}", "sha256": {"amd64": "0" * 64}}


@pytest.mark.parametrize("version", ["1.36.4", "1.37.2"])
def test_every_item_of_a_real_release_can_be_had(version: str) -> None:
    release = find_release(str(RELEASES), version)
    sources = Sources(str(RELEASES / "build"))
    names = {component.name for component in release.components}
    assert {"kube-apiserver", "kubelet", "kubectl", "etcd", "containerd", "runc", "cni-plugins", "crictl"} <= names
    assert {"kube-router", "flannel", "cri-dockerd"} <= names
    for component in release.components:
        assert component.upstream, component.name
        assert component.builds or component.distribution, component.name
        for arch in release.architectures:
            assert component.upstream.sha256.get(arch) or component.upstream.checksums, component.name
            assert set(build_keys(component, arch, sources)) == (set(component.files) if component.builds else set())
    for image in release.images:
        assert image.build is not None
        assert image_key(image, ["amd64"], sources)
        if image.build.recipe:
            assert (RELEASES / "build" / image.build.recipe.module / "go.mod").exists()


def test_kubernetes_version_is_only_in_its_release_file() -> None:
    for path in RELEASES.glob("1.*.yml"):
        if path.name.endswith(".lock.yml"):
            continue
        release = load_release(str(path))
        stamped = {
            value for component in release.components for recipe in component.builds for _name, value in recipe.stamp
        }
        assert f"v{release.kubernetes}" in stamped


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("1.36.9", "there is no release 1.36.9 .* the nearest is 1.36.4 "),
        ("1.39.0", "the nearest is 1.37.2 "),
        ("v1.38.1", "the nearest is 1.37.2 "),
        ("1.35.4", "1.35.4 is below 1.36, the oldest .* the nearest release is 1.36.4"),
        ("0.9.1", "is below 1.36"),
        ("latest", "'latest' is not of the form 1.36.4"),
        ("1.36", "'1.36' is not of the form"),
    ],
)
def test_version_that_is_not_there(version: str, expected: str) -> None:
    with pytest.raises(MirrorError, match=f"^kubernetes_version: .*{expected}"):
        find_release(str(RELEASES), version)


def test_leading_v_is_accepted() -> None:
    assert find_release(str(RELEASES), "v1.36.4").kubernetes == "1.36.4"


def test_directory_without_releases(tmp_path: Path) -> None:
    with pytest.raises(MirrorError, match=r"^releases_dir: .*has no <minor>.yml"):
        find_release(str(tmp_path), "1.36.4")
    with pytest.raises(MirrorError, match=r"^releases_dir: .*No such file"):
        find_release(str(tmp_path / "none"), "1.36.4")


@pytest.mark.parametrize(
    ("component", "expected"),
    [
        ({"version": "1", "upstream": {**URL, "url": "http://example.org/x"}}, "upstream: url: .*must be an https"),
        ({"version": "1", "upstream": {"url": "https://e.org/x"}}, "unverified files are not used"),
        ({"version": "1", "upstream": {**URL, "sha256": {"amd64": "abc"}}}, "sha256: amd64: 'abc' is not a SHA-256"),
        ({"version": 1.5, "upstream": URL}, "version: must be text; quote it"),
        ({"version": "1", "upstream": URL, "bild": {}}, "unknown field bild; there are .*build"),
        ({"version": "1"}, "needs at least one of upstream, build, distribution"),
        ({"version": "1", "build": {"module": "../x", "packages": ["a/b"]}}, "module: must be a directory below"),
        ({"version": "1", "build": {"module": "x", "packages": []}}, "packages: must name at least one"),
        ({"version": "1", "upstream": URL, "needed_for": {"moon": 1}}, "needed_for: must be a mapping with any of"),
        (
            {"version": "1", "upstream": URL, "build": {"module": "x", "packages": ["a/b"]}},
            "makes .*but upstream offers",
        ),
        ({"version": "1", "build": {"module": "x", "packages": ["a"], "stamp": {"a.b": "1 2"}}}, "no spaces or quotes"),
    ],
)
def test_wrong_component(tmp_path: Path, component: dict[str, Any], expected: str) -> None:
    releases = write_release(tmp_path, {"tool": component})
    with pytest.raises(MirrorError, match=rf"1\.36\.yml: components\.tool.*{expected}"):
        load_release(str(releases / "1.36.yml"))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({"name": "pause"}, "is not of the form registry/repository:tag"),
        ({"name": "e.org/a:1", "published": False}, "an image that is not published needs one"),
        ({"name": "e.org/a:1", "build": {"layout": {"/a": "b"}}}, "layout: b: not a program of its packages"),
    ],
)
def test_wrong_image(tmp_path: Path, image: dict[str, Any], expected: str) -> None:
    releases = write_release(tmp_path, {}, {"it": image})
    with pytest.raises(MirrorError, match=expected):
        load_release(str(releases / "1.36.yml"))


def test_file_that_is_no_release(tmp_path: Path) -> None:
    path = tmp_path / "1.36.yml"
    path.write_text("a: [")
    with pytest.raises(MirrorError, match=f"{re.escape(str(path))}: is not YAML"):
        load_release(str(path))
    path.write_text("release: '1.36'\nkubernetes: 1.37.0\narchitectures: [amd64]\n")
    with pytest.raises(MirrorError, match="disagree"):
        load_release(str(path))


def test_a_file_is_parsed_once_until_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "1.36.yml"
    path.write_text("release: '1.36'\n")
    first = read_release(str(path))
    assert read_release(str(path)) is first
    path.write_text("release: '1.36'\nkubernetes: 1.36.5\n")
    assert read_release(str(path)) == {"release": "1.36", "kubernetes": "1.36.5"}


def run_lookup(arguments: str) -> subprocess.CompletedProcess[str]:
    message = "{{ lookup('k8sgu.cluster.release', " + arguments + ") }}"
    return subprocess.run(
        [
            Path(sys.executable).with_name("ansible"),
            "-i",
            "localhost,",
            "localhost",
            "-m",
            "debug",
            "-a",
            json.dumps({"msg": message}),
        ],
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_lookup_gives_a_release_without_a_warning() -> None:
    done = run_lookup(f"'1.36.4', directory='{RELEASES}'")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    found = json.loads(done.stdout.partition("=>")[2])["msg"]
    assert found["kubernetes"] == "1.36.4"
    # Merged from another component's recipe, and overridden.
    assert found["components"]["kubelet"]["build"]["packages"] == ["k8s.io/kubernetes/cmd/kubelet"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (f"'1.36', directory='{RELEASES}'", "is not one Kubernetes version of the form 1.36.4"),
        (f"'1.36.4', '1.37.2', directory='{RELEASES}'", "is not one Kubernetes version of the form 1.36.4"),
        (f"'1.99.0', directory='{RELEASES}'", "1.99.yml: No such file or directory"),
    ],
)
def test_the_lookup_names_what_is_wrong(arguments: str, told: str) -> None:
    done = run_lookup(arguments)
    assert done.returncode != 0
    assert told in done.stdout + done.stderr
