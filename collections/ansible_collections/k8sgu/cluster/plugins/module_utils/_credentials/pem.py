# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PEM texts, and the ids of public keys. Standard library only: it runs on nodes too."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)


class PemError(Exception):
    """A text is not what it should be; the message says what it is, and does not show it."""


def blocks(text: str, label: str) -> list[bytes]:
    """The DER form of each block of a PEM text. Raises PemError if there is none, or one with another label."""
    found = _BLOCK.findall(text)
    if not found or len(found) != text.count("-----BEGIN "):
        raise PemError(f"holds no {label}" if not found else f"has a {label} without its end")
    others = sorted({name for name, _body in found if name != label})
    if others:
        raise PemError(f"holds a {others[0]}, where only a {label} belongs")
    try:
        return [base64.b64decode("".join(body.split()), validate=True) for _name, body in found]
    except (binascii.Error, ValueError):
        raise PemError(f"has a {label} that is not base64") from None


def key_ids(text: str) -> list[str]:
    """The `kid` that tokens have whose signature each of these public keys verifies, without repetition.

    As kube-apiserver makes it (keyIDFromPublicKey in pkg/serviceaccount/jwt.go): the SHA-256 of the DER form of the
    SubjectPublicKeyInfo, which a block PUBLIC KEY is. Raises PemError.
    """
    hashes = [hashlib.sha256(der).digest() for der in blocks(text, "PUBLIC KEY")]
    return list(dict.fromkeys(base64.urlsafe_b64encode(value).decode().rstrip("=") for value in hashes))


def fingerprints(text: str) -> frozenset[str]:
    """The SHA-256 of the DER form of each certificate, as hexadecimal digits. Raises PemError."""
    return frozenset(hashlib.sha256(der).hexdigest() for der in blocks(text, "CERTIFICATE"))
