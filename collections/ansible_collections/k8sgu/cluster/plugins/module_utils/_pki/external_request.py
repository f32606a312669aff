# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads a PEM request that was made elsewhere, to be signed as `cfssl sign` does."""

from __future__ import annotations

from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import keys, x509_names
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.certificates import hosts_of, subject_of, usage_bits
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.errors import PkiError
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.requests import CaSection, Request

try:  # noqa: SIM105 - linters of modules look for this form
    from cryptography import x509
except ImportError:
    pass  # libraries.require reports it before anything here is called


def read_request(pem: bytes, path: str, option: str) -> Request:
    """The request in `pem`. Raises PkiError that names `option`."""
    try:
        parsed = x509.load_pem_x509_csr(pem)
        valid = parsed.is_signature_valid
        extensions: dict[str, Any] = {one.oid.dotted_string: one.value for one in parsed.extensions}
        public_key = parsed.public_key()
        subject = subject_of(x509_names.subject_of(parsed))
    except Exception as error:  # ValueError, and other errors of the parser for broken extensions
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise PkiError(option, f"{path} is not a PEM certificate request: {reason}") from None
    if not valid:
        raise PkiError(option, f"{path} is not signed with its own key; make the request again")
    spec = keys.spec_of(public_key)
    if spec is None or (spec.algo == "rsa" and not 2048 <= spec.size <= 8192):
        raise PkiError(option, f"{path} is for a key that is too weak or of another kind than ECDSA, RSA and Ed25519")
    alternatives = extensions.get("2.5.29.17")
    hosts = hosts_of(alternatives)
    if len(list(alternatives or ())) != len(hosts):
        raise PkiError(option, f"{path} asks for alternative names other than DNS names, addresses, email and URIs")
    constraints = extensions.get("2.5.29.19")
    ca = CaSection(constraints.path_length) if constraints is not None and constraints.ca else None
    if not subject and not hosts:
        raise PkiError(option, f"{path} names neither a subject nor a host")
    der = keys.public_der(public_key)  # type: ignore[arg-type]  # spec_of has seen that it is one of ours
    key_usage, extended = extensions.get("2.5.29.15"), extensions.get("2.5.29.37")
    return Request(
        # A duplicate value counts once, as in a JSON request.
        tuple(tuple(dict.fromkeys(relative)) for relative in subject),
        hosts,
        None,
        ca,
        pem=pem,
        public_key=der,
        asked_usages=(
            usage_bits(key_usage) if key_usage is not None else frozenset(),
            frozenset(usage.dotted_string for usage in extended or ()),
        ),
    )
