# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What publishers serve: addresses, members of archives, and how the programs are linked.

Publishers are out of a test's reach, so this table was written from how each makes its releases: containerd
(.github/workflows/release, and every release's notes: the archive without `static` needs glibc 2.35), runc
(script/release_build.sh), etcd (scripts/build-binary.sh), the CNI plugins (.github/workflows/release.yaml), cri-tools
(hack/release.sh), kube-router (.goreleaser.yml; its releases after July 2026 name the sums checksums.txt), flannel
(Makefile, tar.gz) and cri-dockerd (packaging/static/Makefile). A release file that differs fails here, so that whoever
changes an address reads its publisher's files again.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._component import fetch
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import Artifact
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.archive import extract
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.plan import fill
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.release import Component, load_release
from ansible_collections.k8sgu.cluster.tests.unit.mirror.mirror_support import RELEASES

GITHUB = "https://github.com/{0}/releases/download/v{{version}}/{1}"
KUBERNETES = "https://dl.k8s.io/release/v{{version}}/bin/linux/{{arch}}/{0}"
PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl")
CNI = [
    "bandwidth",
    "bridge",
    "dhcp",
    "dummy",
    "firewall",
    "host-device",
    "host-local",
    "ipvlan",
    "loopback",
    "macvlan",
    "portmap",
    "ptp",
    "sbr",
    "static",
    "tap",
    "tuning",
    "vlan",
    "vrf",
    "LICENSE",
    "README.md",
]
# {component: (address, members of the archive; none where the address is the program)}; every program is static.
LAYOUT: dict[str, tuple[str, list[str]]] = {
    **{name: (KUBERNETES.format(name), []) for name in PROGRAMS},
    "etcd": (
        GITHUB.format("etcd-io/etcd", "etcd-v{version}-linux-{arch}.tar.gz"),
        [
            "etcd-v{version}-linux-{arch}/" + name
            for name in ("Documentation/README.md", "README.md", "etcdctl", "etcdutl", "etcd")
        ],
    ),
    "containerd": (
        GITHUB.format("containerd/containerd", "containerd-static-{version}-linux-{arch}.tar.gz"),
        ["bin/" + name for name in ("containerd", "containerd-shim-runc-v2", "containerd-stress", "ctr")],
    ),
    "runc": (GITHUB.format("opencontainers/runc", "runc.{arch}"), []),
    "cni-plugins": (
        GITHUB.format("containernetworking/plugins", "cni-plugins-linux-{arch}-v{version}.tgz"),
        ["./" + name for name in CNI],
    ),
    "age": (
        GITHUB.format("FiloSottile/age", "age-v{version}-linux-{arch}.tar.gz"),
        ["age/" + name for name in ("age-plugin-batchpass", "age-keygen", "age-inspect", "LICENSE", "age")],
    ),
    "crictl": (GITHUB.format("kubernetes-sigs/cri-tools", "crictl-v{version}-linux-{arch}.tar.gz"), ["crictl"]),
    "kube-router": (
        GITHUB.format("cloudnativelabs/kube-router", "kube-router_{version}_linux_{arch}.tar.gz"),
        ["LICENSE", "README.md", "kube-router"],
    ),
    "flannel": (
        GITHUB.format("flannel-io/flannel", "flannel-v{version}-linux-{arch}.tar.gz"),
        ["flanneld", "mk-docker-opts.sh", "README.md"],
    ),
    "node-exporter": (
        GITHUB.format("prometheus/node_exporter", "node_exporter-{version}.linux-{arch}.tar.gz"),
        ["node_exporter-{version}.linux-{arch}/" + name for name in ("LICENSE", "NOTICE", "node_exporter")],
    ),
    "cri-dockerd": (
        GITHUB.format("Mirantis/cri-dockerd", "cri-dockerd-{version}.{arch}.tgz"),
        ["cri-dockerd/cri-dockerd"],
    ),
}
MINORS = sorted(path.stem for path in RELEASES.glob("*.yml") if not path.stem.endswith(".lock"))


def components() -> list[tuple[str, Component, str]]:
    releases = [load_release(str(RELEASES / f"{minor}.yml")) for minor in MINORS]
    return [
        (one.minor, component, arch) for one in releases for component in one.components for arch in one.architectures
    ]


CASES = [
    pytest.param(component, arch, id=f"{minor}-{component.name}-{arch}") for minor, component, arch in components()
]


@pytest.mark.parametrize(("component", "arch"), CASES)
def test_an_address_is_its_publishers(component: Component, arch: str) -> None:
    upstream = component.upstream
    assert upstream is not None
    url = LAYOUT[component.name][0].format(version=component.version, arch=arch)
    assert fill(upstream.url, component.version, arch) == url
    known = upstream.sha256.get(arch) or fill(upstream.checksums, component.version, arch)
    assert known
    others = {upstream.sha256.get(other) for other in upstream.sha256 if other != arch}
    assert known not in others


@pytest.mark.parametrize(
    ("component", "arch"),
    [case for case in CASES if LAYOUT[case.values[0].name][1]],  # type: ignore[union-attr]
)
def test_the_members_of_an_archive_are_found(tmp_path: Path, component: Component, arch: str) -> None:
    """On the controller, which extracts the archive, and on a node, which reads it as it comes."""
    upstream = component.upstream
    assert upstream is not None
    members = [name.format(version=component.version, arch=arch) for name in LAYOUT[component.name][1]]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in members:
            content = f"{name} of {arch}".encode()
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755
            tar.addfile(info, io.BytesIO(content))
    archive = tmp_path / "archive.tgz"
    archive.write_bytes(gzip.compress(packed.getvalue()))
    placed = extract(str(archive), upstream.files, str(tmp_path / "controller"))
    assert set(placed) == set(component.files)

    left = {}
    for name, path in placed.items():
        content = Path(path).read_bytes()
        target = tmp_path / "node" / name
        left[name] = Artifact(str(target), "unused", hashlib.sha256(content).hexdigest(), len(content))
    (tmp_path / "node").mkdir()
    if os.geteuid() != 0:
        pytest.skip("a node's programs are made root's, and this is another user")
    with archive.open("rb") as stream:
        fetch._unpack(left, stream, "https://publisher.example/archive.tgz")
    assert {path.name: path.read_bytes() for path in (tmp_path / "node").iterdir()} == {
        name: Path(path).read_bytes() for name, path in placed.items()
    }
