# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks with a bad description and on a bad node: one message with everything that is wrong, and no change."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import ansible_program
import ec2_account
import lab_node
import moto_server

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster import names as name_rules

NAME = "demo-control-plane-0"
ENVIRONMENT = dict(os.environ)
# Nobody listens there, so that the connection is refused at once.
DEAD = {"ansible_host": "127.0.0.1", "ansible_port": 1, "ec2_private_ip": "10.99.0.250"}


def inventory(directory: Path, control_plane: dict[str, Any], workers: dict[str, Any]) -> Path:
    hosts = {NAME: control_plane}
    children = {"control_plane": {"hosts": hosts}, "etcd": {"hosts": {NAME: {}}}, "worker": {"hosts": workers}}
    return written(directory, children)


def written(directory: Path, children: dict[str, Any]) -> Path:
    path = directory / "inventory.yml"
    # JSON is YAML.
    path.write_text(json.dumps({"all": {"children": children}}))
    return path


def play(
    playbook: str, hosts: Path, *arguments: str, caller: dict[str, str] | None = None, **variables: Any
) -> tuple[int, str]:
    """Exit status and output of a playbook; `caller` is its environment."""
    extra = {
        "k8sgu_state_dir": str(hosts.parent / "state"),
        "k8sgu_vpc_cidr": "10.99.0.0/16",
        "k8sgu_admin_cidrs": ["203.0.113.7/32"],
        # For the 8 GiB of a node that no role made.
        "k8sgu_etcd_quota_bytes": 256 << 20,
        **variables,
    }
    return ansible_program.run_playbook(
        playbook,
        hosts,
        *arguments,
        variables=extra,
        environment={"AWS_EC2_METADATA_DISABLED": "true"},
        caller=ENVIRONMENT if caller is None else caller,
    )


def assert_said(output: str, *expected: str) -> None:
    """All problems are in one message, which Ansible shows as its error and as the task's result."""
    assert f"{len(expected)} problem" in output, output[-4000:]
    assert "and nothing was changed" in output
    assert "changed=0" in output
    for text in expected:
        assert f"- {text}" in output, f"{text} is not in:\n{output[-4000:]}"
    shown = output.rpartition("fatal: ")[2]
    assert shown.count(expected[0]) == 1, output[-4000:]


@pytest.fixture
def static(tmp_path: Path) -> Path:
    """An inventory that no test connects to, with a misspelt variable of a host."""
    return inventory(tmp_path, {"ec2_private_ip": "10.99.0.10"}, {"demo-worker-0": {"k8sgu_max_podz": 50}})


def test_the_infrastructure_is_not_begun_with_a_bad_description(static: Path) -> None:
    status, output = play(
        "infrastructure",
        static,
        k8sgu_pod_cdir="10.1.0.0/16",
        k8sgu_kubernetes_version="1.36.99",
        k8sgu_service_cidr="10.200.0.0/24",
        k8sgu_control_plane_count=2,
        k8sgu_etcd_quota_bytes=1 << 34,
        k8sgu_pod_cidr_node_prefix=17,
        k8sgu_cluster_name="demo_1",
        k8sgu_controller_manager_extra_flags={"cluster-cidr": "10.9.0.0/16", "v": 4},
    )
    assert status != 0
    assert_said(
        output,
        "k8sgu_max_podz: there is no such variable; did you mean k8sgu_max_pods?",
        "k8sgu_pod_cdir: there is no such variable; did you mean k8sgu_pod_cidr?",
        "k8sgu_kubernetes_version: '1.36.99' is not on the release list",
        "k8sgu_etcd_quota_bytes: 17179869184 (16 GiB) is above etcd's own limit of 8 GiB",
        "k8sgu_service_cidr: 10.200.0.0/24 overlaps k8sgu_pod_cidr 10.200.0.0/16",
        "k8sgu_pod_cidr: 10.200.0.0/16 has 2 parts of /17 (k8sgu_pod_cidr_node_prefix) for 4 nodes",
        "k8sgu_api_service_address: 10.32.0.1 is not the first address",
        "k8sgu_cluster_dns_address: 10.32.0.10 is not a free address",
        "k8sgu_cluster_name: 'demo_1' cannot be a cluster's name",
        "k8sgu_control_plane_count: 2 etcd members",
        "k8sgu_controller_manager_extra_flags: cluster-cidr is what k8sgu_pod_cidr says",
    )
    # What the infrastructure would make first: the key for SSH.
    assert not (static.parent / "state").exists()
    assert "Get the AWS account and identity" not in output


