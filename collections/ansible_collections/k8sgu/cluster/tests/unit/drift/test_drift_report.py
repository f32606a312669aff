# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole report: what was answered in, findings, table and file out."""

from __future__ import annotations

import datetime
import json
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from test_drift_rows import CONTROL, FINE, WORKER, member

from ansible_collections.k8sgu.cluster.plugins.module_utils._drift import report
from ansible_collections.k8sgu.cluster.plugins.module_utils._drift.findings import WAYS, Finding
from ansible_collections.k8sgu.cluster.plugins.module_utils._drift.rows import Column
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call

DAY = datetime.timedelta(days=1)
NOW = datetime.datetime.now(datetime.timezone.utc)


class Authority:
    def __init__(self, name: str) -> None:
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.pem = self.sign(name, True)

    def sign(self, name: str, authority: bool = False) -> str:
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        key = self.key if authority else ec.generate_private_key(ec.SECP256R1())
        made = (
            x509.CertificateBuilder(self.name, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(NOW - DAY)
            .not_valid_after(NOW + DAY)
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        return made.public_bytes(serialization.Encoding.PEM).decode()


OURS, THEIRS = Authority("kubernetes-ca"), Authority("kubernetes-ca")
EC2 = {"differences": [], "instances": list(FINE.instances.items), "described": FINE.described}
SHOWN: dict[str, list[str]] = {"files": [], "units": [], "dropins": [], "links": [], "records": []}


def node(role: str, **more: Any) -> dict[str, Any]:
    certificate = {"place": "/etc/kubernetes/pki/kubelet.crt", "pem": OURS.sign("kubelet")}
    etcd = {"members": [member(CONTROL, 1)]} if role == "control_plane" else {"members": None}
    said = {"role": role, "answered": True, "shown": SHOWN, "certificates": [certificate], "etcd": etcd}
    return {**said, "compared": [{"skipped": True}], **more}


def machines(**of_worker: Any) -> dict[str, dict[str, Any]]:
    return {CONTROL: node("control_plane"), WORKER: node("worker", **of_worker)}


def told(ec2: dict[str, Any] | None = None, nodes: Column = FINE.nodes, **of_worker: Any) -> list[tuple[str, str]]:
    drift = report.tell(EC2 if ec2 is None else ec2, nodes, machines(**of_worker), [OURS.pem])
    return [(finding.kind, finding.where) for finding in drift.findings]


def test_nothing_differs() -> None:
    assert told() == []
    assert report.table(report.tell(EC2, FINE.nodes, machines(), [OURS.pem])) == [
        "node                  EC2      Kubernetes  etcd",
        "demo-bastion          running  -           -",
        "demo-control-plane-0  running  Ready       voter",
        "demo-worker-0         running  Ready       -",
    ]


def test_what_ec2_told_is_told_on() -> None:
    rule = {"kind": "rule-added", "where": "k8sgu-demo-worker", "expected": "no", "seen": "tcp 1"}
    assert told({**EC2, "differences": [rule]}) == [("rule-added", "k8sgu-demo-worker")]


@pytest.mark.parametrize("ec2", [{"msg": "cannot read the account"}, {"failed": True, "msg": "refused"}])
def test_without_ec2_the_rest_is_told(ec2: dict[str, Any]) -> None:
    drift = report.tell(ec2, FINE.nodes, machines(answered=False), [OURS.pem])
    assert drift.findings == [
        Finding("unknown", "EC2", "an answer", ec2["msg"]),
        Finding("node-unreachable", WORKER, "an answer over SSH", "none"),
    ]
    assert [row.ec2 for row in drift.rows] == ["unknown", "unknown"]


def test_without_kubernetes_the_rest_is_told() -> None:
    rule = {"kind": "rule-added", "where": "k8sgu-demo-worker", "expected": "no", "seen": "tcp 1"}
    found = told({**EC2, "differences": [rule]}, Column(problem="cannot be reached"))
    assert found == [("rule-added", "k8sgu-demo-worker"), ("unknown", "Kubernetes")]


def test_without_a_control_plane_node_etcd_is_unknown() -> None:
    nodes = {CONTROL: {**node("control_plane"), "answered": False, "etcd": {}}, WORKER: node("worker")}
    found = report.tell(EC2, FINE.nodes, nodes, [OURS.pem]).findings
    assert [(one.kind, one.where) for one in found] == [("unknown", "etcd"), ("node-unreachable", CONTROL)]


def test_a_certificate_of_another_authority_of_the_same_name() -> None:
    stranger = {"place": "/etc/kubernetes/pki/kubelet.crt", "pem": THEIRS.sign("kubelet")}
    assert told(certificates=[stranger]) == [("certificate-of-another-ca", f"{WORKER}:/etc/kubernetes/pki/kubelet.crt")]


@pytest.mark.parametrize("pem", [THEIRS.pem, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"])
def test_an_authority_of_others_and_what_is_no_certificate(pem: str) -> None:
    found = told(certificates=[{"place": "/etc/kubernetes/pki/client-ca.crt#2", "pem": pem}])
    assert found == [("certificate-of-another-ca", f"{WORKER}:/etc/kubernetes/pki/client-ca.crt#2")]


def test_a_file_is_told_once() -> None:
    path = "/etc/kubernetes/pki/kubelet.crt"
    reasons = [f"file {path}: content differs", "file /etc/kubernetes/kubelet.conf: missing"]
    compared = [{"components": [{"name": "kubelet", "reasons": reasons, "paths": [], "units": []}]}]
    found = told(compared=compared, certificates=[{"place": path, "pem": THEIRS.sign("kubelet")}])
    assert found == [
        ("certificate-of-another-ca", f"{WORKER}:{path}"),
        ("file", f"{WORKER}:/etc/kubernetes/kubelet.conf"),
    ]


def test_the_longest_list_of_members_counts() -> None:
    nodes = {
        CONTROL: node("control_plane"),
        "demo-control-plane-1": node("control_plane", etcd={"members": [member(CONTROL, 1), member("gone", 8)]}),
    }
    kinds = {one.kind: one.where for one in report.tell(EC2, FINE.nodes, nodes, [OURS.pem]).findings}
    assert kinds == {"member-without-node": "gone"}


@pytest.mark.parametrize("check_mode", [False, True])
def test_the_file_is_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check_mode: bool) -> None:
    monkeypatch.setattr(report, "ask", lambda *_given: Column([]))
    (tmp_path / "kubernetes-ca.pem").write_text(OURS.pem)
    options = {"name": "demo", "kubeconfig": "none", "pki": str(tmp_path), "ec2": EC2, "nodes": machines()}
    path = tmp_path / "drift.json"
    result = report.run(Call({**options, "path": str(path), "patience": 1}, check_mode=check_mode))
    assert not result["changed"] and result["count"] == 2 and result["kinds"] == ["instance-without-node"]
    assert path.exists() is not check_mode
    if not check_mode:
        document = json.loads(path.read_text())
        assert path.stat().st_mode & 0o777 == 0o600 and document["drift"] and document["unknown"] == []
        assert document["findings"] == result["findings"] and document["nodes"] == result["nodes"]
        assert all(one["way_out"] == WAYS[one["kind"]] for one in document["findings"])


def test_the_api_out_of_reach_is_a_problem_and_no_error(tmp_path: Path) -> None:
    assert str(tmp_path) in report.ask(str(tmp_path / "none.kubeconfig"), 1).problem


def test_the_page_explains_every_kind() -> None:
    page = (Path(__file__).resolve().parents[7] / "docs" / "tasks" / "find-drift.md").read_text()
    assert set(re.findall(r"`([a-z]+(?:-[a-z0-9]+)*)`", page.partition("| kind |")[2].partition("## ")[0])) >= set(WAYS)
