# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every check of a node: what trips it, its message, and that a good node passes."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster import ports as port_table
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import INSTALL_ROOT, UNIT_DIRECTORY
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.record import DIRECTORY
from ansible_collections.k8sgu.cluster.plugins.module_utils._preflight import node, probe

PORTS = port_table.as_dictionaries("routed")
VALUES = {
    "k8sgu_cluster_name": "demo",
    "k8sgu_preflight_min_memory_mb": 1700,
    "k8sgu_preflight_min_disk_gb": 8,
    "k8sgu_preflight_max_clock_skew_seconds": 5,
}


def disk(mount: str = "/", *directories: str, **changes: Any) -> dict[str, Any]:
    room = {"size_mb": 20000, "free_mb": 9000, "inodes": 1000000, "free_inodes": 900000, "read_only": False}
    return {"mount": mount, "directories": list(directories or ("/", "/etc", "/opt", "/var/lib")), **room, **changes}


GOOD: dict[str, Any] = {
    "distribution": "debian",
    "distribution_version": "12",
    "architecture": "x86_64",
    "memory_mb": 4000,
    "disk_total_gb": 20.0,
    "disk_free_gb": 15.0,
    "file_systems": [disk()],
    "owner": "",
    "kernel": {"br_netfilter": True, "overlay": True, "nf_tables": True},
    "listeners": [],
    "unreached": {},
    "cloud_init": {"enabled": True, "finished": True, "stage": "", "errors": []},
    "time": 1000.5,
}
OURS = json.dumps({"cluster": "demo", "node": "demo-worker-0"})


def judged(
    control_plane: bool = False,
    values: dict[str, Any] | None = None,
    ports: list[dict[str, Any]] = PORTS,
    **changes: Any,
) -> list[str]:
    result = {"node": {**GOOD, **changes}, "clock": {"before": 1000.0, "after": 1001.0}}
    one = {"name": "demo-worker-0", "control_plane": control_plane, "probe": result}
    return node.check_node(one, {**VALUES, **(values or {})}, ports)


def listener(port: int, program: str, protocol: str = "tcp") -> list[dict[str, Any]]:
    return [{"address": "0.0.0.0", "port": port, "program": program, "protocol": protocol}]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"distribution": "ubuntu", "distribution_version": "20.04"},
        {"distribution": "ubuntu", "distribution_version": "24.04"},
        {"distribution_version": "11"},
        {"distribution_version": ""},
        {"architecture": "aarch64"},
        {"memory_mb": 1700},
        {"disk_free_gb": 8.0},
        {"owner": OURS},
        # The node's own cluster has filled it.
        {"owner": OURS, "disk_free_gb": 1.0},
        {"owner": OURS, "disk_free_gb": 0.5, "file_systems": [disk(free_mb=512, free_inodes=2000)]},
        {"file_systems": [disk(), disk("/tmp", "/tmp", free_mb=16, free_inodes=100)]},
        # Btrfs and the like have no table of inodes.
        {"file_systems": [disk(inodes=0, free_inodes=0)]},
        {"time": 996.0},
        {"time": 1005.9},
        {"listeners": listener(10250, "kubelet")},
        {"listeners": listener(10250, "kubelet (deleted)")},
        {"listeners": listener(22, "dropbear")},
        {"listeners": listener(8080, "python3")},
        # Of the control plane's ports a worker needs none.
        {"listeners": listener(2379, "python3")},
        {"listeners": listener(10250, "python3", "udp")},
        # Where streams and NodePorts are, any program may have one.
        {"listeners": listener(30500, "python3")},
    ],
)
def test_a_good_node_passes(changes: dict[str, Any]) -> None:
    assert judged(**changes) == []


