"""The certificate authority of a lab's own internet: nodes trust it, and the controller is told where it is.

It plays every publisher's authority, as a company's intercepting proxy does. It is made once for a lab, and its key
stays in the lab's directory.
"""

from __future__ import annotations

import ipaddress
import ssl
import tempfile
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ec2lab.lab import write_private
from ec2lab.trust import certificate_path

KEY = "internet-ca-key.pem"
LIFE = timedelta(days=365)
PAST = timedelta(hours=1)  # a client's clock may be behind


class Authority:
    """Signs a certificate for each name when it is first asked for."""

    def __init__(self, state_dir: Path) -> None:
        self._directory = state_dir
        if not certificate_path(state_dir).exists():
            self._make()
        key = serialization.load_pem_private_key((state_dir / KEY).read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)  # noqa: S101 - written by _make
        self._key = key
        self._certificate = x509.load_pem_x509_certificate(certificate_path(state_dir).read_bytes())
        self._leaf = ec.generate_private_key(ec.SECP256R1())
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._lock = threading.Lock()

    def _make(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"ec2lab {self._directory.name} internet")])
        made = _builder(name, name, key.public_key())
        made = made.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        made = made.add_extension(_usage(signs=True), critical=True)
        made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        write_private(self._directory / KEY, _pem(key))
        path = certificate_path(self._directory)
        # Last, and whole: where it is, its key is too.
        partial = path.with_suffix(".new")
        partial.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        partial.replace(path)

    def context(self, name: str) -> ssl.SSLContext:
        """A server's context with a certificate for the name."""
        with self._lock:
            if name not in self._contexts:
                self._contexts[name] = self._sign(name)
            return self._contexts[name]

    def _sign(self, name: str) -> ssl.SSLContext:
        try:
            subject: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            subject = x509.DNSName(name)
        made = _builder(x509.Name([]), self._certificate.subject, self._leaf.public_key())
        # Critical, since the subject is empty: RFC 5280, section 4.1.2.6.
        made = made.add_extension(x509.SubjectAlternativeName([subject]), critical=True)
        made = made.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        made = made.add_extension(_usage(signs=False), critical=True)
        made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        made = made.add_extension(issuer, critical=False)
        signed = made.sign(self._key, hashes.SHA256())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        with tempfile.NamedTemporaryFile(dir=self._directory) as file:
            file.write(signed.public_bytes(serialization.Encoding.PEM) + _pem(self._leaf).encode())
            file.flush()
            context.load_cert_chain(file.name)
        return context


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    made = made.serial_number(x509.random_serial_number())
    return made.not_valid_before(now - PAST).not_valid_after(now + LIFE)


def _usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
