# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates that none of the cluster's authorities has signed. Runs on the controller, which has cryptography."""

from __future__ import annotations

from typing import Iterator, Mapping, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._drift.findings import Finding
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.issued import by_none, common_name

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
except ImportError:
    pass  # said by libraries.require before anything here is called


def strangers(node: str, scan: Sequence[Mapping[str, str]], known: Sequence[x509.Certificate]) -> Iterator[Finding]:
    """`scan` is what certificate_scan found on a node."""
    for place, certificate in by_none(scan, known):
        where = f"{node}:{place}"
        if certificate is None:
            yield Finding("certificate-of-another-ca", where, "a certificate", "it cannot be read")
        else:
            names = ", ".join(sorted({common_name(item.subject) for item in known}))
            seen = f"{common_name(certificate.subject)}, signed by {common_name(certificate.issuer)}"
            digest = certificate.fingerprint(hashes.SHA256()).hex()[:16]
            yield Finding("certificate-of-another-ca", where, f"signed by {names}", f"{seen} (sha256 {digest}...)")
