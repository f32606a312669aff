# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cluster of private nodes: its bastion leads to SSH and nowhere else. Runs like test_security.py."""

from __future__ import annotations

import subprocess

import pytest
from test_security import STATE, hosts, kubectl, on, value

__all__ = ["hosts", "on"]  # fixtures
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def bastion(hosts):
    """bastion(options, command=...) runs ssh with the cluster's key on the bastion."""
    groups, variables = hosts
    nodes = [variables[name] for name in (*groups["control_plane"], *groups["worker"])]
    assert nodes and not any("ec2_public_ip" in node for node in nodes)
    [address] = {value(node["ec2_bastion"]) for node in nodes}
    # As the playbooks stored the host key: under the instance's id.
    [identity] = {value(node["ec2_bastion_id"]) for node in nodes}
    known = STATE / "ssh" / "known_hosts"
    checks = ["StrictHostKeyChecking=yes", f'UserKnownHostsFile="{known}"', "GlobalKnownHostsFile=/dev/null"]
    options = [f"-o{option}" for option in (*checks, f"HostKeyAlias={identity}", "BatchMode=yes")]

    def run(*options_of_ssh, command=()):
        login = [
            "ssh",
            "-i",
            str(STATE / "ssh" / "id_ed25519"),
            *options,
            *options_of_ssh,
            f"ubuntu@{address}",
            *command,
        ]
        return subprocess.run(login, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)

    return run


def test_it_leads_to_ssh_alone(bastion, hosts):
    groups, variables = hosts
    node = value(variables[groups["control_plane"][0]]["ec2_private_ip"])
    assert bastion("-W", f"{node}:22").stdout.startswith("SSH-2.0-")
    for port in (6443, 10250, 2379):
        refused = bastion("-W", f"{node}:{port}")
        assert refused.stdout == "" and "administratively prohibited" in refused.stderr, refused


def test_it_holds_nothing_of_the_cluster(bastion):
    paths = "/etc/kubernetes /etc/etcd /etc/k8sgu /opt/k8sgu /var/lib/k8sgu"
    looked = bastion(command=[f"for path in {paths}; do test ! -e $path || echo $path; done"])
    assert (looked.returncode, looked.stdout) == (0, "")


def test_the_api_answers_outside_and_nodes_ask_inside(on, hosts):
    groups, variables = hosts
    assert len(kubectl("get", "nodes", "-o", "name").split()) == sum(map(len, groups.values()))
    inside = value(variables[groups["control_plane"][0]]["ec2_private_ip"])
    outside = kubectl("config", "view", "-o", "jsonpath={.clusters[0].cluster.server}")
    assert inside not in outside
    asked = on("worker", "grep server: /etc/kubernetes/kubelet.conf")
    assert asked.split() == ["server:", f"https://{inside}:6443"]
