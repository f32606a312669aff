# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node shows of its cluster, read from a file system like a node's."""

from __future__ import annotations

import json
import re
import ssl
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._node import membership

ETCD_UNIT = """\
ExecStart=/opt/k8sgu/etcd/current/etcd \\
  --name=cp-0 \\
  --listen-peer-urls=https://10.240.0.10:2380 \\
"""
ETCD_INITIAL = """\
ETCD_INITIAL_CLUSTER=cp-0=https://10.240.0.10:2380,cp-1=https://10.240.0.11:2380
ETCD_INITIAL_CLUSTER_STATE=new
"""
API_UNIT = """\
  --service-account-issuer=https://kubernetes.default.svc.cluster.local \\
  --service-cluster-ip-range=10.32.0.0/16 \\
"""
KUBELET = """\
clusterDNS:
- 10.32.0.10
clusterDomain: cluster.local
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
"""
BRIDGE = json.dumps({"plugins": [{"type": "bridge", "ipam": {"ranges": [[{"subnet": "10.200.1.0/24"}]]}}]})
MANAGER = "  --cluster-cidr=10.200.0.0/16"
ANSWER = json.dumps(
    [
        {"id": 1, "peerURLs": ["https://10.240.0.10:2380"], "name": "cp-0", "clientURLs": ["https://10.240.0.10:2379"]},
        {"id": 2, "peerURLs": ["https://10.240.0.11:2380"], "name": "cp-1"},
        {"id": 3, "peerURLs": ["https://10.240.0.12:2380"], "isLearner": True},
    ]
)
SHOWN = {
    "k8sgu_service_cidr": "10.32.0.0/16",
    "k8sgu_cluster_domain": "cluster.local",
    "k8sgu_pod_cidr": "10.200.0.0/16",
    "k8sgu_cluster_dns_address": "10.32.0.10",
    "k8sgu_pod_cidr_node_prefix": 24,
    "k8sgu_pod_network": "routed",
}


def write(root: Path, path: str, content: str = "") -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content)


def answers(address: str, pki: Path) -> str:
    assert address == "https://10.240.0.10:2380"
    return ANSWER