@pytest.mark.parametrize(
    ("name", "check"), [(1234, ("--check",)), ("a" * 40, ("--check",)), (None, ())], ids=["number", "long", "nothing"]
)
def test_a_wrong_cluster_name_is_reported_once(static: Path, name: Any, check: tuple[str, ...]) -> None:
    status, output = play("site", static, *check, k8sgu_cluster_name=name)
    assert status != 0
    # The misspelt variable of the host, and the name.
    assert_said(
        output, f"k8sgu_cluster_name: {name_rules.cluster_fault(name)}", "k8sgu_max_podz: there is no such variable"
    )
    assert "Get the AWS account and identity" not in output and not (static.parent / "state").exists()


def test_a_good_description_passes_and_changes_nothing(tmp_path: Path) -> None:
    hosts = inventory(tmp_path, {"ec2_private_ip": "10.99.0.10"}, {})
    status, output = play("description", hosts)
    assert status == 0, output[-4000:]
    assert "changed=0" in output
    assert not (tmp_path / "state").exists()


def test_check_mode_on_an_empty_account_prints_the_whole_plan_and_makes_nothing(tmp_path: Path) -> None:
    hosts = written(tmp_path, {"control_plane": {}, "etcd": {}, "worker": {}})
    with moto_server.moto_server() as server:
        caller = server.environment()
        before = ec2_account.picture(server)
        caller["PATH"] = f"{Path(sys.executable).parent}:{caller['PATH']}"
        status, output = play(
            "site", hosts, "--check", "--diff", caller=caller, k8sgu_image=moto_server.IMAGE, k8sgu_kubectl=""
        )
        assert ec2_account.picture(server) == before
    assert status == 0, output[-4000:]
    assert "failed=0" in output
    for planned in ("security-group/worker", f"instance/{NAME}", "instance/demo-worker-1"):
        assert planned in output
    assert not (tmp_path / "state").exists()


def test_nodes_that_cannot_be_reached_and_a_bad_inventory_are_one_report(tmp_path: Path) -> None:
    hosts = inventory(tmp_path, DEAD, {"demo_worker_0": {**DEAD, "ec2_private_ip": "10.200.0.9"}})
    status, output = play("preflight", hosts)
    assert status != 0
    assert_said(
        output,
        "k8sgu_pod_cidr: 10.200.0.0/16 holds the address 10.200.0.9 of demo_worker_0",
        "demo_worker_0: is not a host name (RFC 1123)",
        f"{NAME} and demo_worker_0: duplicate connection 127.0.0.1",
        f"{NAME}: could not be read: ",
        "demo_worker_0: could not be read: ",
    )


def test_a_phase_on_the_controller_reaches_no_node(tmp_path: Path) -> None:
    hosts = inventory(tmp_path, DEAD, {"demo-worker-0": {**DEAD, "ec2_private_ip": "10.99.0.251"}})
    status, output = play("site", hosts, "--tags", "pki")
    assert status == 0, output[-4000:]
    assert "unreachable=1" not in output
    assert (tmp_path / "state" / "pki" / "kubernetes-ca.pem").exists()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab_node.Node]:
    reason = lab_node.missing()
    if reason:
        pytest.skip(reason)
    with lab_node.running("pre", tmp_path_factory.mktemp("pre")) as running:
        yield running


