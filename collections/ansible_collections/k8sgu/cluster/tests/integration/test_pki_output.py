# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role pki as a user runs it, as talkative as Ansible can be: nothing that it prints or logs is a secret."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[6]
PASSPHRASE = "tr0ubador-and-3"
INVENTORY = """
all:
  children:
    control_plane: {hosts: {demo-control-plane-0: {ec2_private_ip: 10.240.0.10, ec2_public_ip: 198.18.0.10}}}
    etcd: {hosts: {demo-control-plane-0: {}}}
    worker: {hosts: {demo-worker-0: {ec2_private_ip: 10.240.0.20}}}
"""


def play(inventory: Path, state: Path, *arguments: str) -> str:
    environment = {
        **os.environ,
        "K8SGU_PKI_CA_PASSPHRASE": PASSPHRASE,
        "ANSIBLE_LOG_PATH": str(inventory.parent / "ansible.log"),
        "ANSIBLE_NOCOLOR": "1",
    }
    result = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            f"--inventory={inventory}",
            "playbooks/pki.yml",
            f"--extra-vars=k8sgu_state_dir={state}",
            *arguments,
        ],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    output = result.stdout + result.stderr
    assert result.returncode == 0, output[-4000:]
    return output


@pytest.mark.timeout(600)
def test_no_secret_is_printed_or_logged(tmp_path: Path) -> None:
    inventory = tmp_path / "inventory.yml"
    inventory.write_text(INVENTORY)
    state = tmp_path / "state"
    first = play(inventory, state, "-vvvv", "--diff")
    # A renewal reads old keys and old kubeconfigs, and its diff has both sides.
    again = play(inventory, state, "-vvvv", "--diff", "--extra-vars=k8sgu_api_address=api.demo.example")
    assert "Bring every certificate up to date" in first
    assert "kube-apiserver" in again
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
