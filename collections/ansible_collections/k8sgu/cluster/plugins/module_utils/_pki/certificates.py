# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads certificates into plain values that can be compared and returned."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import keys, x509_names
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.hosts import Host
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.profiles import KEY_USAGES
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.requests import KeySpec, Subject, format_subject

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
except ImportError:
    pass  # libraries.require reports it before anything here is called

_BEGIN, _END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"


class CertificateUnreadable(Exception):
    """The text is not a certificate, or only part of one."""


@dataclass(frozen=True)
class Certificate:
    """A certificate's properties. `key` is None for an unsupported kind of key."""

    subject: Subject
    issuer: Subject
    hosts: tuple[Host, ...]
    key: KeySpec | None
    public_key: bytes
    key_usages: frozenset[str]
    extended_key_usages: tuple[str, ...]
    is_ca: bool
    pathlen: int | None
    not_before: datetime
    not_after: datetime
    serial: int
    fingerprint_sha256: str
    subject_key_id: str
    authority_key_id: str
    signature_algorithm: str
    parsed: x509.Certificate

    def days_left(self, now: datetime) -> int:
        return days_between(now, self.not_after)

    def signed_by(self, public_key: keys.PublicKey) -> bool:
        try:
            return keys.has_signed(
                public_key,
                self.parsed.signature,
                self.parsed.tbs_certificate_bytes,
                self.parsed.signature_hash_algorithm,
            )
        except Exception:  # an algorithm that cryptography does not support
            return False


def days_between(now: datetime, moment: datetime) -> int:
    """Whole days from `now` until `moment`; negative once it is past."""
    return int((moment - now).total_seconds() // 86400)


def timestamp(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_certificate(pem: bytes) -> Certificate:
    """The first certificate in `pem`. Raises CertificateUnreadable."""
    if _BEGIN not in pem:
        raise CertificateUnreadable("it is not a PEM certificate")
    if pem.count(_BEGIN) != pem.count(_END):
        raise CertificateUnreadable("its end is missing")
    try:
        return facts_of(x509.load_pem_x509_certificate(pem))
    except Exception as error:  # ValueError, and other errors of the parser for broken extensions
        raise CertificateUnreadable(_short(error)) from error


def read_chain(pem: bytes) -> list[Certificate]:
    """Every certificate in `pem`, in order. Raises CertificateUnreadable."""
    result = [read_certificate(pem)]
    for part in pem.split(_END)[1:]:
        if _BEGIN in part:
            result.append(read_certificate(part[part.index(_BEGIN) :] + _END + b"\n"))
    return result


def facts_of(parsed: x509.Certificate) -> Certificate:
    extensions = {extension.oid.dotted_string: extension.value for extension in parsed.extensions}
    constraints: Any = extensions.get("2.5.29.19")
    key_usage: Any = extensions.get("2.5.29.15")
    extended: Any = extensions.get("2.5.29.37")
    subject_key: Any = extensions.get("2.5.29.14")
    authority_key: Any = extensions.get("2.5.29.35")
    public_key = parsed.public_key()
    return Certificate(
        subject=subject_of(x509_names.subject_of(parsed)),
        issuer=subject_of(x509_names.issuer_of(parsed)),
        hosts=hosts_of(extensions.get("2.5.29.17")),
        key=keys.spec_of(public_key),
        public_key=public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
        key_usages=usage_bits(key_usage) if key_usage is not None else frozenset(),
        extended_key_usages=tuple(usage.dotted_string for usage in extended) if extended is not None else (),
        is_ca=bool(constraints is not None and constraints.ca),
        pathlen=constraints.path_length if constraints is not None else None,
        not_before=parsed.not_valid_before_utc,
        not_after=parsed.not_valid_after_utc,
        serial=parsed.serial_number,
        fingerprint_sha256=parsed.fingerprint(hashes.SHA256()).hex(),
        subject_key_id=subject_key.digest.hex() if subject_key is not None else "",
        authority_key_id=(authority_key.key_identifier or b"").hex() if authority_key is not None else "",
        signature_algorithm=parsed.signature_algorithm_oid._name,
        parsed=parsed,
    )


def subject_of(name: x509.Name) -> Subject:
    return tuple(
        tuple((attribute.oid.dotted_string, str(attribute.value)) for attribute in relative) for relative in name.rdns
    )


def hosts_of(found: Any) -> tuple[Host, ...]:
    """The subject alternative names of an extension, without kinds that CFSSL does not know."""
    kinds = {"IPAddress": "ip", "RFC822Name": "email", "UniformResourceIdentifier": "uri", "DNSName": "dns"}
    return tuple(
        Host(kinds[type(name).__name__], str(name.value)) for name in (found or ()) if type(name).__name__ in kinds
    )


def describe(certificate: Certificate, now: datetime) -> dict[str, Any]:
    """A certificate's properties as modules return them."""
    return {
        "serial": str(certificate.serial),
        "fingerprint_sha256": certificate.fingerprint_sha256,
        "not_before": timestamp(certificate.not_before),
        "not_after": timestamp(certificate.not_after),
        "days_left": certificate.days_left(now),
        "subject": format_subject(certificate.subject),
        "issuer": format_subject(certificate.issuer),
        "hosts": [host.value for host in certificate.hosts],
        "is_ca": certificate.is_ca,
    }


def usage_bits(usage: x509.KeyUsage) -> frozenset[str]:
    known = set(KEY_USAGES.values())
    if not usage.key_agreement:  # reading the two others would raise an error then
        known -= {"encipher_only", "decipher_only"}
    return frozenset(name for name in known if getattr(usage, name))


def _short(error: Exception) -> str:
    return str(error).partition("\n")[0][:200] or type(error).__name__
