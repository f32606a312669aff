# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role pki with Ansible's highest verbosity: nothing that it prints or logs is secret.

Also the playbooks around it: the phase alone, and the report.
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import ansible_program

from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.cfssl_cert import ensure

PASSPHRASE = "tr0ubador-and-3"
INVENTORY = """
all:
  children:
    control_plane: {hosts: {demo-control-plane-0: {ec2_private_ip: 10.240.0.10, ec2_public_ip: 198.18.0.10}}}
    etcd: {hosts: {demo-control-plane-0: {}}}
    worker: {hosts: {demo-worker-0: {ec2_private_ip: 10.240.0.20}}}
"""
GONE = """
    etcd: {hosts: {demo-control-plane-0: {}, demo-gone: {ec2_private_ip: 10.240.0.21}}}
    worker: {hosts: {demo-worker-0: {ec2_private_ip: 10.240.0.20}, demo-gone: {}}}
"""


def with_a_node_more() -> str:
    head, _etcd, _rest = INVENTORY.partition("    etcd:")
    return head + GONE.lstrip("\n")


def play(inventory: Path, state: Path, *arguments: str, playbook: str = "pki", status: int = 0) -> str:
    environment = {"K8SGU_PKI_CA_PASSPHRASE": PASSPHRASE, "ANSIBLE_LOG_PATH": str(inventory.parent / "ansible.log")}
    found, output = ansible_program.run_playbook(
        playbook, inventory, *arguments, variables={"k8sgu_state_dir": str(state)}, environment=environment
    )
    assert found == status, output[-4000:]
    return output


@pytest.mark.timeout(600)
def test_no_secret_is_printed_or_logged(tmp_path: Path) -> None:
    inventory = tmp_path / "inventory.yml"
    inventory.write_text(with_a_node_more())
    state = tmp_path / "state"
    first = play(inventory, state, "-vvvv", "--diff")
    made = names_in(state)
    inventory.write_text(INVENTORY)
    # A renewal reads old keys and old kubeconfigs, and its diff has both sides.
    again = play(inventory, state, "-vvvv", "--diff", "--extra-vars=k8sgu_api_address=api.demo.example")
    assert "Create or renew every certificate" in first
    assert "kube-apiserver" in again
    # The files of a node that left the inventory are removed, and nothing else.
    gone = {name for name in made if "demo-gone" in name}
    assert len(gone) == 5 * 3 + 1
    assert names_in(state) == made - gone
    everything = first + again + (tmp_path / "ansible.log").read_text()
    keys = [
        path.read_text() for path in sorted((state / "pki").iterdir()) if path.name.endswith(("-key.pem", "sa.key"))
    ]
    assert len(keys) > 20
    secrets = [PASSPHRASE]
    for key in keys:
        secrets += [key.splitlines()[1], base64.b64encode(key.encode()).decode()]
    assert [secret for secret in secrets if secret in everything] == []
    assert "PRIVATE KEY-----" not in everything
    # The key that components need opens without the passphrase, those that stay do not.
    assert "ENCRYPTED" in (state / "pki/kubernetes-ca-key.pem").read_text()
    assert "ENCRYPTED" not in (state / "pki/kubelet-client-ca-key.pem").read_text()


def names_in(state: Path) -> set[str]:
    return {path.name for path in state.rglob("*") if path.is_file()}


def test_the_phase_pki_is_nothing_but_certificates(tmp_path: Path) -> None:
    inventory = tmp_path / "inventory.yml"
    inventory.write_text(INVENTORY)
    listed = play(inventory, tmp_path / "state", "--tags=pki", "--list-tasks", playbook="site")
    tasks = [line.strip() for line in listed.splitlines() if "TAGS:" in line and not line.startswith("  play #")]
    assert len(tasks) > 5
    # What is tagged `always` looks at what there is, for any phase.
    others = [task for task in tasks if "pki" not in task.rpartition("TAGS:")[2] and "always" not in task]
    assert others == []


@pytest.mark.timeout(300)
def test_the_report_has_the_controller_s_certificates_when_no_node_answers(tmp_path: Path) -> None:
    inventory = tmp_path / "inventory.yml"
    # Nothing listens there.
    inventory.write_text(INVENTORY + "  vars: {ansible_host: 127.0.0.1, ansible_port: 1, ansible_ssh_retries: 0}\n")
    state = tmp_path / "state"
    ensure({"path": str(state / "pki"), "name": "kubernetes-ca", "initca": True, "csr": {"CN": "kubernetes-ca"}})
    printed = play(inventory, state, playbook="certificate_report", status=2)
    assert "pki/kubernetes-ca.pem" in printed
    assert "No answer from demo-control-plane-0, demo-worker-0" in printed
    assert "kubernetes-ca.pem" in (state / "certificates.json").read_text()
