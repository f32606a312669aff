# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which authority has signed a certificate. Runs on the controller, which has cryptography."""

from __future__ import annotations

from typing import Any, Iterator, Mapping, Sequence

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature
except ImportError:
    pass  # said by libraries.require before anything here is called


def authorities(pems: Sequence[str]) -> list[x509.Certificate]:
    """The authorities among certificates."""
    return [certificate for certificate in map(_read, pems) if certificate is not None and is_authority(certificate)]


def by_none(
    scan: Sequence[Mapping[str, str]], known: Sequence[x509.Certificate]
) -> Iterator[tuple[str, x509.Certificate | None]]:
    """(place, certificate) of what none of `known` has signed; None for one that cannot be read.

    scan: what certificate_scan found.
    """
    for found in scan:
        certificate = _read(found["pem"])
        if certificate is None or not any(_signed(certificate, authority) for authority in known):
            yield found["place"], certificate


def is_authority(certificate: x509.Certificate) -> bool:
    try:
        return bool(certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except x509.ExtensionNotFound:
        return False


def common_name(name: Any) -> str:
    found = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(found[0].value) if found else name.rfc4514_string()


def _read(pem: str) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(pem.encode("ascii"))
    except ValueError:
        return None


def _signed(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