@pytest.mark.parametrize(
    ("changes", "seen", "way_out"),
    [
        ({"distribution": "fedora", "distribution_version": "42"}, "system fedora 42", "Ubuntu from 20.04 or Debian"),
        ({"distribution": "ubuntu", "distribution_version": "18.04"}, "system ubuntu 18.04", "Ubuntu from 20.04"),
        ({"distribution_version": "10"}, "system debian 10", "Debian from 11"),
        ({"distribution": "", "distribution_version": ""}, "system unknown", "Debian from 11"),
        ({"architecture": "riscv64"}, "architecture riscv64", "x86_64 or aarch64"),
        ({"memory_mb": 1699}, "1699 MiB of memory", "larger instance type"),
        ({"disk_free_gb": 7.9}, "7.9 GiB free at /var/lib", "make room"),
        ({"disk_total_gb": 7.0, "disk_free_gb": 1.0, "owner": OURS}, "7.0 GiB in all", "k8sgu_root_volume_size"),
        *[
            (
                {"owner": owner, "file_systems": [disk(free_mb=0)]},
                "the file system at / is full: 0 of 20000 MiB are free, and a run needs 512",
                "enlarge it (k8sgu_root_volume_size)",
            )
            for owner in (OURS, "")
        ],
        ({"owner": OURS, "file_systems": [disk(free_mb=511)]}, "511 of 20000 MiB are free", "du -xh /"),
        ({"file_systems": [disk(free_inodes=0)]}, "/ is full: 0 of 1000000 inodes are free", "du --inodes -x /"),
        ({"file_systems": [disk(read_only=True)]}, "the file system at / is mounted read-only", "remount,rw /"),
        *[
            (
                {"file_systems": [disk(), disk(mount, mount, free_mb=free)]},
                f"the file system at {mount} is full",
                "or enlarge it",
            )
            for mount, free in (("/etc", 15), ("/tmp", 0), ("/var/log", 63), ("/opt", 511), ("/var/lib/etcd", 511))
        ],
        # Too little for a new node and nothing at all is one problem.
        ({"disk_free_gb": 0.0, "file_systems": [disk(free_mb=0)]}, "0.0 GiB free at /var/lib", "make room"),
        ({"time": 1000.0 - 6}, "6 s behind the controller's", "k8sgu_ntp_servers"),
        ({"time": 1001.0 + 60}, "60 s ahead of the controller's", "timedatectl"),
        ({"owner": json.dumps({"cluster": "prod", "node": "x"})}, "belongs to the cluster 'prod'", "use another node"),
        ({"owner": json.dumps({"cluster": "demo", "node": "demo-worker-7"})}, "'demo-worker-7'", "name it so"),
        ({"owner": "{"}, "is damaged", "remove it"),
        ({"owner": "[]"}, "is damaged", "remove it"),
        *[
            ({"kernel": {**GOOD["kernel"], feature: False}}, f"no {feature}", "linux-modules-extra")
            for feature in ("br_netfilter", "overlay", "nf_tables")
        ],
        ({"listeners": listener(10250, "python3")}, "TCP port 10250 of kubelet is taken by python3", "stop it"),
        ({"listeners": listener(10249, "nginx")}, "TCP port 10249 of kube-proxy is taken by nginx", "stop it"),
    ],
)
def test_a_bad_node_is_named_with_what_was_found_and_what_to_do(
    changes: dict[str, Any], seen: str, way_out: str
) -> None:
    problems = judged(**changes)
    assert len(problems) == 1, problems
    assert problems[0].startswith("demo-worker-0: ")
    assert seen in problems[0]
    assert way_out in problems[0]


@pytest.mark.parametrize(
    ("port", "program"),
    [
        (6443, "kube-apiserver"),
        (2379, "etcd"),
        (2380, "etcd"),
        (10257, "kube-controller-manager"),
        (10259, "kube-scheduler"),
    ],
)
def test_ports_of_the_control_plane(port: int, program: str) -> None:
    assert judged(control_plane=True, listeners=listener(port, program)) == []
    problems = judged(control_plane=True, listeners=listener(port, "nginx"))
    assert len(problems) == 1
    assert f"TCP port {port} of {program} is taken by nginx" in problems[0]


