# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads a certificate's files once, without changing anything."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field

from ansible_collections.k8sgu.cluster.plugins.module_utils._files import FileError, pending_files, resolve_destination
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import keys
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.certificates import (
    Certificate,
    CertificateUnreadable,
    read_certificate,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.entries import Entry

try:  # noqa: SIM105 - linters of modules look for this form
    from cryptography import x509
except ImportError:
    pass  # libraries.require reports it before anything here is called


@dataclass(frozen=True)
class Current:
    """The files of an entry. `unreadable` are those that `force` allows to replace, `open_files` those that others can
    read (keys) or change; `interrupted` is True if a killed run has not finished its renames."""

    existing: tuple[str, ...] = ()
    certificate: Certificate | None = None
    key: keys.PrivateKey | None = None
    key_encrypted: bool = False
    csr_pem: bytes | None = None
    csr_key: bytes | None = None
    unreadable: tuple[str, ...] = ()
    open_files: tuple[str, ...] = ()
    interrupted: bool = False

    @property
    def key_public(self) -> bytes:
        return keys.public_der(self.key.public_key()) if self.key is not None else b""


@dataclass
class Disk:
    """Reads files through the journal of a killed run, so that check mode sees the same as the next run."""

    pending: dict[str, dict[str, str]] = field(default_factory=dict)

    def source(self, path: str) -> str:
        directory, name = os.path.split(path)
        if directory not in self.pending:
            self.pending[directory] = pending_files(directory)
        return self.pending[directory].get(name, path)

    def read(self, path: str) -> tuple[bytes, int] | None:
        """Content and permission bits; None if there is no such file. Raises OSError."""
        try:
            with open(self.source(path), "rb") as stream:  # noqa: PTH123 - half the time of a Path
                return stream.read(), stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
        except FileNotFoundError:
            return None


def check_destinations(entry: Entry) -> None:
    """Raises PkiError if a path cannot be written, before anything is changed."""
    try:
        for path in entry.paths:
            resolve_destination(path)
    except FileError as error:
        raise entry.error("path", str(error)) from None
    directory = entry.directory
    while not os.path.lexists(directory):
        directory = os.path.dirname(directory)  # noqa: PTH120
    if not os.path.isdir(directory):  # noqa: PTH112
        raise entry.error("path", f"{directory} is not a directory; remove it, or name another path")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise entry.error("path", f"{directory} cannot be written to by this user; become another or name another path")


def read_current(entry: Entry, disk: Disk) -> Current:
    """The entry's files. Raises PkiError for one that cannot be read, unless `force` allows to replace it."""
    contents = {}
    for path in entry.paths:
        try:
            found = disk.read(path)
        except OSError as error:
            raise entry.error("path", f"{path} cannot be read: {error.strerror}") from None
        if found is not None:
            contents[path] = found
    existing = tuple(contents)
    interrupted = any(disk.source(path) != path for path in entry.paths)
    if entry.wanted is None:
        return Current(existing=existing, interrupted=interrupted)
    unreadable = []

    def refuse(path: str, what: str, why: object) -> None:
        if not entry.force:
            raise entry.error(
                "path",
                f"{path} cannot be read as {what}: {why}. Restore it, remove it, or set force to replace it",
            )
        unreadable.append(path)

    certificate, key, csr_key = None, None, None
    if entry.certificate_path in contents:
        try:
            certificate = read_certificate(contents[entry.certificate_path][0])
        except CertificateUnreadable as error:
            refuse(entry.certificate_path, "a certificate", error)
    if entry.key_path in contents:
        try:
            key = keys.load(contents[entry.key_path][0], entry.wanted.passphrase)
        except keys.KeyUnreadable as error:
            refuse(entry.key_path, "a private key", error)
        except keys.PassphraseNeeded:
            raise entry.error("passphrase", f"is needed to open {entry.key_path}, which is encrypted") from None
        except keys.PassphraseWrong:
            raise entry.error("passphrase", f"does not open {entry.key_path}; give the one it was made with") from None
    csr_pem = contents[entry.csr_path][0] if entry.csr_path in contents else None
    if csr_pem is not None:
        try:
            csr_key = keys.public_der(x509.load_pem_x509_csr(csr_pem).public_key())  # type: ignore[arg-type]
        except Exception as error:  # ValueError, and other errors of the parser for broken data
            refuse(entry.csr_path, "a certificate request", str(error).partition("\n")[0])
    closed_to = {entry.key_path: 0o077}
    return Current(
        existing=existing,
        certificate=certificate,
        key=key,
        key_encrypted=entry.key_path in contents and keys.is_encrypted(contents[entry.key_path][0]),
        csr_pem=csr_pem,
        csr_key=csr_key,
        unreadable=tuple(unreadable),
        open_files=tuple(path for path, (_data, mode) in contents.items() if mode & closed_to.get(path, 0o022)),
        interrupted=interrupted,
    )
