# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the certificates that a server presents in a TLS handshake, without verifying them."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.errors import PkiError


def served_chain(address: str, server_name: str | None, timeout: int, option: str) -> bytes:
    """The PEM chain that `address` (host:port) presents. Raises PkiError that names `option`."""
    host, port = split_address(address, option)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Nothing is verified: reading a certificate is not trusting it, and expired and unknown ones matter most.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection((host, port), timeout=timeout) as connection, context.wrap_socket(
            connection, server_hostname=server_name or _name_of(host)
        ) as secured:
            leaf = secured.getpeercert(binary_form=True)
            chain = _chain(secured) or ([leaf] if leaf else [])
    except (socket.timeout, TimeoutError):
        raise PkiError(
            option, f"{address} has not answered with a TLS handshake within {timeout} s (timeout)"
        ) from None
    except ssl.SSLError as error:
        raise PkiError(option, f"{address} does not complete a TLS handshake: {error.reason or error}") from None
    except OSError as error:
        raise PkiError(option, f"{address} cannot be reached: {error.strerror or error}") from None
    if not chain:
        raise PkiError(option, f"{address} presents no certificate")
    return "".join(ssl.DER_cert_to_PEM_cert(der) for der in chain).encode()


def split_address(address: str, option: str) -> tuple[str, int]:
    host, separator, port = address.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        separator = ""
    if not separator or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise PkiError(option, f"{address!r} is not host:port; write 192.0.2.10:6443 or [2001:db8::1]:6443")
    return host, int(port)


def _name_of(host: str) -> str | None:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host
    return None


def _chain(secured: ssl.SSLSocket) -> list[bytes]:
    """The whole chain: a public method since Python 3.13, a private one since 3.10; before, only the first."""
    public: Any = getattr(secured, "get_unverified_chain", None)
    if public is not None:
        return [bytes(der) for der in public() or ()]
    inner: Any = getattr(getattr(secured, "_sslobj", None), "get_unverified_chain", None)
    if inner is None:
        return []
    return [ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in inner() or ()]