@pytest.mark.parametrize(
    ("network", "runtime", "listeners", "problem"),
    [
        ("vxlan", "containerd", listener(8472, "openvpn", "udp"), "UDP port 8472 of flannel is taken by openvpn"),
        # The envelope is the kernel's.
        ("vxlan", "containerd", listener(8472, "kernel", "udp"), ""),
        ("vxlan", "containerd", listener(8472, "openvpn"), ""),
        ("routed", "containerd", listener(8472, "openvpn", "udp"), ""),
        ("routed", "docker", listener(10010, "bacula"), "TCP port 10010 of container runtime is taken by bacula"),
        ("routed", "docker", listener(10010, "cri-dockerd"), ""),
        ("routed", "containerd", listener(10010, "bacula"), ""),
    ],
)
def test_ports_of_the_pod_network_and_the_container_runtime(
    network: str, runtime: str, listeners: list[dict[str, Any]], problem: str
) -> None:
    problems = judged(ports=port_table.as_dictionaries(network, runtime), listeners=listeners)
    assert len(problems) == bool(problem)
    assert problem in "".join(problems)


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ({"unreachable": True, "msg": "Connection refused"}, "could not be read: Connection refused"),
        ({"failed": True, "msg": "sudo: a password is required"}, "could not be read: sudo"),
        ({"failed": True, "module_stderr": "no python"}, "could not be read: no python"),
        ({}, "could not be read: nothing was read"),
        (
            {"unreachable": True, "msg": "mkdir: cannot create directory '/home/u/.ansible': No space left on device"},
            "its disk is full, so that Ansible cannot run there: mkdir",
        ),
        (
            {"failed": True, "msg": "MODULE FAILURE", "module_stderr": "OSError: [Errno 28] No space left on device"},
            "its disk is full, so that Ansible cannot run there: MODULE FAILURE",
        ),
        (
            {"failed": True, "module_stderr": "FileNotFoundError: No usable temporary directory found in ['/tmp']"},
            "its disk is full",
        ),
        ({"unreachable": True, "msg": "mkdir: '/home/u/.ansible': Read-only file system"}, "its disk is read-only"),
    ],
)
def test_a_node_that_cannot_be_read(result: dict[str, Any], reason: str) -> None:
    problems = node.check_node({"name": "w", "control_plane": False, "probe": result}, VALUES, PORTS)
    assert len(problems) == 1
    assert reason in problems[0]


def test_a_proxy_out_of_reach_is_named_with_the_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        there, gone = (f"127.0.0.1:{one.getsockname()[1]}" for one in (server, deaf))
        found = probe.unreached([there, gone, "proxy.invalid:3128"])
    assert set(found) == {gone, "proxy.invalid:3128"}
    assert found[gone] == "Connection refused"
    problems = node.check_proxy({"unreached": {gone: found[gone]}})
    assert len(problems) == 1
    assert problems[0].startswith(
        f"the proxy {gone} of k8sgu_proxy cannot be reached from the node (Connection refused); "
    )


VOLUME = {
    "id": "vol-1",
    "disk": {"link": "/dev/disk/by-id/x", "device": "/dev/nvme1n1", "size": 1 << 30, "kind": ""},
    "place": {"mounted": False, "source": "", "names": []},
    "half_made": False,
}


@pytest.mark.parametrize(
    ("volume", "told"),
    [
        (VOLUME, ""),
        ({}, ""),
        ({"error": "waited 30 s for a disk"}, "demo-worker-0: waited 30 s for a disk"),
        ({**VOLUME, "disk": {**VOLUME["disk"], "kind": "xfs"}}, "demo-worker-0: the volume vol-1 (/dev/nvme1n1) has a"),
        ({**VOLUME, "place": {**VOLUME["place"], "names": ["member"]}}, "demo-worker-0: /var/lib/etcd has data on the"),
        (
            {**VOLUME, "disk": {**VOLUME["disk"], "kind": "ext4", "mark": {"cluster": "prod", "node": "a"}}},
            "demo-worker-0: the volume vol-1 (/dev/nvme1n1) holds the data of the cluster 'prod' (its node a)",
        ),
    ],
)
def test_the_volume_for_etcd_is_blank_or_our_own(volume: dict[str, Any], told: str) -> None:
    problems = judged(volume=volume)
    assert len(problems) == bool(told) and all(problem.startswith(told) for problem in problems), problems


GIB = 1 << 30
LARGE = {**VOLUME, "disk": {**VOLUME["disk"], "size": 9 * GIB}}


