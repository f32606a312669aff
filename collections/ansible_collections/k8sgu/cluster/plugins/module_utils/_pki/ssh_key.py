# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An Ed25519 key pair in OpenSSH's own format: plan first, then the two files.

The public file is derived from the private key, so the next run repairs one that was interrupted between the two.
The format: https://cvsweb.openbsd.org/src/usr.bin/ssh/PROTOCOL.key
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._files import FileError, atomic_write
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.libraries import (
    CRYPTOGRAPHY,
    LibraryMissing,
    require,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.options import ARGUMENT_SPECS

try:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
        load_ssh_private_key,
    )
except ImportError:
    pass  # `run` checks for it before anything here is called


class KeyFileError(Exception):
    """The private key's file cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Plan:
    """`private` is None if the key stays as it is; `fix_mode` is True if only its mode is wrong."""

    private: bytes | None
    public: str
    write_public: bool
    fix_mode: bool

    @property
    def changed(self) -> bool:
        return self.private is not None or self.write_public or self.fix_mode

    @property
    def fingerprint(self) -> str:
        """The fingerprint in the form of `ssh-keygen -l`."""
        digest = hashlib.sha256(base64.b64decode(self.public.split()[1])).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def public_path(path: Path) -> Path:
    return path.with_name(path.name + ".pub")


def run(call: Call) -> dict[str, Any]:
    """Makes the pair as the options say and returns the module's result. Raises KeyFileError and FileError."""
    require(CRYPTOGRAPHY)
    path = Path(call.options["path"])
    wanted = plan(path, call.options["comment"])
    if wanted.changed and not call.check_mode:
        apply(path, wanted)
    diff = {}
    if wanted.private is not None or wanted.write_public:
        diff = {"before": "", "after": wanted.public + "\n", "after_header": str(public_path(path))}
    return {
        "changed": wanted.changed,
        "diff": diff,
        "path": str(path),
        "public_key": wanted.public,
        "fingerprint": wanted.fingerprint,
    }


def plan(path: Path, comment: str) -> Plan:
    """What is missing at `path` and beside it. Raises KeyFileError if `path` is another kind of file."""
    fix_mode = False
    private: bytes | None = None
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        public_key = key.public_key()
    except OSError as error:
        raise KeyFileError(f"path: {path} cannot be read: {error.strerror}") from error
    else:
        try:
            loaded = load_ssh_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise KeyFileError(
                f"path: {path} is not an OpenSSH private key without a passphrase ({error}); "
                "name another path, or move that file away"
            ) from None
        public_key = loaded.public_key()  # type: ignore[assignment]
        fix_mode = bool(stat.S_IMODE(path.stat().st_mode) & 0o077)
    public = public_key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() + (
        f" {comment}" if comment else ""
    )
    try:
        write_public = public_path(path).read_text() != public + "\n"
    except (OSError, UnicodeDecodeError):
        write_public = True
    return Plan(private, public, write_public, fix_mode)


def apply(path: Path, wanted: Plan) -> None:
    """Carries out the plan, the private key first."""
    if wanted.private is not None:
        atomic_write(str(path), wanted.private, mode=0o600, directory_mode=0o700)
    elif wanted.fix_mode:
        os.chmod(path, 0o600)  # noqa: PTH101 - the same call, without a second look at the path
    if wanted.write_public:
        atomic_write(str(public_path(path)), (wanted.public + "\n").encode(), mode=0o644)


MODULE = Module(ARGUMENT_SPECS["ssh_key"], run, (KeyFileError, FileError, LibraryMissing))
