# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cloud image at its first boot: SSH answers while cloud-init and APT are still at work, and packages are missing."""

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
import lab_node

NAME = "demo-worker-0"
# It ends when the test says so, and badly.
USER_DATA = """#!/bin/sh
while [ ! -e /run/proceed ]; do sleep 0.2; done
touch /run/done
exit 3
"""
LOCKED_S = 20
MISSING = ("/usr/sbin/conntrack", "/usr/bin/socat")
PLAY = """
- hosts: worker
  gather_facts: false
  tasks:
    - ansible.builtin.import_role: {name: k8sgu.cluster.infrastructure, tasks_from: wait}
      tags: [wait]
    - k8sgu.cluster.component:
        components: [{name: tools, packages: [conntrack, socat]}]
      become: true
      tags: [packages]
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab_node.Node]:
    reason = lab_node.missing()
    if reason:
        pytest.skip(reason)
    tags = [{"Key": "ec2lab:first-boot", "Value": str(LOCKED_S)}]
    asked: dict[str, Any] = {
        "UserData": USER_DATA,
        # As the playbooks launch: cloud-init has to ask for a token.
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        "TagSpecifications": [{"ResourceType": "instance", "Tags": tags}],
    }
    with lab_node.running(f"first-boot-{os.getpid()}", tmp_path_factory.mktemp("lab"), **asked) as node:
        yield node


@pytest.fixture
def hosts(node: lab_node.Node, tmp_path: Path) -> Path:
    member = {"hosts": {"demo-control-plane-0": {"ec2_private_ip": "10.99.0.9"}}}
    path = tmp_path / "inventory.yml"
    children = {"control_plane": member, "etcd": member, "worker": {"hosts": {NAME: node.playbook_variables}}}
    path.write_text(json.dumps({"all": {"children": children}}))
    return path


def play(hosts: Path, tag: str, **variables: Any) -> tuple[int, str]:
    """Exit status and output, whose white space is one space each."""
    (hosts.parent / "play.yml").write_text(PLAY)
    given = json.dumps({"k8sgu_state_dir": str(hosts.parent / "state"), **variables})
    arguments = [f"--inventory={hosts}", f"--tags={tag}", f"--extra-vars={given}", hosts.parent / "play.yml"]
    done = ansible_program.run("ansible-playbook", *arguments, caller=dict(os.environ), timeout=400)
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def preflight(hosts: Path) -> tuple[int, str]:
    variables = {"k8sgu_state_dir": str(hosts.parent / "state"), "k8sgu_vpc_cidr": "10.99.0.0/16"}
    environment = {"AWS_EC2_METADATA_DISABLED": "true"}
    status, said = ansible_program.run_playbook(
        "preflight", hosts, f"--limit={NAME}", variables=variables, environment=environment
    )
    return status, " ".join(said.split())


@pytest.mark.timeout(600)
def test_the_first_contact_waits_for_cloud_init_and_for_apt(node: lab_node.Node, hosts: Path) -> None:
    lock = "import fcntl; fcntl.lockf(open('/var/lib/dpkg/lock-frontend', 'w'), fcntl.LOCK_EX | fcntl.LOCK_NB)"
    assert "BlockingIOError" in node.run(f'python3 -c "{lock}" 2>&1 || true')
    assert node.run(f"ls {' '.join(MISSING)} 2>/dev/null || true") == ""
    assert node.run("systemctl is-active apt-daily.timer apt-daily-upgrade.timer").split() == ["active", "active"]

    status, said = play(hosts, "wait", infrastructure_cloud_init_timeout=2)
    assert status != 0 and f"{NAME}: waited 2 s for cloud-init" in said and "status: running" in said, said[-3000:]
    status, said = preflight(hosts)
    assert status != 0 and f"- {NAME}: cloud-init is still at work (stage modules-final)" in said, said[-3000:]

    assert node.run("ls /run/done 2>/dev/null || true") == ""
    node.run("(sleep 4; touch /run/proceed) >/dev/null 2>&1 &")
    status, said = play(hosts, "wait,packages")
    assert status == 0 and "changed=1 " in said, said[-3000:]
    assert len(node.run(f"ls /run/done {' '.join(MISSING)}").split()) == 3


@pytest.mark.timeout(600)
def test_user_data_that_failed_is_told_once(node: lab_node.Node, hosts: Path) -> None:
    """After the test above. The node of a cluster is not refused for it any more."""
    status, said = preflight(hosts)
    assert status != 0 and f"- {NAME}: cloud-init failed, so that the machine is not what" in said, said[-3000:]
    assert "scripts-user" in said and "1 problem, and nothing was changed" in said, said[-3000:]
    node.run(f'mkdir /etc/k8sgu; echo \'{{"cluster": "demo", "node": "{NAME}"}}\' >/etc/k8sgu/cluster.json')
    status, said = preflight(hosts)
    assert status == 0, said[-3000:]
