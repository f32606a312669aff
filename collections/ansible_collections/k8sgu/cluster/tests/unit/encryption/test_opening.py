# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an API server has encrypted is opened by its key, and by no other."""

from __future__ import annotations

import base64
import os

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from ansible_collections.k8sgu.cluster.plugins.module_utils._encryption import opening
from ansible_collections.k8sgu.cluster.plugins.module_utils._encryption.keys import Key

# The example of "Cryptography in NaCl", section 10: https://cr.yp.to/highspeed/naclcrypto-20090310.pdf
SECRET = bytes.fromhex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389")
NONCE = bytes.fromhex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37")
MESSAGE = bytes.fromhex(
    "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a"
    "1ac728d45e6c61296cdc3c01233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057"
    "e2f6556ad6b1318a024a838f21af1fde048977eb48f59ffd4924ca1c60902e52f0a089bc76897040"
    "e082f937763848645e0705"
)
BOX = bytes.fromhex(
    "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4"
    "476fb8c531a1186ac0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738"
    "b48eeee314a7cc8ab932164548e526ae90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de"
    "56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74e355a5"
)


def key(name: str, secretbox: bytes = b"s" * 32, aescbc: bytes = b"c" * 32) -> Key:
    return Key(name, base64.b64encode(secretbox).decode(), base64.b64encode(aescbc).decode())


def sealed(content: bytes, secret: bytes) -> bytes:
    """As the provider aescbc writes it."""
    vector = os.urandom(16)
    padder = PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(secret), modes.CBC(vector)).encryptor()
    padded = padder.update(content) + padder.finalize()
    return b"k8s:enc:aescbc:v1:key-1:" + vector + encryptor.update(padded) + encryptor.finalize()


def test_secretbox_is_that_of_nacl() -> None:
    assert opening._secretbox(NONCE + BOX, SECRET) == MESSAGE
    assert opening._secretbox(NONCE + BOX[:-1] + b"x", SECRET) is None
    assert opening._secretbox(NONCE + BOX, b"x" * 32) is None
    assert opening._secretbox(NONCE[:5], SECRET) is None
    # Through more than one block, and on its border.
    assert len(opening._xsalsa20(SECRET, NONCE, 128)) == 128
    assert opening._xsalsa20(SECRET, NONCE, 200)[:128] == opening._xsalsa20(SECRET, NONCE, 128)


def test_aescbc() -> None:
    value = sealed(b"k8s\x00\n\x0c\n\x02v1\x12\x06Secret", b"c" * 32)
    assert opening.problem(value, [key("key-2"), key("key-1")]) == ""
    wrong = opening.problem(value, [key("key-1", aescbc=b"d" * 32)])
    assert wrong == "the key-1 among the keys does not open it, so it is not the one that the API servers had"
    assert opening.problem(value[:-1], [key("key-1")]) == wrong
    assert opening.problem(sealed(b"no object", b"c" * 32), [key("key-1")]) == wrong


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"k8s\x00", "it is not encrypted"),
        (b"k8s:enc:secretbox:v1:key-9:xyz", "there is no key-9 among the keys"),
        (b"k8s:enc:aesgcm:v1:key-1:xyz", "nothing here opens what aesgcm has encrypted"),
        (b"k8s:enc:secretbox:v1:key-1:xyz", "the key-1 among the keys does not open it"),
        # Only the KMS has its key.
        (b"k8s:enc:kms:v2:k8sgu:xyz", ""),
    ],
)
def test_what_does_not_open_is_told_with_its_key(value: bytes, said: str) -> None:
    found = opening.problem(value, [key("key-1")])
    assert found.startswith(said) and bool(found) == bool(said)
