# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The key pair that signs service-account tokens: a private and a public key file, made once and kept."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.k8sgu.cluster.plugins.module_utils._files import FileError, atomic_write, resolve_destination
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.libraries import (
    CRYPTOGRAPHY,
    LibraryMissing,
    require,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.options import ARGUMENT_SPECS

try:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
except ImportError:
    pass  # `run` checks for it before anything here is called

SIZES = {"rsa": (2048, 3072, 4096), "ecdsa": (256, 384, 521)}
_PUBLIC_KEY = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----\n?", re.DOTALL)


class SigningKeyError(Exception):
    """Keys or options cannot be used; the text names the option and says what to do."""


class Plan(NamedTuple):
    """`create`: whether to make a key. `public`: other keys that the public file keeps; None if the file is right."""

    create: bool
    public: list[bytes] | None
    changes: list[str]


def run(call: Call) -> dict[str, Any]:
    """Makes the pair as the options say and returns the module's result. Raises SigningKeyError and FileError."""
    require(CRYPTOGRAPHY)
    options = call.options
    paths = (options["path"], options["public_path"])
    algorithm = options["algorithm"]
    size = SIZES[algorithm][0] if options["size"] is None else options["size"]
    planned = plan(read(paths[0]), read(paths[1]), algorithm, size, paths)
    if planned.changes and not call.check_mode:
        apply(planned, algorithm, size, paths)
    return {
        "changed": bool(planned.changes),
        "changes": planned.changes,
        "diff": {"before": "", "after": "".join(f"{change}\n" for change in planned.changes)},
    }


def plan(private: bytes | None, public: bytes | None, algorithm: str, size: int, paths: tuple[str, str]) -> Plan:
    """What must change, given the content of the two files (None: no file). Raises SigningKeyError."""
    path, public_path = paths
    if size not in SIZES[algorithm]:
        raise SigningKeyError(f"size: {size} is not a size of {algorithm}; use {', '.join(map(str, SIZES[algorithm]))}")
    if public is not None and not _PUBLIC_KEY.search(public):
        raise SigningKeyError(f"public_path: {public_path} holds no PEM public key; restore or remove it")
    if private is None:
        if public is not None:
            raise SigningKeyError(
                f"path: {path} is missing, but {public_path} exists. A new key would invalidate every token that the"
                f" lost key signed: restore it, or remove {public_path} to make a new pair"
            )
        return Plan(True, [], [f"a key is made: {algorithm} {size}"])
    key = _load(private, path)
    kind = ("rsa", key.key_size) if isinstance(key, rsa.RSAPrivateKey) else ("ecdsa", key.key_size)
    if kind != (algorithm, size):
        raise SigningKeyError(
            f"algorithm: {path} is {kind[0]} {kind[1]}, not {algorithm} {size}. The key is never replaced, since that"
            f" would invalidate every token: ask for {kind[0]} {kind[1]}, or remove both files to make a new pair"
        )
    if public is None:
        return Plan(False, [], ["the public key is written"])
    others = _others(key, public)
    if len(others) == len(_PUBLIC_KEY.findall(public)):
        return Plan(False, others, ["the private key's public key is added"])
    return Plan(False, None, [])


def apply(planned: Plan, algorithm: str, size: int, paths: tuple[str, str]) -> None:
    """Carry out `planned`: writes the private key first, since the public one follows from it. Raises FileError."""
    path, public_path = paths
    if planned.create:
        key: Any
        if algorithm == "rsa":
            key = rsa.generate_private_key(public_exponent=65537, key_size=size)
        else:
            key = ec.generate_private_key({256: ec.SECP256R1(), 384: ec.SECP384R1(), 521: ec.SECP521R1()}[size])
        content = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        atomic_write(path, content, 0o600, directory_mode=0o700)
    else:
        key = _load(Path(path).read_bytes(), path)
    if planned.public is not None:
        content = b"".join([public_pem(key), *(block.strip() + b"\n" for block in planned.public)])
        atomic_write(public_path, content, 0o644, directory_mode=0o700)


def read(path: str) -> bytes | None:
    """The content of a key file, None if it does not exist. Raises SigningKeyError and FileError."""
    target = resolve_destination(path)
    try:
        return Path(target).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SigningKeyError(f"path: {path} cannot be read ({error.strerror})") from None


def public_pem(key: Any) -> bytes:
    """The public half of `key` as PEM."""
    return bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM,
            serialization.PublicFormat.SubjectPublicKeyInfo,
        )
    )


def other_keys(private: bytes, public: bytes, path: str) -> bytes:
    """The public keys in `public`, as PEM, that are not the one of `private`. Raises SigningKeyError."""
    return b"".join(block.strip() + b"\n" for block in _others(_load(private, path), public))


def _others(key: Any, public: bytes) -> list[bytes]:
    ours = public_pem(key).strip()
    return [block for block in _PUBLIC_KEY.findall(public) if block.strip() != ours]


def _load(content: bytes, path: str) -> Any:
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except TypeError:
        raise SigningKeyError(
            f"path: {path} is encrypted, and a component cannot ask for a passphrase; decrypt it"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)):
        raise SigningKeyError(
            f"path: {path} is not a readable RSA or ECDSA key. It was left untouched: restore it from a backup, or"
            " remove it and its public key to make a new pair, which invalidates every token that the old one signed"
        )
    return key


MODULE = Module(ARGUMENT_SPECS["signing_key"], run, (SigningKeyError, FileError, LibraryMissing))
