# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.signing_key import (
    SigningKeyError,
    apply,
    plan,
    public_pem,
    read,
)

PATHS = ("sa.key", "sa.pub")


def pem(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, passphrase: bytes = b"") -> bytes:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        encryption = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


KEY = ec.generate_private_key(ec.SECP256R1())
FORMER = ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(
    ("private", "public", "create", "others", "changes"),
    [
        (None, None, True, [], ["a key is made: ecdsa 256"]),
        (pem(KEY), None, False, [], ["the public key is written"]),
        (pem(KEY), public_pem(KEY), False, None, []),
        (pem(KEY), public_pem(FORMER) + public_pem(KEY), False, None, []),
        (
            pem(KEY),
            public_pem(FORMER),
            False,
            [public_pem(FORMER)],
            ["the private key's public key is added"],
        ),
    ],
)
def test_plan(
    private: bytes | None, public: bytes | None, create: bool, others: list[bytes] | None, changes: list[str]
) -> None:
    assert plan(private, public, "ecdsa", 256, PATHS) == (create, others, changes)


@pytest.mark.parametrize(
    ("private", "public", "algorithm", "size", "message"),
    [
        (None, None, "rsa", 1024, "size: 1024 is not a size of rsa; use 2048, 3072, 4096"),
        (None, public_pem(KEY), "ecdsa", 256, "path: sa.key is missing, but sa.pub exists"),
        (pem(KEY), b"nonsense", "ecdsa", 256, "public_path: sa.pub holds no PEM public key"),
        (pem(KEY)[:60], None, "ecdsa", 256, "path: sa.key is not a readable RSA or ECDSA key"),
        (b"", public_pem(KEY), "ecdsa", 256, "path: sa.key is not a readable RSA or ECDSA key"),
        (pem(ed25519.Ed25519PrivateKey.generate()), None, "ecdsa", 256, "is not a readable RSA or ECDSA key"),
        (pem(KEY, b"passphrase"), None, "ecdsa", 256, "path: sa.key is encrypted"),
        (pem(KEY), public_pem(KEY), "rsa", 2048, "algorithm: sa.key is ecdsa 256, not rsa 2048"),
        (pem(KEY), public_pem(KEY), "ecdsa", 384, "algorithm: sa.key is ecdsa 256, not ecdsa 384"),
    ],
)
def test_refused(private: bytes | None, public: bytes | None, algorithm: str, size: int, message: str) -> None:
    with pytest.raises(SigningKeyError) as caught:
        plan(private, public, algorithm, size, PATHS)
    assert message in str(caught.value)
    assert "PRIVATE" not in str(caught.value)


@pytest.mark.parametrize(("algorithm", "size"), [("rsa", 2048), ("ecdsa", 256)])
def test_made_once_and_kept(tmp_path: Path, algorithm: str, size: int) -> None:
    paths = (str(tmp_path / "pki" / "sa.key"), str(tmp_path / "pki" / "sa.pub"))
    apply(plan(None, None, algorithm, size, paths), algorithm, size, paths)
    key = Path(paths[0]).read_bytes()
    assert stat.S_IMODE(Path(paths[0]).stat().st_mode) == 0o600
    assert stat.S_IMODE(Path(paths[1]).stat().st_mode) == 0o644
    assert plan(key, Path(paths[1]).read_bytes(), algorithm, size, paths).changes == []
    # A run that was killed between the two files, and tokens of a former key.
    Path(paths[1]).write_bytes(public_pem(FORMER))
    apply(plan(key, Path(paths[1]).read_bytes(), algorithm, size, paths), algorithm, size, paths)
    assert Path(paths[0]).read_bytes() == key
    assert Path(paths[1]).read_bytes().count(b"BEGIN PUBLIC KEY") == 2
    assert plan(read(paths[0]), read(paths[1]), algorithm, size, paths).changes == []
