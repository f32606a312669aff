# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every CA and the key of service accounts are rotated, cut off on the way, while clients go on.

Runs as test_security.py does. With three control-plane nodes no request is lost; with one, the API is away while its
only server restarts.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import uuid

import pytest
from cryptography import x509
from test_members import Visitor, cut_off
from test_rolling import Reader
from test_security import ENVIRONMENT, STATE, hosts, kubectl, on, playbook, value

__all__ = ["hosts", "on"]  # fixtures
pytestmark = pytest.mark.timeout(1800)

PKI = STATE / "pki"
CAS = ("kubernetes-ca", "etcd-ca", "front-proxy-ca", "kubelet-client-ca")
EVERYTHING = [*CAS, "service-account"]
ROTATE = "playbooks/rotate_ca.yml"
# The API may be away that long at each restart of its only server.
AWAY_S = 15
# The cut: files have changed and no node has followed.
CUT = "Make the certificates and kubeconfigs of this step"


class Follower(Reader):
    """Asks with the kubeconfig as it is at each request: its certificates are replaced meanwhile.

    `away_s` is the longest time without an answer.
    """

    def __init__(self, folder) -> None:
        super().__init__(folder)
        self.folder, self.answered, self.away_s = folder, time.monotonic(), 0.0

    def ask(self) -> None:
        self.context = Reader(self.folder).context
        self.send("GET", "/api/v1/namespaces/k8sgu-verify/secrets/at-rest")
        now = time.monotonic()
        self.away_s, self.answered = max(self.away_s, now - self.answered), now


def authorities():
    return {name: (PKI / f"{name}.pem").read_bytes() for name in CAS}


def served(on, node, address, port):
    """The certificate with which a server on a node answers, asked there."""
    code = f"import ssl; print(ssl.get_server_certificate(('{address}', {port})))"
    return x509.load_pem_x509_certificate(on(node, f'python3 -c "{code}"').encode())


def refused(*arguments):
    done = subprocess.run(
        ["kubectl", *arguments, "get", "nodes", "--request-timeout=10s"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stderr if done.returncode else ""


def resolves(name):
    """Waits until pods resolve a Service that was made just now: CoreDNS has to have heard of it from the API."""
    pod = kubectl("-n", "k8sgu-verify", "get", "pods", "-l", "app=probe", "-o", "name").split()[0].partition("/")[2]
    dial = f"/dial?host={name}.default&port=80&request=hostname&tries=1&protocol=http"
    path = f"/api/v1/namespaces/k8sgu-verify/pods/{pod}:8080/proxy{dial}"
    deadline = time.monotonic() + 60
    while "lookup" in (answer := kubectl("get", "--raw", path)):
        assert time.monotonic() < deadline, answer
        time.sleep(1)


def test_nothing_is_rotated_that_nobody_named():
    assert "k8sgu_rotate: says nothing, and no rotation is under way" in playbook(ROTATE, fails=True)


def test_the_plan_is_told_and_nothing_done():
    before = authorities()
    told = " ".join(playbook(ROTATE, "--check", k8sgu_rotate=["etcd-ca"]).split())
    assert (
        "make another etcd-ca, trusted beside the present, to every member of etcd and every control-plane node" in told
    )
    assert authorities() == before
    assert not (PKI / "rotation.json").exists()


def test_everything_is_rotated(hosts, on, tmp_path):
    groups, variables = hosts
    nodes = sorted({*groups["control_plane"], *groups["worker"]})
    before = authorities()
    old = shutil.copy(STATE / "admin.kubeconfig", tmp_path / "old.kubeconfig")
    token = kubectl("create", "token", "default", "--duration=2h").strip()
    ca = tmp_path / "ca"
    website = {**variables[groups["worker"][0]]}
    with Follower(tmp_path / "reader").running() as reader, Visitor(tmp_path / "visitor", website).running() as visitor:
        cut_off(CUT, 1, ROTATE, k8sgu_rotate=EVERYTHING)
        assert json.loads((PKI / "rotation.json").read_text())["step"] == "added"
        told = playbook(ROTATE)
        time.sleep(2)
    print(reader.told("API"), f"away at most {reader.away_s:.1f} s", visitor.told("website"), sep="\n")
    assert "Kubeconfigs that were handed out before are dead" in told
    assert visitor.asked > 100
    assert visitor.lost == []
    if len(groups["control_plane"]) > 1:
        assert reader.lost == []
    assert reader.away_s < AWAY_S

    after = authorities()
    assert {name for name in CAS if after[name] == before[name]} == set()
    assert not list(PKI.glob("*-next*")) + list(PKI.glob("*-previous*")) + list(PKI.glob("rotation.json"))
    trusted = {"/etc/kubernetes/pki/ca.crt": "kubernetes-ca"}
    for node in nodes:
        for path, name in trusted.items():
            assert on(node, f"cat {path}").strip().encode() == after[name].strip()
        address = value(variables[node]["ec2_private_ip"])
        ports = {10250: "kubernetes-ca"}
        if node in groups["control_plane"]:
            ports |= {6443: "kubernetes-ca", 2379: "etcd-ca", 2380: "etcd-ca"}
        for port, name in ports.items():
            # Of etcd only a client with a certificate gets one, but it shows its own first.
            served(on, node, address, port).verify_directly_issued_by(x509.load_pem_x509_certificate(after[name]))
        client = on(node, "cat /var/lib/kubelet/pki/kubelet-client-current.pem").encode()
        x509.load_pem_x509_certificate(client).verify_directly_issued_by(
            x509.load_pem_x509_certificate(after["kubelet-client-ca"])
        )

    # What was handed out before is worth nothing, with and without the new CA.
    ca.write_bytes(after["kubernetes-ca"])
    assert "certificate signed by unknown authority" in refused("--kubeconfig", str(old))
    assert refused("--kubeconfig", str(old), "--certificate-authority", str(ca))
    server = kubectl("config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")
    bare = tmp_path / "bare.kubeconfig"
    name = ["--tls-server-name", "kubernetes.default.svc", "--certificate-authority", str(ca), "--server", server]
    bare.write_text("{}")
    assert "(Unauthorized)" in refused("--kubeconfig", str(bare), *name, "--token", token)
    new = kubectl("create", "token", "default").strip()
    assert "cannot list resource" in refused("--kubeconfig", str(bare), *name, "--token", new)

    service = f"k8sgu-test-{uuid.uuid4().hex[:8]}"
    kubectl("create", "service", "clusterip", service, "--tcp=80")
    try:
        resolves(service)
    finally:
        kubectl("delete", "service", service)


def test_nothing_is_left_to_do():
    assert "changed=1" not in playbook("site.yml", "--skip-tags", "infrastructure").partition("PLAY RECAP")[2]
