# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role pki between the steps of a rotation: what it makes, what it lets everybody trust, and that it keeps both."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))

import ansible_program
from cryptography import x509

from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import rotation
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.options import ROTATED

INVENTORY = """
all:
  children:
    control_plane: {hosts: {demo-control-plane-0: {ec2_private_ip: 10.240.0.10}}}
    etcd: {hosts: {demo-control-plane-0: {}}}
    worker: {hosts: {demo-worker-0: {ec2_private_ip: 10.240.0.20}}}
"""
PASSPHRASE = {"K8SGU_PKI_CA_PASSPHRASE": "correct horse"}
# How many of its own kind each bundle has while two are trusted.
BUNDLES = {
    "kubernetes-ca-bundle.pem": 2,
    "etcd-ca-bundle.pem": 2,
    "front-proxy-ca-bundle.pem": 2,
    "client-ca-bundle.pem": 4,
    "sa-bundle.pub": 2,
}


def play(inventory: Path, state: Path) -> str:
    status, output = ansible_program.run_playbook(
        "pki", inventory, variables={"k8sgu_state_dir": str(state)}, environment=PASSPHRASE
    )
    assert status == 0, output[-4000:]
    return output


def blocks(path: Path) -> list[str]:
    return re.findall(r"-----BEGIN .+?-----.+?-----END .+?-----", path.read_text(), re.DOTALL)


def signer(pki: Path, leaf: str, authority: str) -> bool:
    certificate, issuer = (
        x509.load_pem_x509_certificate((pki / f"{name}.pem").read_bytes()) for name in (leaf, authority)
    )
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # which one is said is cryptography's business
        return False
    return True


@pytest.mark.timeout(600)
def test_each_step_is_followed_and_a_second_run_changes_nothing(tmp_path: Path) -> None:
    inventory, state = tmp_path / "inventory.yml", tmp_path / "state"
    inventory.write_text(INVENTORY)
    pki = state / "pki"
    play(inventory, state)
    assert {name: len(blocks(pki / name)) for name in BUNDLES} == {name: count // 2 for name, count in BUNDLES.items()}

    def take(step: str) -> None:
        rotation.run(
            Call(options={"path": str(pki), "names": list(ROTATED), "state": step}, check_mode=False, diff=False)
        )

    take("added")
    play(inventory, state)
    assert {name: len(blocks(pki / name)) for name in BUNDLES} == BUNDLES
    assert "ENCRYPTED" in (pki / "etcd-ca-next-key.pem").read_text()
    # Nothing is signed by the next one yet.
    assert signer(pki, "kube-apiserver", "kubernetes-ca")
    assert "changed=0" in play(inventory, state)

    take("promoted")
    play(inventory, state)
    assert {name: len(blocks(pki / name)) for name in BUNDLES} == BUNDLES
    for leaf, authority in (
        ("kube-apiserver", "kubernetes-ca"),
        ("etcd-peer-demo-control-plane-0", "etcd-ca"),
        ("front-proxy-client", "front-proxy-ca"),
        ("node-client-demo-worker-0", "kubelet-client-ca"),
    ):
        assert signer(pki, leaf, authority)
        assert not signer(pki, leaf, f"{authority}-previous")
    assert "changed=0" in play(inventory, state)

    take("dropped")
    play(inventory, state)
    assert {name: len(blocks(pki / name)) for name in BUNDLES} == {name: count // 2 for name, count in BUNDLES.items()}
    admin = yaml.safe_load((state / "admin.kubeconfig").read_text())
    assert admin["clusters"][0]["cluster"]["certificate-authority-data"]
    take("finished")
    assert "changed=0" in play(inventory, state)
    assert not [path.name for path in pki.iterdir() if re.search(r"-next|-previous|rotation", path.name)]
