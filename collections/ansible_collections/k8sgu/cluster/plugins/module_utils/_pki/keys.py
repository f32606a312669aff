# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes, reads, writes and recognises private keys.

File formats are CFSSL's: SEC 1 and PKCS #1, and PKCS #8 for encrypted and Ed25519 keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.requests import KeySpec

try:
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
except ImportError:
    pass  # libraries.require reports it before anything here is called

if TYPE_CHECKING:
    from typing import Union

    PrivateKey = Union[ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey]
    PublicKey = Union[ec.EllipticCurvePublicKey, rsa.RSAPublicKey, ed25519.Ed25519PublicKey]
    SignatureHash = Union[hashes.SHA256, hashes.SHA384, hashes.SHA512]


class KeyUnreadable(Exception):
    """The text is not a private key, is truncated, or is an unsupported kind of key."""


class PassphraseNeeded(Exception):
    """The key is encrypted and there is no passphrase."""


class PassphraseWrong(Exception):
    """The passphrase does not decrypt the key."""


def generate(spec: KeySpec) -> PrivateKey:
    if spec.algo == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=spec.size)
    if spec.algo == "ecdsa":
        curves: dict[int, ec.EllipticCurve] = {256: ec.SECP256R1(), 384: ec.SECP384R1(), 521: ec.SECP521R1()}
        return ec.generate_private_key(curves[spec.size])
    return ed25519.Ed25519PrivateKey.generate()


def spec_of(key: object) -> KeySpec | None:
    """Algorithm and size of a private or public key; None for an unsupported kind."""
    if isinstance(key, (rsa.RSAPrivateKey, rsa.RSAPublicKey)):
        return KeySpec("rsa", key.key_size)
    if isinstance(key, (ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey)):
        known = key.curve.name in ("secp256r1", "secp384r1", "secp521r1")
        return KeySpec("ecdsa", key.curve.key_size) if known else None
    if isinstance(key, (ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey)):
        return KeySpec("ed25519", 256)
    return None


def signature_hash(key: PrivateKey) -> SignatureHash | None:
    """The hash with which CFSSL signs for such a key (signer.DefaultSigAlgo); None for Ed25519, which has its own."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return None
    if isinstance(key, rsa.RSAPrivateKey):
        bits = key.key_size
        return hashes.SHA512() if bits >= 4096 else hashes.SHA384() if bits >= 3072 else hashes.SHA256()
    bits = key.curve.key_size
    return hashes.SHA512() if bits == 521 else hashes.SHA384() if bits == 384 else hashes.SHA256()


def public_der(key: PublicKey) -> bytes:
    """The SubjectPublicKeyInfo (DER), used to compare keys."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def load(pem: bytes, passphrase: str | None) -> PrivateKey:
    """The private key in `pem`. Raises KeyUnreadable, PassphraseNeeded or PassphraseWrong."""
    if is_encrypted(pem):
        if passphrase is None:
            raise PassphraseNeeded
        secret: bytes | None = passphrase.encode()
    else:
        secret = None
    # CFSSL's own PEM label for a PKCS #8 key of this kind, which no other program knows.
    pem = pem.replace(b" Ed25519 PRIVATE KEY-----", b" PRIVATE KEY-----")
    try:
        # The skipped checks detect forged primes; they are slow, and these files are our own.
        key = serialization.load_pem_private_key(pem, secret, unsafe_skip_rsa_key_validation=True)
    except (ValueError, TypeError) as error:
        if secret is not None and "-----END" in pem.decode("ascii", "replace"):
            raise PassphraseWrong from error
        raise KeyUnreadable(_reason(pem, error)) from error
    except Exception as error:  # cryptography's UnsupportedAlgorithm, and OpenSSL's errors for broken data
        raise KeyUnreadable(str(error) or type(error).__name__) from error
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey)):
        raise KeyUnreadable("it is not an ECDSA, RSA or Ed25519 key")
    return key


def is_encrypted(pem: bytes) -> bool:
    return b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in pem or b"Proc-Type: 4,ENCRYPTED" in pem


def dump(key: PrivateKey, passphrase: str | None) -> bytes:
    if passphrase is not None:
        return key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(passphrase.encode()),
        )
    form = (
        serialization.PrivateFormat.PKCS8
        if isinstance(key, ed25519.Ed25519PrivateKey)
        else serialization.PrivateFormat.TraditionalOpenSSL
    )
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def has_signed(key: PublicKey, signature: bytes, signed: bytes, algorithm: hashes.HashAlgorithm | None) -> bool:
    """Whether `signature` over `signed` was made with the private half of `key`."""
    from cryptography.exceptions import InvalidSignature

    try:
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, signed)
        elif algorithm is None:
            return False
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, signed, padding.PKCS1v15(), algorithm)
        else:
            key.verify(signature, signed, ec.ECDSA(algorithm))
    except InvalidSignature:
        return False
    return True


def _reason(pem: bytes, error: Exception) -> str:
    if b"-----BEGIN" not in pem:
        return "it is not PEM"
    if b"-----END" not in pem:
        return "its end is missing"
    text = str(error).partition("(")[0].strip().rstrip(".")
    return text or "it is not a private key"
