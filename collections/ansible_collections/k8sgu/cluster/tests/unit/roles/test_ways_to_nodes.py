# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the first control-plane node serves, and who fetches where: the variables of cluster_facts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROLES = Path(__file__).resolve().parents[3] / "roles"
# There are no plugins in a test's process: the manifest is given as text, and variables are named, not looked up.
LOOKUP = "lookup('ansible.builtin.file', k8sgu_mirror_dir ~ '/manifest.json', errors='ignore')"
TEXT = (ROLES / "cluster_facts" / "vars" / "main.yml").read_text().replace(LOOKUP, "manifest_text")
FACTS = yaml.safe_load(re.sub(r"lookup\('ansible.builtin.vars', '(\w+)'\)", r"\1", TEXT))
NAMES = (
    "cluster_facts_manifest",
    "cluster_facts_node_mirror_url",
    "cluster_facts_served",
    "k8sgu_selectors",
    "cluster_facts_mirror_host",
    "k8sgu_node_mirror",
    "k8sgu_files_url",
    "k8sgu_files_ca",
)
NAMES = (*NAMES, "k8sgu_publishers")


def file(component: str, source: str, version: str = "1.0", arch: str = "amd64") -> dict[str, str]:
    path = f"files/{component}/{version}/{arch}/{component}"
    return {"component": component, "version": version, "arch": arch, "source": source, "path": path}


MANIFEST = {
    "files": [
        file("etcd", "build"),
        file("etcd", "build", version="0.9"),
        file("etcd", "build", arch="arm64"),
        file("kubelet", "upstream"),
        file("kubectl", "build"),
        file("flannel", "build"),
        file("cri-dockerd", "build"),
        file("age", "build"),
        file("gone", "build"),
    ],
    "images": [
        {"name": "docker.io/library/redis:1", "source": "build"},
        {"name": "registry.k8s.io/pause:1", "source": "upstream"},
        {"name": "registry.k8s.io/pause:0", "source": "build"},
    ],
}
RELEASE = {
    "components": {
        **{name: {"version": "1.0"} for name in ("etcd", "kubelet", "kubectl")},
        "flannel": {"version": "1.0", "needed_for": {"pod_network": "vxlan"}},
        "cri-dockerd": {"version": "1.0", "needed_for": {"container_runtime": "docker"}},
        "age": {"version": "1.0", "needed_for": {"backup_bucket": True}},
    },
    "images": {"database": {"name": "docker.io/library/redis:1"}, "pause": {"name": "registry.k8s.io/pause:1"}},
}


def evaluated(manifest: dict[str, Any] | None, **given: Any) -> dict[str, Any]:
    variables = {
        # The lookup of a file that is not there gives none.
        "manifest_text": json.dumps(manifest) if manifest else None,
        "cluster_facts_architectures": ["amd64"],
        "k8sgu_release": RELEASE,
        "cluster_facts_releases": [RELEASE],
        "k8sgu_mirror_url": "",
        "k8sgu_artifact_source": "auto",
        "k8sgu_container_runtime": "containerd",
        "k8sgu_backup_bucket": "",
        "k8sgu_observability": True,
        "k8sgu_pod_network": "routed",
        "k8sgu_pki_dir": "/pki",
        "k8sgu_node_proxy": {"https": "http://proxy.example:1", "no_proxy": ".example"},
        "groups": {"control_plane": ["b", "a"]},
        "hostvars": {"a": {"ec2_private_ip": "10.0.0.4"}},
        **{name: trust(FACTS[name]) for name in NAMES},
        **given,
    }
    templar = Templar(DataLoader(), variables=variables)
    return {name: templar.template(variables[name]) for name in NAMES}


def trust(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: trust(item) for key, item in value.items()}
    return trust_as_template(value)


def served(found: dict[str, Any]) -> list[str]:
    files = [path.split("/", 1)[1].rpartition("/")[0] for path in found["k8sgu_node_mirror"]["served"]["files"]]
    return files + found["k8sgu_node_mirror"]["served"]["images"]


def test_during_an_upgrade_both_releases_are_served() -> None:
    before = {"components": {"etcd": {"version": "0.9"}}, "images": {"pause": {"name": "registry.k8s.io/pause:0"}}}
    both = served(evaluated(MANIFEST, cluster_facts_releases=[RELEASE, before]))
    assert both == ["etcd/1.0/amd64", "etcd/0.9/amd64", "docker.io/library/redis:1", "registry.k8s.io/pause:0"]


REDIS, PAUSE = "docker.io/library/redis:1", "registry.k8s.io/pause:1"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ["etcd/1.0/amd64", REDIS]),
        ({"k8sgu_artifact_source": "directory"}, ["etcd/1.0/amd64", "kubelet/1.0/amd64", REDIS, PAUSE]),
        ({"k8sgu_pod_network": "vxlan"}, ["etcd/1.0/amd64", "flannel/1.0/amd64", REDIS]),
        ({"k8sgu_container_runtime": "docker"}, ["etcd/1.0/amd64", "cri-dockerd/1.0/amd64", REDIS]),
        ({"k8sgu_backup_bucket": "backups"}, ["etcd/1.0/amd64", "age/1.0/amd64", REDIS]),
        ({"cluster_facts_architectures": ["amd64", "arm64"]}, ["etcd/1.0/amd64", "etcd/1.0/arm64", REDIS]),
        ({"cluster_facts_architectures": []}, ["etcd/1.0/amd64", "etcd/1.0/arm64", REDIS]),
        ({"k8sgu_mirror_url": "https://mirror.example"}, []),
        # As in check mode, where the mirror may not be filled yet.
        (None, []),
    ],
)
def test_the_first_node_serves_what_the_others_need_and_cannot_fetch(
    given: dict[str, Any] | None, expected: list[str]
) -> None:
    found = evaluated(MANIFEST if given is not None else None, **(given or {}))
    given = given or {}
    assert served(found) == expected
    url = given.get("k8sgu_mirror_url") or ("https://10.0.0.4:5443" if expected else "")
    assert found["k8sgu_files_url"] == url
    assert found["k8sgu_files_ca"] == ("/pki/kubernetes-ca-bundle.pem" if expected else "")
    assert found["k8sgu_node_mirror"]["host"] == ("a" if expected else "")
    # Also where it serves nothing: what names it on nodes is removed by it.
    assert found["k8sgu_node_mirror"]["address"] == "10.0.0.4:5443"
    fetches = not given.get("k8sgu_mirror_url") and given.get("k8sgu_artifact_source") != "directory"
    assert found["k8sgu_publishers"]["use"] is fetches
