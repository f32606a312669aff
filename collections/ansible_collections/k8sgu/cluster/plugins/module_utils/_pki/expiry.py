# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports certificates by the days that they have left. Runs on the controller, which has cryptography."""

from __future__ import annotations

import datetime
from typing import Any, Mapping, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import x509_names

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
except ImportError:
    pass  # said by libraries.require before anything here is called

_COLUMNS = ("days left", "expires", "host", "certificate", "subject", "issuer")


def report(scans: Mapping[str, Sequence[Mapping[str, str]]], min_days: int, now: datetime.datetime) -> dict[str, Any]:
    """`scans` has the certificates found on each host: {host: [{"place": ..., "pem": ...}, ...]}.

    Returns certificates (a list of dictionaries, sorted by their end), table (lines of text) and below (those with
    fewer than `min_days` whole days left).
    """
    certificates = sorted(
        (_describe(host, found["place"], found["pem"], now) for host, scan in scans.items() for found in scan),
        key=lambda item: (item["days_left"], item["host"], item["path"]),
    )
    return {
        "certificates": certificates,
        "table": _table(certificates),
        "below": [item for item in certificates if item["days_left"] < min_days],
    }


def _describe(host: str, place: str, pem: str, now: datetime.datetime) -> dict[str, Any]:
    item: dict[str, Any] = {"host": host, "path": place}
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode("ascii"))
        not_after = certificate.not_valid_after_utc
    except ValueError as error:
        # A certificate that cannot be read is not accepted by any peer either: list it first, below any threshold.
        return {
            **item,
            "days_left": -1,
            "not_after": "",
            "subject": f"unreadable: {error}",
            "issuer": "",
            "is_ca": False,
        }
    try:
        is_ca = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_ca = False
    return {
        **item,
        "days_left": (not_after - now) // datetime.timedelta(days=1),
        "not_after": not_after.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "subject": x509_names.subject_of(certificate).rfc4514_string(),
        "issuer": x509_names.issuer_of(certificate).rfc4514_string(),
        "is_ca": is_ca,
        "serial": str(certificate.serial_number),
        "fingerprint_sha256": certificate.fingerprint(hashes.SHA256()).hex(),
    }


def _table(certificates: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [_COLUMNS] + [
        (
            str(item["days_left"]),
            item["not_after"][:10],
            item["host"],
            item["path"],
            _name(item["subject"]),
            "itself" if item["subject"] == item["issuer"] else _name(item["issuer"]),
        )
        for item in certificates
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    return [
        "  ".join([row[0].rjust(widths[0]), *(cell.ljust(width) for cell, width in zip(row[1:], widths[1:]))]).rstrip()
        for row in rows
    ]


def _name(subject: str) -> str:
    """The common name, which is enough to distinguish these certificates."""
    return next((part[3:] for part in subject.split(",") if part.startswith("CN=")), subject)
