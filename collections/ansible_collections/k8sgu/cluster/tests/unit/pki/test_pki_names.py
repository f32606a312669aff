"""Names as other programs encode them: read, kept byte by byte, and used in what a CA signs."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.name import _ASN1Type
from pki_support import make_ca, make_leaf

from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import x509_names
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.certificates import read_certificate, read_chain
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.expiry import report

OIDS = {"C": x509.NameOID.COUNTRY_NAME, "O": x509.NameOID.ORGANIZATION_NAME, "CN": x509.NameOID.COMMON_NAME}


def name_of(*relatives: str, kind: _ASN1Type = _ASN1Type.UTF8String) -> x509.Name:
    """`C=US+C=US` is one relative name with the same attribute twice, as programs written in Go make it."""
    result = []
    for relative in relatives:
        pairs = [part.split("=") for part in relative.split("+")]
        result.append(x509_names._relative_name([x509.NameAttribute(OIDS[key], value, kind) for key, value in pairs]))
    return x509.Name(result)


def foreign_ca(directory: Path, name: x509.Name) -> None:
    """The files of a CA `ca` of another program's make."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(timezone.utc).replace(microsecond=0)
    usage = dict.fromkeys(
        ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"], False
    )
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(hours=87600))
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .add_extension(
            x509.KeyUsage(**usage, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False), True
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    request = x509.CertificateSigningRequestBuilder(name).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    form = serialization.PrivateFormat.TraditionalOpenSSL
    (directory / "ca.pem").write_bytes(certificate.public_bytes(pem))
    (directory / "ca-key.pem").write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()))
    (directory / "ca-key.pem").chmod(0o600)
    (directory / "ca.csr").write_bytes(request.public_bytes(pem))


TWICE = name_of("C=US+C=US", "O=a+O=b+O=a", "CN=ca")
REQUEST = {"names": [{"C": "US", "O": "a"}, {"C": "US", "O": "b"}, {"O": "a"}]}


def test_the_library_refuses_such_names_and_they_are_read_all_the_same(tmp_path: Path) -> None:
    foreign_ca(tmp_path, TWICE)
    parsed = x509.load_pem_x509_certificate((tmp_path / "ca.pem").read_bytes())
    with pytest.raises(ValueError, match="duplicate"):
        str(parsed.subject)
    der = TWICE.public_bytes()
    assert der in parsed.tbs_certificate_bytes
    assert x509_names.subject_of(parsed).public_bytes() == x509_names.issuer_of(parsed).public_bytes() == der
    request = x509.load_pem_x509_csr((tmp_path / "ca.csr").read_bytes())
    assert x509_names.subject_of(request).public_bytes() == der
    table = report(
        {"node": [{"place": "ca.pem", "pem": (tmp_path / "ca.pem").read_text()}]}, 0, datetime.now(timezone.utc)
    )
    assert table["certificates"][0]["subject"] == "CN=ca,O=a+O=a+O=b,C=US+C=US"  # a set is sorted


@pytest.mark.parametrize(
    "kind", [_ASN1Type.UTF8String, _ASN1Type.PrintableString, _ASN1Type.T61String, _ASN1Type.BMPString]
)
def test_strings_of_every_kind(kind: _ASN1Type) -> None:
    """For names that the library can read, our reader gives the same result."""
    made = name_of("C=US", "O=Acme", "CN=ca", kind=kind)
    key = ec.generate_private_key(ec.SECP256R1())
    parsed = x509.CertificateSigningRequestBuilder(made).sign(key, hashes.SHA256())
    read = x509_names._read(parsed.tbs_certrequest_bytes, 0)
    assert read == made
    assert read.public_bytes() == made.public_bytes()


@pytest.mark.parametrize(
    "name",
    [TWICE, name_of("CN=ca", "C=US", "O=a", "O=b"), name_of("C=US", "O=a+O=b", "CN=ca", kind=_ASN1Type.T61String)],
    ids=["twice", "another order", "another kind of string"],
)
def test_a_ca_of_another_program_is_used_and_keeps_its_name(tmp_path: Path, name: x509.Name) -> None:
    foreign_ca(tmp_path, name)
    der = name.public_bytes()
    assert make_ca(tmp_path, csr=REQUEST)["reasons"] == []
    assert make_leaf(tmp_path)["issued"]
    leaf = read_certificate((tmp_path / "web.pem").read_bytes())
    assert x509_names.issuer_of(leaf.parsed).public_bytes() == der
    assert not make_leaf(tmp_path)["changed"]
    # Renewed, the CA is called as before, byte for byte, and what it has signed stays.
    assert make_ca(tmp_path, csr={**REQUEST, "ca": {"expiry": "87600h", "pathlen": 3}})["issued"]
    [ca] = read_chain((tmp_path / "ca.pem").read_bytes())
    assert x509_names.subject_of(ca.parsed).public_bytes() == x509_names.issuer_of(ca.parsed).public_bytes() == der
    assert not make_leaf(tmp_path)["changed"]


def test_a_ca_can_be_renamed(tmp_path: Path) -> None:
    foreign_ca(tmp_path, TWICE)
    made = make_ca(tmp_path, csr={"names": [{"C": "DE"}]})
    assert made["reasons"] == ["subject: is C=US+C=US, O=a+O=a+O=b, CN=ca, to be C=DE, CN=ca"]
    assert made["subject"] == "C=DE, CN=ca"


def test_truncated_names_are_refused() -> None:
    with pytest.raises(ValueError, match="truncated"):
        list(x509_names._values(b"\x30\x05\x01"))
