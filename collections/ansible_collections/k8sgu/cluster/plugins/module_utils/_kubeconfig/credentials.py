# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates and keys in a kubeconfig's form, base64 of PEM; checks that a certificate and its key are a pair."""

from __future__ import annotations

import base64
import binascii
import re
from pathlib import Path
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubeconfig.document import ConfigError
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.libraries import CRYPTOGRAPHY, require, usable

try:
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
except ImportError:
    pass  # asked for where it is needed

# In check mode, the content of a file that an earlier task would have made.
PENDING = "<not made yet>"
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def decode(data: str) -> bytes:
    """The bytes of a *-data field; b"" if it is not base64."""
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError):
        return b""


def encode_pem(value: str, option: str) -> str:
    """`value`, PEM text or base64 of it, as base64. Raises ConfigError that names `option`."""
    if "-----BEGIN " in value:
        return base64.b64encode(value.encode("utf-8")).decode("ascii")
    if b"-----BEGIN " not in decode(value):
        raise ConfigError(f"{option}: is neither PEM text nor base64 of it; give the content of a .pem file")
    return "".join(value.split())


def read_pem(path: str, option: str, check_mode: bool = False) -> str:
    """The content of the file `path` as base64; in check mode PENDING if it is missing. Raises ConfigError."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        if check_mode:
            return PENDING
        raise ConfigError(f"{option}: {path} does not exist; name a readable PEM file") from None
    except OSError as error:
        raise ConfigError(f"{option}: {path} cannot be read ({error.strerror}); name a readable PEM file") from None
    if b"-----BEGIN " not in content:
        raise ConfigError(f"{option}: {path} is not a PEM file")
    return base64.b64encode(content).decode("ascii")


def check_certificates(pem: bytes, option: str) -> None:
    """Raises ConfigError unless `pem` has at least one certificate and no truncated one."""
    blocks = _CERTIFICATE.findall(pem)
    if not blocks:
        raise ConfigError(f"{option}: holds no certificate, or a truncated one; give a PEM certificate")
    if usable(CRYPTOGRAPHY):
        for block in blocks:
            _certificate(block, option)


def check_pair(certificate: bytes, key: bytes, where: str) -> None:
    """Raises ConfigError unless the first certificate and the key are a pair. `where` names the entry in errors.

    Raises LibraryMissing without the library cryptography.
    """
    require(CRYPTOGRAPHY)
    blocks = _CERTIFICATE.findall(certificate)
    if not blocks:
        raise ConfigError(f"{where}: the client certificate holds no PEM certificate, or a truncated one")
    try:
        private = serialization.load_pem_private_key(key, password=None)
    except TypeError:
        raise ConfigError(
            f"{where}: the client key is encrypted, and a kubeconfig cannot hold a passphrase; give it decrypted"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{where}: the client key is not a readable PEM key") from None
    if _public(_certificate(blocks[0], where).public_key()) != _public(private.public_key()):
        raise ConfigError(f"{where}: the client certificate and the client key are not a pair; give both of one pair")


def _certificate(block: bytes, option: str) -> Any:
    try:
        return x509.load_pem_x509_certificate(block)
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{option}: holds a certificate that cannot be read; give a PEM certificate") from None


def _public(key: Any) -> bytes:
    return bytes(
        key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
    )