@pytest.mark.parametrize(
    ("quota", "changes", "told"),
    [
        (4 * GIB, {"file_systems": [disk("/", "/", "/var/lib", "/var/lib/etcd", size_mb=13800)]}, ""),
        (
            4 * GIB,
            {"file_systems": [disk("/", "/", "/var/lib", "/var/lib/etcd", size_mb=12000)]},
            "cp-0: 11.7 GiB of disk for etcd's data, and a database that fills its quota (k8sgu_etcd_quota_bytes, "
            "4 GiB) needs 13.4 GiB",
        ),
        (
            "8589934592",
            {"file_systems": [disk(), disk("/var/lib/etcd", "/var/lib/etcd", size_mb=9000)]},
            "cp-0: 8.8 GiB of disk for etcd's data",
        ),
        (4 * GIB, {"volume": LARGE}, ""),
        (4 * GIB, {"volume": VOLUME}, "cp-0: 1 GiB of disk for etcd's data"),
        (256 << 20, {"volume": VOLUME}, ""),
        # Told once, of the description.
        (9 * GIB, {"volume": VOLUME}, ""),
    ],
)
def test_a_members_disk_holds_its_quota(quota: Any, changes: dict[str, Any], told: str) -> None:
    result = {"node": {**GOOD, **changes}, "clock": {"before": 1000.0, "after": 1001.0}}
    member = {"name": "cp-0", "control_plane": True, "etcd": True, "volume": "", "probe": result}
    values = {**VALUES, "k8sgu_etcd_quota_bytes": quota}
    problems = node.check_node(member, values, PORTS)
    assert len(problems) == bool(told) and all(problem.startswith(told) for problem in problems), problems
    assert node.check_node({**member, "etcd": False}, values, PORTS) == []


def test_a_volume_that_is_asked_for_is_there() -> None:
    wanted = {**VALUES, "k8sgu_etcd_volume_size": "5"}
    result = {"node": GOOD, "clock": {"before": 1000.0, "after": 1001.0}}
    member = {"name": "cp-0", "control_plane": True, "etcd": True, "volume": "", "probe": result}
    [problem] = node.check_node(member, wanted, PORTS)
    assert problem.startswith("cp-0: k8sgu_etcd_volume_size: 5 GiB, and it has no volume for etcd")
    assert node.check_node({**member, "volume": "vol-1"}, wanted, PORTS) == []
    assert node.check_node({**member, "etcd": False}, wanted, PORTS) == []


def test_all_problems_of_a_node_are_found_at_once() -> None:
    problems = judged(architecture="i686", memory_mb=1, time=0.0, listeners=listener(10250, "nginx"))
    assert len(problems) == 4


@pytest.mark.parametrize(("there", "expected"), [(9.0, -1.0), (10.0, 0.0), (12.0, 0.0), (15.0, 0.0), (17.5, 2.5)])
def test_a_slow_connection_is_no_skew(there: float, expected: float) -> None:
    assert node.skew(there, before=10.0, after=15.0) == expected


def machine(root: Path) -> None:
    """The files of a small machine without kernel features."""
    for directory in ("etc/k8sgu", "proc/net", "sys/module", "var/lib", f"lib/modules/{os.uname().release}"):
        (root / directory).mkdir(parents=True)
    (root / "etc/os-release").write_text('ID=ubuntu\nVERSION_ID="22.04"\n')
    (root / "proc/meminfo").write_text("MemTotal:        2097152 kB\n")
    (root / "proc/filesystems").write_text("nodev\ttmpfs\n\text4\n")


def test_what_is_read_of_a_machine(tmp_path: Path) -> None:
    machine(tmp_path)
    (tmp_path / "etc/k8sgu/cluster.json").write_text(OURS)
    # 0x2118 is 8472; no process holds the socket.
    bound = "0: 00000000:2118 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 4711 2 0 0"
    (tmp_path / "proc/net/udp").write_text(f"  sl  local_address ...\n {bound}\n")
    found = probe.probe(tmp_path)
    assert (found["distribution"], found["distribution_version"]) == ("ubuntu", "22.04")
    assert found["memory_mb"] == 2048
    assert found["disk_total_gb"] >= found["disk_free_gb"] > 0
    assert found["owner"] == OURS
    (here,) = found["file_systems"]
    assert here["mount"] == subprocess.check_output(["findmnt", "-no", "TARGET", "-T", tmp_path], text=True).strip()
    # What is not there yet will be made on the same one.
    assert here["directories"] == [f"/{name}" for name in probe.WRITTEN]
    assert 0 < here["free_mb"] <= here["size_mb"]
    assert not here["read_only"]
    assert found["listeners"] == listener(8472, "kernel", "udp")
    assert found["architecture"] == os.uname().machine