@pytest.mark.timeout(600)
def test_all_problems_of_bad_nodes_are_reported_at_once_and_a_good_one_passes(
    node: lab_node.Node, tmp_path: Path
) -> None:
    hosts = inventory(tmp_path, node.playbook_variables, {"demo-worker-0": DEAD})
    node.run(
        'mkdir -p /etc/k8sgu; echo \'{"cluster": "prod", "node": "x"}\' >/etc/k8sgu/cluster.json\n'
        "cp -L /etc/os-release /root/os-release\n"
        "rm /etc/os-release; sed 's/^VERSION_ID=.*/VERSION_ID=\"9\"/' /root/os-release >/etc/os-release\n"
        "systemd-run --unit=squatter python3 -m http.server 10250\n"
        "for try in $(seq 300); do grep -q ':280A ' /proc/net/tcp && exit; sleep 0.1; done; exit 1\n"
    )
    status, output = play(
        "preflight",
        hosts,
        k8sgu_preflight_min_memory_mb=10**8,
        k8sgu_preflight_min_disk_gb=10**6,
        # No clock is that close. A wrong clock cannot be tested: the lab's nodes share the host's.
        k8sgu_preflight_max_clock_skew_seconds=-1,
    )
    assert status != 0
    assert_said(
        output,
        f"{NAME}: the operating system debian 9 is not supported",
        *[f"{NAME}: "] * 2,  # memory and disk, below
        f"{NAME}: the clock is 0 s",
        f"{NAME}: belongs to the cluster 'prod'",
        f"{NAME}: TCP port 10250 of kubelet is taken by python3",
        "demo-worker-0: could not be read: ",
    )
    assert "less than k8sgu_preflight_min_memory_mb 100000000" in output
    assert "less than k8sgu_preflight_min_disk_gb 1e+06" in output

    node.run(
        "systemctl stop squatter; rm -r /etc/k8sgu; rm /etc/os-release; ln -s ../usr/lib/os-release /etc/os-release\n"
        "for try in $(seq 300); do grep -q ':280A .* 0A ' /proc/net/tcp || exit 0; sleep 0.1; done; exit 1\n"
    )
    status, output = play("preflight", hosts, "--limit", NAME)
    assert status == 0, output[-4000:]
    assert "changed=0" in output


READ_ONLY = ("/home", "/tmp", "/var/tmp")
WAIT = """
- hosts: control_plane
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {name: k8sgu.cluster.infrastructure, tasks_from: wait}
"""


@pytest.mark.timeout(600)
def test_a_node_that_cannot_be_written_to_is_still_read(node: lab_node.Node, tmp_path: Path) -> None:
    """The cluster's own node, of which only the disk's size used to count. /tmp is on the disk, as in EC2's images."""
    hosts = inventory(tmp_path, node.playbook_variables, {})
    plain = {**ENVIRONMENT, "ANSIBLE_PIPELINING": "false"}
    node.run(
        f'mkdir -p /etc/k8sgu; echo \'{{"cluster": "demo", "node": "{NAME}"}}\' >/etc/k8sgu/cluster.json\n'
        "while mountpoint -q /tmp; do umount -l /tmp; done; chmod 1777 /tmp\n"
        "mkdir -p /var/lib/etcd; mount -t tmpfs -o size=1g,nr_inodes=60 none /var/lib/etcd\n"
    )
    node.fault("disk-fill")
    full = [
        f"{NAME}: the file system at / is full: 0 of ",
        f"{NAME}: the file system at /var/lib/etcd is full: 59 of 60 inodes are free, and a run needs 2000; ",
    ]
    for caller in (ENVIRONMENT, plain):
        status, output = play("preflight", hosts, caller=caller)
        assert status != 0
        assert_said(output, *full)
    # What comes before preflight does not wait for what only a person can mend.
    (tmp_path / "wait.yml").write_text(WAIT)
    arguments = [f"--inventory={hosts}", f"--extra-vars=k8sgu_state_dir={tmp_path}/state", tmp_path / "wait.yml"]
    done = ansible_program.run("ansible-playbook", *arguments, caller=plain, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr

    node.fault("disk-free")
    # Each place of Ansible's own and of Python's; that of the root is in use.
    node.run("umount /var/lib/etcd; for d in /home /tmp /var/tmp; do mount --bind -o ro $d $d; done")
    status, output = play("preflight", hosts)
    assert status != 0
    assert_said(output, *[f"{NAME}: the file system at {place} is mounted read-only; " for place in READ_ONLY])

    node.run("set -e; umount -l /home /tmp /var/tmp; rm -r /etc/k8sgu")
    status, output = play("preflight", hosts)
    assert status == 0, output[-4000:]
