# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which addresses a node needs a way to: by what it lacks, what has a publisher, and how it goes there."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._node.sources import sources


def file(component: str, source: str = "upstream", version: str = "1", arch: str = "amd64") -> dict[str, str]:
    made = {"component": component, "name": component, "version": version, "arch": arch, "source": source}
    return {**made, "origin": f"https://{component}.example/{version}"} if source == "upstream" else made


FILES = [
    file("etcd"),
    file("kubelet"),
    file("kubelet", version="0"),
    file("kubelet", arch="arm64"),
    file("runc", "build"),
    file("kubectl"),
    file("cri-dockerd"),
    file("gone"),
]
IMAGES = [
    {"name": "registry.k8s.io/pause:1", "source": "upstream"},
    {"name": "docker.io/library/redis:1", "source": "upstream"},
    {"name": "registry.example/own:1", "source": "build"},
    {"name": "old.example/pause:0", "source": "upstream"},
]
RELEASE = {
    "components": {
        **{name: {"version": "1"} for name in ("etcd", "kubelet", "runc", "kubectl")},
        "cri-dockerd": {"version": "1", "needed_for": {"container_runtime": "docker"}},
    },
    "images": {str(number): {"name": image["name"]} for number, image in enumerate(IMAGES[:3])},
}
DIRECT = {"mirror_url": "", "mirror_proxy": "", "publishers": {"use": True}, "registry_mirrors": []}
REGISTRIES = {
    "registry.k8s.io:443": ["registry.k8s.io/pause:1"],
    "registry-1.docker.io:443": ["docker.io/library/redis:1"],
}
KUBELET, ETCD = {"kubelet.example:443": ["kubelet 1"]}, {"etcd.example:443": ["etcd 1"]}
PROXY = {"use": True, "proxy": "http://proxy.example:3128", "no_proxy": ".k8s.io,etcd.example"}


def found(programs: tuple[str, ...] = (), control_plane: bool = False, **changes: Any) -> dict[str, list[str]]:
    node = {"architecture": "amd64", "control_plane": control_plane, "programs": list(programs)}
    selectors = {"container_runtime": changes.pop("runtime", "containerd"), "pod_network": "routed"}
    manifest = changes.pop("manifest", {"files": FILES, "images": IMAGES})
    return sources(manifest, RELEASE, selectors, node, {**DIRECT, **changes})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {**KUBELET, **REGISTRIES}),
        ({"control_plane": True}, {**ETCD, **KUBELET, **REGISTRIES}),
        ({"runtime": "docker"}, {**KUBELET, "cri-dockerd.example:443": ["cri-dockerd 1"], **REGISTRIES}),
        # runc comes from the first control-plane node, and the images are new to the node as runc is.
        ({"programs": ("kubelet/1/kubelet",)}, REGISTRIES),
        ({"programs": ("kubelet/0/kubelet", "runc/1/runc")}, {**KUBELET, **REGISTRIES}),
        ({"programs": ("kubelet/1/kubelet", "runc/1/runc")}, {}),
        ({"registry_mirrors": ["docker.io"]}, {**KUBELET, "registry.k8s.io:443": REGISTRIES["registry.k8s.io:443"]}),
        ({"publishers": {"use": False}}, {}),
        # Through the proxy, which preflight asks for itself; what is excepted from it the node has to reach.
        ({"publishers": PROXY, "control_plane": True}, {**ETCD, "registry.k8s.io:443": ["registry.k8s.io/pause:1"]}),
        ({"mirror_url": "http://mirror.example"}, {"mirror.example:80": ["kubelet 1", "runc 1"]}),
        ({"mirror_url": "https://mirror.example:8443/x"}, {"mirror.example:8443": ["kubelet 1", "runc 1"]}),
        ({"mirror_url": "http://mirror.example", "mirror_proxy": "http://proxy.example:1"}, {}),
        ({"manifest": {}}, {}),
    ],
)
def test_a_node_needs_a_way_to_what_it_lacks(changes: dict[str, Any], expected: dict[str, list[str]]) -> None:
    assert found(**changes) == expected