def silent(address: str, pki: Path) -> str:
    raise ConnectionRefusedError


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A control-plane node of a cluster that has no record."""
    write(tmp_path, membership.ETCD, ETCD_UNIT)
    write(tmp_path, membership.ETCD_INITIAL, ETCD_INITIAL)
    write(tmp_path, f"{membership.ETCD_DATA}/wal")
    write(tmp_path, membership.API_SERVER, API_UNIT)
    write(tmp_path, membership.CONTROLLER_MANAGER, MANAGER)
    write(tmp_path, membership.KUBELET_CONFIG, KUBELET)
    write(tmp_path, membership.CNI_CONFIG, BRIDGE)
    write(tmp_path, "etc/k8sgu/cluster.json", '{"cluster": "demo", "node": "cp-0"}')
    write(tmp_path, f"{membership.PODS}/one/etc-hosts")
    write(tmp_path, "opt/k8sgu/kube-apiserver/1.36.4/kube-apiserver")
    (tmp_path / "opt/k8sgu/kube-apiserver/current").symlink_to("1.36.4")
    return tmp_path


def test_a_machine_just_made_tells_nothing(tmp_path: Path) -> None:
    assert membership.membership(tmp_path, active=False, fetch=silent) == {
        "cluster": "",
        "fixed": {},
        "born": False,
        "etcd": {
            "data": False,
            "joined": False,
            "volume": False,
            "mounted": False,
            "initial": [],
            "refused": False,
            "members": None,
            "restoring": "",
        },
        "programs": {},
        "kept": {},
        "emulates": "",
        "runtime": "",
        "cgroup_driver": "",
        "pods": 0,
    }


def test_a_node_without_a_record_shows_what_its_cluster_was_made_with(old: Path) -> None:
    found = membership.membership(old, active=False, fetch=answers)
    assert found == {
        "cluster": "demo",
        "fixed": SHOWN,
        "born": True,
        "etcd": {
            "data": True,
            "joined": False,
            "volume": False,
            "mounted": False,
            "restoring": "",
            "initial": ["cp-0", "cp-1"],
            "refused": False,
            "members": [
                {"name": "cp-0", "address": "10.240.0.10", "started": True, "learner": False},
                {"name": "cp-1", "address": "10.240.0.11", "started": False, "learner": False},
                {"name": "", "address": "10.240.0.12", "started": False, "learner": True},
            ],
        },
        "programs": {"kube-apiserver": "1.36.4"},
        "kept": {"kube-apiserver": ["1.36.4"]},
        "emulates": "",
        "runtime": "containerd",
        "cgroup_driver": "",
        "pods": 1,
    }


@pytest.mark.parametrize(
    ("runtime", "path", "content", "driver"),
    [
        ("containerd", "etc/containerd/config.toml", "  [options]\n    SystemdCgroup = true\n", "systemd"),
        ("containerd", "etc/containerd/config.toml", "# SystemdCgroup = true\nSystemdCgroup = false\n", "cgroupfs"),
        ("containerd", "etc/containerd/config.toml", "version = 3\n", ""),
        ("docker", "etc/docker/daemon.json", '{"exec-opts": ["native.cgroupdriver=systemd"]}', "systemd"),
        ("docker", "etc/docker/daemon.json", '{"exec-opts": ["native.cgroupdriver=cgroupfs"]}', "cgroupfs"),
        # The engine's own containerd says nothing of pods.
        ("docker", "etc/containerd/config.toml", "SystemdCgroup = false\n", ""),
        ("", "etc/containerd/config.toml", "SystemdCgroup = false\n", ""),
    ],
)
def test_the_cgroup_driver_is_the_runtimes(tmp_path: Path, runtime: str, path: str, content: str, driver: str) -> None:
    write(tmp_path, path, content)
    if runtime:
        socket = {"docker": "cri-dockerd.sock", "containerd": "containerd/containerd.sock"}[runtime]
        write(tmp_path, membership.KUBELET_CONFIG, f"containerRuntimeEndpoint: unix:///run/{socket}\n")
    found = membership.membership(tmp_path, active=False, fetch=silent)
    assert (found["runtime"], found["cgroup_driver"]) == (runtime, driver)


def test_what_an_upgrade_has_fetched_is_kept_and_not_in_use(old: Path) -> None:
    write(old, "opt/k8sgu/kube-apiserver/1.37.2/kube-apiserver")
    write(old, "opt/k8sgu/kubelet/1.37.2/kubelet")
    found = membership.membership(old, active=False, fetch=silent)
    assert (found["programs"], found["kept"]) == (
        {"kube-apiserver": "1.36.4"},
        {"kube-apiserver": ["1.36.4", "1.37.2"], "kubelet": ["1.37.2"]},
    )


@pytest.mark.parametrize("flag", ["--emulated-version=1.36 \\\n", "--emulated-version=kube=1.36\n"])
def test_an_api_server_that_behaves_as_the_release_before_says_so(old: Path, flag: str) -> None:
    write(old, membership.API_SERVER, API_UNIT + "  " + flag)
    assert membership.membership(old, active=False, fetch=silent)["emulates"] == "1.36"


def test_a_volume_of_its_own_for_etcd_is_seen_by_its_unit(old: Path) -> None:
    write(old, membership.ETCD_MOUNT, "[Mount]")
    etcd = membership.membership(old, active=False, fetch=silent)["etcd"]
    assert (etcd["volume"], etcd["mounted"], etcd["data"]) == (True, False, True)


def test_the_record_is_used_and_not_a_users_flags(old: Path) -> None:
    write(
        old, "etc/k8sgu/cluster.json", json.dumps({"cluster": "demo", "fixed": {"k8sgu_service_cidr": "10.0.0.0/16"}})
    )
    found = membership.membership(old, active=False, fetch=silent)["fixed"]
    assert found == {**SHOWN, "k8sgu_service_cidr": "10.0.0.0/16"}


@pytest.mark.parametrize("content", ["{", "[]", '"x"', '{"fixed": null}'])
def test_a_damaged_record_is_none(old: Path, content: str) -> None:
    write(old, "etc/k8sgu/cluster.json", content)
    assert membership.membership(old, active=False, fetch=silent)["fixed"] == SHOWN


@pytest.mark.parametrize(
    ("path", "content", "changes"),
    [
        ("etc/systemd/system/flanneld.service", "", {"k8sgu_pod_network": "vxlan"}),
        # A cache of names on each node is the user's own.
        (
            membership.KUBELET_CONFIG,
            KUBELET.replace("10.32.0.10", "169.254.20.10"),
            {"k8sgu_cluster_dns_address": None},
        ),
        (membership.CNI_CONFIG, "{}", {"k8sgu_pod_cidr_node_prefix": None}),
        (membership.CONTROLLER_MANAGER, "", {"k8sgu_pod_cidr": None}),
    ],
)
def test_what_is_shown(old: Path, path: str, content: str, changes: dict[str, Any]) -> None:
    write(old, path, content)
    expected = {name: value for name, value in {**SHOWN, **changes}.items() if value is not None}
    assert membership.options_in_use(old) == expected


@pytest.mark.parametrize("trace", [membership.ETCD_JOINED, *membership.BORN])
def test_each_trace_of_a_quorum_says_that_the_cluster_was_born(tmp_path: Path, trace: str) -> None:
    write(tmp_path, trace)
    found = membership.membership(tmp_path, active=False, fetch=silent)
    assert (found["born"], found["etcd"]["joined"]) == (True, trace == membership.ETCD_JOINED)


@pytest.mark.parametrize(("active", "born"), [(True, True), (False, False)])
def test_data_without_a_joined_member_is_not_a_birth(tmp_path: Path, active: bool, born: bool) -> None:
    write(tmp_path, f"{membership.ETCD_DATA}/wal")
    found = membership.membership(tmp_path, active, fetch=silent)
    assert (found["etcd"]["data"], found["etcd"]["joined"], found["born"]) == (True, active, born)


def test_an_empty_data_directory_is_no_data(tmp_path: Path) -> None:
    (tmp_path / membership.ETCD_DATA).mkdir(parents=True)
    assert membership.etcd(tmp_path, silent)["data"] is False


def test_a_member_without_data_is_not_asked(tmp_path: Path) -> None:
    write(tmp_path, membership.ETCD, ETCD_UNIT)

    def never(address: str, pki: Path) -> str:
        raise AssertionError(address)

    assert membership.etcd(tmp_path, never)["members"] is None


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate has expired"), True),
        (ssl.SSLError(1, "[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca"), True),
        (ssl.SSLError(1, "[SSL: SSLV3_ALERT_CERTIFICATE_EXPIRED] alert"), True),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), False),
        (TimeoutError("timed out"), False),
        (ConnectionRefusedError(), False),
    ],
)
def test_a_refused_certificate_is_told_from_silence(old: Path, error: OSError, refused: bool) -> None:
    if isinstance(error, ssl.SSLError):
        error.reason = re.sub(r"^\[SSL: (\w+)\].*", r"\1", error.args[1])  # OpenSSL sets it; here nobody does

    def fails(address: str, pki: Path) -> str:
        raise error

    found = membership.etcd(old, fails)
    assert (found["members"], found["refused"]) == (None, refused)


@pytest.mark.parametrize("answer", ["", "not found", "{}", "[1]", "null"])
def test_an_answer_that_is_none_is_no_answer(old: Path, answer: str) -> None:
    assert not membership.etcd(old, lambda address, pki: answer)["members"]


def test_a_restore_shows_once_data_was_set_aside(tmp_path: Path) -> None:
    write(tmp_path, membership.ETCD_RESTORE, '{"id": "20261129T181500Z", "snapshot": "s.db"}')
    assert membership.etcd(tmp_path)["restoring"] == ""
    (tmp_path / f"{membership.ETCD_DATA}-before-20261129T181500Z").mkdir(parents=True)
    assert membership.etcd(tmp_path)["restoring"] == "s.db"
