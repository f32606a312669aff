# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is needed, and where it comes from, by table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.errors import MirrorError
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.gobuild import Sources
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.plan import (
    Options,
    Step,
    Want,
    decide,
    fallback,
    missing,
    publishers,
    wanted,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.release import (
    Component,
    Recipe,
    Upstream,
    find_release,
    load_release,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.store import Store
from ansible_collections.k8sgu.cluster.tests.unit.mirror.mirror_support import RELEASES

UPSTREAM = Upstream("https://e.org/{version}/{arch}", sha256={"amd64": "0" * 64})
RECIPE = Recipe("tool", (("tool", "."),))
SELECTORS = {
    "container_runtime": "containerd",
    "pod_network": "routed",
    "metrics_server": True,
    "observability": True,
    "demo": True,
}


def options(source: str = "auto", **selectors: Any) -> Options:
    return Options(source, ("amd64",), {**SELECTORS, **selectors})


def step(upstream: bool, build: bool, package: str = "") -> Step:
    component = Component("tool", "1.0", UPSTREAM if upstream else None, (RECIPE,) if build else (), package, {})
    return Step(Want(component, None, ("amd64",)), "not in the mirror")


@pytest.mark.parametrize(
    ("source", "upstream", "build", "package", "reachable", "expected"),
    [
        ("auto", True, True, "", True, "upstream"),
        ("auto", True, True, "", False, "build"),
        ("auto", True, False, "runc", False, "distribution"),
        ("auto", True, False, "runc", True, "upstream"),
        ("auto", False, True, "", True, "build"),
        ("upstream", True, True, "", False, "upstream"),
        ("upstream", False, True, "", True, "build"),
        ("build", True, True, "", True, "build"),
        ("build", True, False, "runc", True, "distribution"),
        ("directory", True, True, "", True, "directory"),
    ],
)
def test_source(source: str, upstream: bool, build: bool, package: str, reachable: bool, expected: str) -> None:
    unreachable = {} if reachable else {"e.org": "https://e.org: refused"}
    [decided] = decide([step(upstream, build, package)], options(source), unreachable)
    assert decided.source == expected


def test_automatic_choice_says_why() -> None:
    [built] = decide([step(True, True)], options(), {"e.org": "refused"})
    assert built.because == "e.org does not answer"
    [taken] = decide([step(True, True)], options(), {})
    assert taken.because == "e.org answers"


@pytest.mark.parametrize(
    ("source", "upstream", "unreachable", "expected"),
    [
        ("build", True, {}, "there is no recipe to build it; choose source: upstream or directory"),
        ("auto", True, {"e.org": "https://e.org: refused"}, "refused, and there is no recipe"),
        ("upstream", False, {}, "is not published"),
    ],
)
def test_no_source(source: str, upstream: bool, unreachable: dict[str, str], expected: str) -> None:
    with pytest.raises(MirrorError, match=f"^tool 1.0 amd64: .*{expected}"):
        decide([step(upstream, False)], options(source), unreachable)


@pytest.mark.parametrize(
    ("selectors", "there", "not_there"),
    [
        ({}, {"containerd", "runc", "kube-router"}, {"cri-dockerd", "flannel"}),
        ({"container_runtime": "docker"}, {"cri-dockerd"}, {"containerd", "runc"}),
        ({"pod_network": "vxlan"}, {"flannel"}, {"cri-dockerd"}),
        ({"demo": False}, {"pause", "coredns", "metrics-server"}, {"demo-database", "agnhost"}),
        ({"observability": False}, {"kubelet", "coredns"}, {"node-exporter"}),
        ({"metrics_server": False}, {"pause", "coredns", "agnhost"}, {"metrics-server"}),
    ],
)
def test_only_what_the_options_need(selectors: dict[str, Any], there: set[str], not_there: set[str]) -> None:
    wants = wanted(find_release(str(RELEASES), "1.36.4"), options(**selectors))
    names = {
        want.component.name if want.component else want.image.key for want in wants if want.component or want.image
    }
    assert there <= names
    assert not names & not_there


@pytest.mark.parametrize("minor", ["1.36", "1.37"])
@pytest.mark.parametrize("runtime", ["containerd", "docker"])
def test_upstream_alone_serves(tmp_path: Path, minor: str, runtime: str) -> None:
    """With source: upstream the controller needs neither Go nor apt: everything is published, the demo too."""
    chosen = Options(
        "upstream", ("amd64", "arm64"), {**SELECTORS, "container_runtime": runtime, "pod_network": "vxlan"}
    )
    wants = wanted(load_release(str(RELEASES / f"{minor}.yml")), chosen)
    steps = decide(missing(wants, Store(str(tmp_path)), chosen, Sources(str(RELEASES / "build"))), chosen, {})
    assert [step.describe() for step in steps if step.source != "upstream"] == []


def test_each_architecture_once() -> None:
    release = find_release(str(RELEASES), "1.36.4")
    wants = wanted(release, Options("auto", ("arm64", "amd64", "arm64"), SELECTORS))
    assert [want.arches for want in wants if want.component and want.component.name == "etcd"] == [
        ("amd64",),
        ("arm64",),
    ]
    assert {want.arches for want in wants if want.image} == {("amd64", "arm64")}


@pytest.mark.parametrize("arches", [("riscv64",), ("amd64", "s390x"), ()])
def test_architecture_that_is_not_there(arches: tuple[str, ...]) -> None:
    with pytest.raises(MirrorError, match=r"^architectures: 1\.36\.4 has no .*it has amd64, arm64"):
        wanted(find_release(str(RELEASES), "1.36.4"), Options("auto", arches, SELECTORS))


def test_one_probe_for_each_publisher(tmp_path: Path) -> None:
    wants = wanted(find_release(str(RELEASES), "1.36.4"), options())
    steps = missing(wants, Store(str(tmp_path)), options(), Sources(str(RELEASES / "build")))
    found = publishers(steps, lambda _url: False)
    assert sorted(found) == ["dl.k8s.io", "github.com", "registry-1.docker.io", "registry.k8s.io"]


def test_the_publisher_of_the_checksum_is_probed_too(tmp_path: Path) -> None:
    wants = wanted(find_release(str(RELEASES), "1.36.4"), options(pod_network="vxlan"))
    flannel = [want for want in wants if want.component and want.component.name == "flannel"]
    steps = missing(flannel, Store(str(tmp_path)), options(), Sources(str(RELEASES / "build")))
    assert sorted(publishers(steps, lambda _url: False)) == ["api.github.com", "github.com"]
    assert sorted(publishers(steps, lambda _url: True)) == ["github.com"]
    silent = {"api.github.com": "refused"}
    [built] = decide(steps, options(), silent)
    assert (built.source, built.because) == ("build", "api.github.com does not answer")
    [pinned] = decide(steps, options(), silent, lambda _url: True)
    assert pinned.source == "upstream"


@pytest.mark.parametrize(
    ("build", "package", "expected"), [(True, "", "build"), (False, "runc", "distribution"), (False, "", None)]
)
def test_what_is_left_where_the_publisher_gives_nothing(build: bool, package: str, expected: str | None) -> None:
    other = fallback(step(True, build, package), "404")
    assert (other and (other.source, other.because)) == (expected and (expected, "404"))
