# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import base64
import datetime
from pathlib import Path

import pytest
from ansible.errors import AnsibleFilterError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ansible_collections.k8sgu.cluster.plugins.filter.certificate_report import certificate_report
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.certificate_scan import find
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.expiry import report

NOW = datetime.datetime(2026, 6, 1, 12, tzinfo=datetime.timezone.utc)
KEY = ec.generate_private_key(ec.SECP256R1())
KEY_PEM = KEY.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).decode()


def certificate(name: str, days: float, issuer: str = "ca") -> str:
    builder = x509.CertificateBuilder(
        subject_name=x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]),
        issuer_name=x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer)]),
        public_key=KEY.public_key(),
        serial_number=1,
        not_valid_before=NOW - datetime.timedelta(days=400),
        not_valid_after=NOW + datetime.timedelta(days=days),
    )
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def test_found_without_keys(tmp_path: Path) -> None:
    one, two, three = (certificate(name, 10) for name in ("one", "two", "three"))
    (tmp_path / "pki").mkdir()
    (tmp_path / "pki/server.pem").write_text(one + KEY_PEM)
    (tmp_path / "pki/server-key.pem").write_text(KEY_PEM)
    (tmp_path / "pki/bundle.crt").write_text(f"# two of them\n{one}{two}")
    (tmp_path / "pki/link.pem").symlink_to("server.pem")
    (tmp_path / "pki/notes.txt").write_text(one)
    (tmp_path / "pki/huge.pem").write_text(one + "x" * (1 << 20))
    (tmp_path / "pki/cut.pem").write_text(one[:100])
    embedded = base64.b64encode(three.encode()).decode()
    (tmp_path / "kubelet.kubeconfig").write_text(
        f"users:\n- user:\n    client-certificate-data: {embedded}\n"
        f"    client-key-data: {base64.b64encode(KEY_PEM.encode()).decode()}\n"
    )
    found, errors = find([str(tmp_path), str(tmp_path / "nowhere"), str(tmp_path / "pki/server.pem")])
    assert errors == []
    assert sorted((item.place.removeprefix(f"{tmp_path}/"), item.pem) for item in found) == sorted(
        [
            ("pki/link.pem", one.strip()),  # one file under two names counts once
            ("pki/bundle.crt#1", one.strip()),
            ("pki/bundle.crt#2", two.strip()),
            ("kubelet.kubeconfig", three.strip()),
        ]
    )
    assert "PRIVATE" not in str(found)


def test_only_the_current_of_rotated_certificates_counts(tmp_path: Path) -> None:
    (tmp_path / "kubelet-client-2026-01-01.pem").write_text(certificate("old", -1))
    (tmp_path / "kubelet-client-2026-05-01.pem").write_text(certificate("new", 300) + KEY_PEM)
    (tmp_path / "kubelet-client-current.pem").symlink_to("kubelet-client-2026-05-01.pem")
    (tmp_path / "kubelet.crt").write_text(certificate("serving", 300))
    found, _errors = find([str(tmp_path)])
    assert sorted(Path(item.place).name for item in found) == ["kubelet-client-current.pem", "kubelet.crt"]


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "gone.pem").symlink_to(tmp_path / "nowhere")
    found, errors = find([str(tmp_path)])
    assert found == []
    assert errors == [f"{tmp_path}/gone.pem: No such file or directory"]


def test_the_report_is_sorted_and_finds_certificates_that_end_soon() -> None:
    scans = {
        "b": [{"place": "/1", "pem": certificate("late", 100)}, {"place": "/2", "pem": certificate("ended", -0.5)}],
        "a": [{"place": "/3", "pem": certificate("soon", 29.9)}, {"place": "/4", "pem": certificate("ca", 30)}],
    }
    result = report(scans, 30, NOW)
    assert [(item["host"], item["path"], item["days_left"]) for item in result["certificates"]] == [
        ("b", "/2", -1),
        ("a", "/3", 29),
        ("a", "/4", 30),
        ("b", "/1", 100),
    ]
    assert [item["path"] for item in result["below"]] == ["/2", "/3"]
    assert [line.split() for line in result["table"]] == [
        ["days", "left", "expires", "host", "certificate", "subject", "issuer"],
        ["-1", "2026-06-01", "b", "/2", "ended", "ca"],
        ["29", "2026-07-01", "a", "/3", "soon", "ca"],
        ["30", "2026-07-01", "a", "/4", "ca", "itself"],
        ["100", "2026-09-09", "b", "/1", "late", "ca"],
    ]


def test_an_unreadable_certificate_is_listed_first_and_fails() -> None:
    broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"
    result = report(
        {"a": [{"place": "/good", "pem": certificate("good", 50)}, {"place": "/bad", "pem": broken}]}, 1, NOW
    )
    assert [item["path"] for item in result["below"]] == ["/bad"]
    assert result["certificates"][0]["subject"].startswith("unreadable")


def test_a_threshold_that_is_no_number_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="min_days: soon is not a number of days"):
        certificate_report({}, "soon")
