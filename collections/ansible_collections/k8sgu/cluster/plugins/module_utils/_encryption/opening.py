# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether keys open what an API server has encrypted in etcd. On the controller, where cryptography is.

Names of the providers, and what stands where: https://kubernetes.io/docs/tasks/administer-cluster/encrypt-data/#providers
"""

from __future__ import annotations

import base64
import re
import struct
from typing import Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._encryption.keys import Key

_SEALED = re.compile(rb"k8s:enc:(?P<provider>[a-z]+):v\d+:(?P<key>[^:]{1,253}):")
# What an object begins with in etcd: as Protocol Buffers, or as JSON.
# https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding
_OBJECTS = (b"k8s\x00", b"{")
_WORD = 0xFFFFFFFF
_CONSTANTS = struct.unpack("<4I", b"expand 32-byte k")
_NONCE, _TAG, _BLOCK = 24, 16, 16


def problem(value: bytes, keys: Sequence[Key]) -> str:
    """Why these keys do not open a value as etcd has it; empty if they do, or if that takes no key of ours."""
    sealed = _SEALED.match(value)
    if not sealed:
        return "it is not encrypted"
    provider, name = sealed["provider"].decode(), sealed["key"].decode()
    if provider == "kms":
        return ""
    found = next((key for key in keys if key.name == name), None)
    if found is None:
        return f"there is no {name} among the keys"
    if provider not in ("secretbox", "aescbc"):
        return f"nothing here opens what {provider} has encrypted"
    content = value[sealed.end() :]
    secret = base64.b64decode(found.secretbox if provider == "secretbox" else found.aescbc)
    opened = (_secretbox if provider == "secretbox" else _aescbc)(content, secret)
    if opened is None or not opened.startswith(_OBJECTS):
        return f"the {name} among the keys does not open it, so it is not the one that the API servers had"
    return ""


def _aescbc(content: bytes, secret: bytes) -> bytes | None:
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    vector, sealed = content[:_BLOCK], content[_BLOCK:]
    if not sealed or len(content) % _BLOCK:
        return None
    decryptor = Cipher(algorithms.AES(secret), modes.CBC(vector)).decryptor()
    padded = decryptor.update(sealed) + decryptor.finalize()
    return padded[: -padded[-1]] if 0 < padded[-1] <= _BLOCK else None


def _secretbox(content: bytes, secret: bytes) -> bytes | None:
    """https://nacl.cr.yp.to/secretbox.html: XSalsa20, whose first 32 bytes are the key of the Poly1305 before it."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.poly1305 import Poly1305

    nonce, tag, sealed = content[:_NONCE], content[_NONCE : _NONCE + _TAG], content[_NONCE + _TAG :]
    if len(tag) < _TAG:
        return None
    stream = _xsalsa20(secret, nonce, 32 + len(sealed))
    try:
        Poly1305.verify_tag(stream[:32], sealed, tag)
    except InvalidSignature:
        return None
    return bytes(one ^ other for one, other in zip(sealed, stream[32:]))


def _xsalsa20(key: bytes, nonce: bytes, size: int) -> bytes:
    """`size` bytes of the key stream: https://cr.yp.to/snuffle/xsalsa-20110204.pdf"""
    mixed = _mixed(_matrix(key, struct.unpack("<4I", nonce[:16])))
    derived = struct.pack("<8I", *(mixed[place] for place in (0, 5, 10, 15, 6, 7, 8, 9)))
    stream = bytearray()
    counter = 0
    while len(stream) < size:
        place = (*struct.unpack("<2I", nonce[16:]), counter & _WORD, counter >> 32)
        matrix = _matrix(derived, place)
        words = zip(_mixed(matrix), matrix)
        stream += struct.pack("<16I", *((one + other) & _WORD for one, other in words))
        counter += 1
    return bytes(stream[:size])


def _matrix(key: bytes, place: Sequence[int]) -> list[int]:
    """The matrix that Salsa20 begins with: https://cr.yp.to/snuffle/spec.pdf, section 9."""
    words = struct.unpack("<8I", key)
    one, two, three, four = _CONSTANTS
    return [one, *words[:4], two, *place, three, *words[4:], four]


def _mixed(matrix: Sequence[int]) -> list[int]:
    """The matrix after Salsa20's twenty rounds."""
    x = list(matrix)
    for _double_round in range(10):
        for a, b, c, d in (
            *((0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11)),
            *((0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14)),
        ):
            x[b] ^= _turned(x[a] + x[d], 7)
            x[c] ^= _turned(x[b] + x[a], 9)
            x[d] ^= _turned(x[c] + x[b], 13)
            x[a] ^= _turned(x[d] + x[c], 18)
    return x


def _turned(word: int, bits: int) -> int:
    word &= _WORD
    return ((word << bits) | (word >> (32 - bits))) & _WORD