@pytest.mark.parametrize(
    ("path", "mount"),
    [("/", "/"), ("/etc", "/"), ("/var/lib", "/var"), ("/var", "/var"), ("/home/my disk/a", "/home/my disk")],
)
def test_where_a_directory_is_mounted(path: str, mount: str) -> None:
    mounts = "/dev/vda / ext4 rw 0 0\n/dev/vda /var ext4 ro 0 0\n/dev/vdb /home/my\\040disk ext4 rw 0 0\n\n"
    assert probe.mount_point(Path(path), probe.mount_points(mounts)) == mount


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({}, True),
        ({"mount": "/usr"}, True),
        ({"mount": "/usr", "free_mb": 8999, "free_inodes": 899990}, True),
        ({"mount": "/var/lib/etcd", "free_mb": 8000}, False),
        ({"mount": "/var/lib/etcd", "free_inodes": 1}, False),
        ({"mount": "/var/lib/etcd", "size_mb": 20001}, False),
        ({"mount": "/usr", "read_only": True}, False),
    ],
)
def test_two_mounts_of_one_storage_are_one(changes: dict[str, Any], same: bool) -> None:
    assert probe.same_storage(disk(), {**disk(), **changes}) is same


def test_what_the_roles_write_is_checked() -> None:
    """Each place of a component lies in a directory that is looked at, closer than the root."""
    roles = Path(__file__).resolve().parents[3] / "roles"
    texts = [path.read_text() for path in roles.glob("*/vars/**/*.yml")]
    places = {place for text in texts for place in re.findall(r"\b(?:dest|path): (/[a-z][\w/.-]*)", text)}
    places |= {INSTALL_ROOT, UNIT_DIRECTORY, DIRECTORY}
    assert len(places) > 40
    looked_at = tuple(f"/{name}/" for name in probe.WRITTEN if name)
    # What is in memory, and what only is read.
    assert {place for place in places if not f"{place}/".startswith((*looked_at, "/run/", "/sys/", "/proc/"))} == set()
    assert set(node.ROOM) <= {f"/{name}" for name in probe.WRITTEN}


@pytest.mark.parametrize("module", ["br_netfilter", "overlay"])
def test_a_kernel_feature_counts_when_loaded_built_in_or_loadable(tmp_path: Path, module: str) -> None:
    machine(tmp_path)
    modules = tmp_path / "lib/modules" / os.uname().release
    assert not probe.kernel_features(tmp_path)[module]
    (modules / "modules.builtin").write_text(f"kernel/net/{module}.ko\n")
    assert probe.kernel_features(tmp_path)[module]
    (modules / "modules.builtin").unlink()
    # One that only needs it does not stand for it.
    (modules / "modules.dep").write_text(f"kernel/net/other.ko.zst: kernel/net/{module}.ko.zst\n")
    assert not probe.kernel_features(tmp_path)[module]
    (modules / "modules.dep").write_text(f"kernel/net/{module}.ko.zst:\n")
    assert probe.kernel_features(tmp_path)[module]
    (modules / "modules.dep").unlink()
    (tmp_path / "sys/module" / module).mkdir()
    assert probe.kernel_features(tmp_path)[module]


def test_nf_tables_is_asked_of_the_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine(tmp_path)
    monkeypatch.setattr(probe, "nf_tables_answers", lambda: False)
    assert not probe.kernel_features(tmp_path)["nf_tables"]
    # No such netlink family: what a kernel without it answers.
    monkeypatch.undo()
    monkeypatch.setattr(probe, "NETLINK_NETFILTER", 31)
    assert not probe.nf_tables_answers()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, ""),
        ({"result.json": '{"v1": {"errors": ["x"]}}'}, ""),
        ({"enabled": "", "result.json": '{"v1": {"errors": []}}'}, ""),
        ({"enabled": ""}, "cloud-init is still at work; run again when"),
        ({"enabled": "", "status.json": "{"}, "cloud-init is still at work; run again when"),
        ({"enabled": "", "status.json": '{"v1": {"stage": "init"}}'}, "cloud-init is still at work (stage init); run"),
        (
            {"enabled": "", "status.json": '{"v1": {"stage": null}}', "result.json": '{"v1": {"errors": ["no", 1]}}'},
            "cloud-init failed, so that the machine is not what image and user data make of it: no; 1; see /var/log/",
        ),
    ],
    ids=["none", "off", "done", "begun", "half written", "at work", "failed"],
)
def test_cloud_init(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    directory = tmp_path / "run/cloud-init"
    directory.mkdir(parents=True)
    for name, text in files.items():
        (directory / name).write_text(text)
    found = probe.cloud_init(tmp_path)
    problems = judged(cloud_init=found)
    assert [problem.startswith(f"demo-worker-0: {expected}") for problem in problems] == [True] * bool(expected)
    assert judged(cloud_init=found, owner=OURS) == []
