# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of cfssl_cert_info: find certificates and describe them."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._options.libraries import (
    CRYPTOGRAPHY,
    LibraryMissing,
    require,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.errors import PkiError
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.options import ARGUMENT_SPECS


def run(call: Call) -> dict[str, Any]:
    require(CRYPTOGRAPHY)
    return {"changed": False, "certificates": gather(call.options)}


def gather(options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every certificate that `options` name. Raises PkiError for the first that cannot be read."""
    if not (options.get("paths") or options.get("contents") or options.get("addresses")):
        raise PkiError("paths", "is empty, and so are contents and addresses; give one of them")
    timeout = options.get("timeout", 10)
    if timeout <= 0:
        raise PkiError("timeout", f"{timeout} is not a time to wait; give seconds, 1 or more")
    found: list[dict[str, Any]] = []
    for index, path in enumerate(options.get("paths") or ()):
        for file in _files(Path(path), f"paths[{index}]"):
            found += _describe(_read(file, f"paths[{index}]"), str(file), f"paths[{index}]")
    for index, content in enumerate(options.get("contents") or ()):
        found += _describe(content["pem"].encode(), content["source"], f"contents[{index}].pem")
    for index, address in enumerate(options.get("addresses") or ()):
        from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.remote import served_chain

        pem = served_chain(address, options.get("server_name"), timeout, f"addresses[{index}]")
        found += _describe(pem, address, f"addresses[{index}]")
    return found


def _files(path: Path, option: str) -> list[Path]:
    if not path.exists():
        raise PkiError(option, f"{path} does not exist; name a file or a directory with certificates")
    if not path.is_dir():
        return [path]
    try:
        files = sorted(file for file in path.iterdir() if file.is_file())
    except OSError as error:
        raise PkiError(option, f"{path} cannot be read: {error.strerror}") from None
    return [file for file in files if b"-----BEGIN CERTIFICATE-----" in _read(file, option)]


def _read(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise PkiError(option, f"{path} cannot be read: {error.strerror}") from None


def _describe(pem: bytes, source: str, option: str) -> list[dict[str, Any]]:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import certificates, plan

    now = datetime.now(timezone.utc)
    try:
        chain = certificates.read_chain(pem)
    except certificates.CertificateUnreadable as error:
        raise PkiError(option, f"{source} cannot be read as a certificate: {error}") from None
    return [
        {
            "source": source,
            "position": position,
            **certificates.describe(certificate, now),
            "max_path_len": certificate.pathlen,
            "usages": sorted(plan.usage_names(certificate)),
            "key": certificate.key._asdict() if certificate.key else None,
            "signature_algorithm": certificate.signature_algorithm,
            "subject_key_id": certificate.subject_key_id,
            "authority_key_id": certificate.authority_key_id,
        }
        for position, certificate in enumerate(chain)
    ]


MODULE = Module(ARGUMENT_SPECS["cfssl_cert_info"], run, (PkiError, LibraryMissing))
