# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates that none of the cluster's authorities has signed. Runs on the controller, which has cryptography."""

from __future__ import annotations

from typing import Any, Iterator, Mapping, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._drift.findings import Finding

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
except ImportError:
    pass  # said by libraries.require before anything here is called


def authorities(pems: Sequence[str]) -> list[x509.Certificate]:
    """The authorities among certificates of the controller."""
    return [certificate for certificate in map(_read, pems) if certificate is not None and _is_authority(certificate)]


def strangers(node: str, scan: Sequence[Mapping[str, str]], known: Sequence[x509.Certificate]) -> Iterator[Finding]:
    """`scan` is what certificate_scan found on a node."""
    for found in scan:
        certificate = _read(found["pem"])
        if certificate is None:
            yield Finding("certificate-of-another-ca", f"{node}:{found['place']}", "a certificate", "it cannot be read")
        elif not any(_signed(certificate, authority) for authority in known):
            names = ", ".join(sorted({_common_name(item.subject) for item in known}))
            seen = f"{_common_name(certificate.subject)}, signed by {_common_name(certificate.issuer)}"
            digest = certificate.fingerprint(hashes.SHA256()).hex()[:16]
            where = f"{node}:{found['place']}"
            yield Finding("certificate-of-another-ca", where, f"signed by {names}", f"{seen} (sha256 {digest}...)")


def _read(pem: str) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(pem.encode("ascii"))
    except ValueError:
        return None


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return bool(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except x509.ExtensionNotFound:
        return False


def _signed(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _common_name(name: Any) -> str:
    found = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(found[0].value) if found else name.rfc4514_string()
