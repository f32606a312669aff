# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes a backup, and opens one into an empty state directory. What is encrypted is so before it reaches the disk.

The format is age's, https://age-encryption.org/v1, so that a backup can be opened without this collection.
"""

from __future__ import annotations

import contextlib
import datetime
import io
import json
import os
import shutil
import threading
from pathlib import Path
from typing import IO, Any, Callable, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._backup import age, content
from ansible_collections.k8sgu.cluster.plugins.module_utils._backup.age import AgeError
from ansible_collections.k8sgu.cluster.plugins.module_utils._backup.content import ContentError, Manifest
from ansible_collections.k8sgu.cluster.plugins.module_utils._backup.options import ARGUMENT_SPECS
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import (
    FileError,
    atomic_write,
    ensure_directory,
    free_bytes,
    sync_directory,
    whole_file,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.libraries import PYRAGE, LibraryMissing, require
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module

with contextlib.suppress(ImportError):  # `run` checks for it before anything here is called
    import pyrage

_TIME = "%Y%m%dT%H%M%SZ"
# By which a second call knows that this backup was opened.
OPENED = "opened.json"
_MIB = 2**20
# With a passphrase all of it is in memory, twice.
_MOST_WITH_PASSPHRASE = 512 * _MIB
_SPARE = 64 * _MIB
_BEGINS = b"age-encryption.org/v1\n-> "
_FOR_PASSPHRASE = _BEGINS + b"scrypt "
_UNOPENED = "path: {} cannot be opened: the passphrase or the key is another one, or the file is damaged ({})"


class BackupError(Exception):
    """There is no backup, or none that can be opened; the text names the option and says what to do."""


def run(call: Call) -> dict[str, Any]:
    """The module's result. Raises BackupError, FileError, LibraryMissing."""
    require(PYRAGE)
    try:
        return (_made if call.options["state"] == "made" else _opened)(call)
    except OSError as error:
        raise BackupError(f"{error.filename or call.options['path']}: {error.strerror or error}") from error


def _made(call: Call) -> dict[str, Any]:
    options = call.options
    state, directory = Path(options["state_dir"]), Path(options["path"])
    seal = _seal(options)
    if not (state / "pki" / "kubernetes-ca.pem").is_file():
        raise BackupError(f"state_dir: {state} has no pki/kubernetes-ca.pem, so no cluster was made from it")
    snapshots = [Path(path) for path in options["snapshots"]]
    missing = [str(path) for path in snapshots if not path.is_file()]
    if missing:
        raise BackupError(f"snapshots: {', '.join(missing)} is not there")
    found = content.files(state)
    size = sum(path.stat().st_size for path in [*found, *snapshots])
    _room(directory, size, bool(options["passphrase"]))
    now = datetime.datetime.now(datetime.timezone.utc)
    name = f"{options['cluster']}-{now.strftime(_TIME)}{content.SUFFIX}"
    path = directory / name
    older = _older(directory, options["cluster"], options["keep"])
    result: dict[str, Any] = {
        "changed": True,
        "path": str(path),
        "files": len(found),
        "snapshots": [one.name for one in snapshots],
        "removed": [one.name for one in older],
    }
    if call.check_mode:
        return result
    manifest = Manifest(options["cluster"], now.strftime(_TIME), content.fixed(state), result["snapshots"])
    ensure_directory(str(directory), 0o700)
    with whole_file(str(path)) as stream:
        seal(lambda archive: content.pack(archive, state, manifest, snapshots), stream)
    for one in older:
        one.unlink()
    return {**result, "bytes": path.stat().st_size}


def _opened(call: Call) -> dict[str, Any]:
    options = call.options
    state, path = Path(options["state_dir"]), Path(options["path"])
    told = _told(state)
    if told.get("backup") == path.name:
        return {"changed": False, **{name: told[name] for name in ("made", "fixed", "snapshots")}}
    if state.exists() and (not state.is_dir() or any(state.iterdir())):
        raise BackupError(
            f"state_dir: {state} is not empty, and the keys of what is in it would mix with the backup's; move it "
            "away, or choose another"
        )
    _beginning(path)
    parent = state.parent
    ensure_directory(str(parent), 0o700)
    # What an earlier call left that was killed.
    place = parent / f".{state.name}.opening"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(0o700)
    try:
        with _unsealed(path, options, place) as stream:
            target = place / "state"
            target.mkdir(0o700)
            manifest = content.unpack(stream, target)
        if manifest.cluster != options["cluster"]:
            raise BackupError(
                f"path: {path} is a backup of the cluster {manifest.cluster}, and this is {options['cluster']}; put "
                f"back k8sgu_cluster_name: {manifest.cluster}"
            )
        other = [
            f"{option}: {wanted}, and the cluster of this backup was made with {manifest.fixed[option]}; put that back"
            for option, wanted in options["fixed"].items()
            # An existing VPC of the user's has its own range, and is told as nothing.
            if wanted and str(manifest.fixed.get(option) or wanted) != str(wanted)
        ]
        if other:
            raise BackupError(f"path: {path} has data that this description does not fit: {'; '.join(other)}")
        shown = {"made": manifest.made, "fixed": manifest.fixed, "snapshots": manifest.snapshots}
        if not call.check_mode:
            # From then on, until a restore, the cluster that is made with it is an empty one.
            now = datetime.datetime.now(datetime.timezone.utc).strftime(_TIME)
            note = json.dumps({"backup": path.name, "opened": now, **shown}, indent=2) + "\n"
            atomic_write(str(target / OPENED), note.encode(), 0o600)
            with contextlib.suppress(FileNotFoundError):
                state.rmdir()
            target.rename(state)
            sync_directory(str(parent))
    except ContentError as error:
        raise BackupError(f"path: {path}: {error}") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return {"changed": True, **shown}


def _told(state: Path) -> dict[str, Any]:
    """What this directory was opened from; empty if it was not."""
    try:
        found = json.loads((state / OPENED).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _room(directory: Path, size: int, passphrase: bool) -> None:
    if passphrase and size > _MOST_WITH_PASSPHRASE:
        raise BackupError(
            f"passphrase: the backup has {size // _MIB} MiB, and with a passphrase all of it would be in memory; give "
            "a key instead (recipients: age-keygen makes one)"
        )
    free = free_bytes(str(directory.absolute()))
    if free < size + _SPARE:
        raise BackupError(
            f"path: {directory} has {free // _MIB} MiB free, and the backup takes {(size + _SPARE) // _MIB} MiB with "
            "room to spare; make room, or name another directory"
        )


def _older(directory: Path, cluster: str, keep: int) -> list[Path]:
    """This cluster's backups that are too many beside a new one, the oldest first."""
    pattern = content.names_of(cluster)
    if keep < 1 or not directory.is_dir():
        return []
    found = sorted(path for path in directory.iterdir() if pattern.fullmatch(path.name))
    return found[: max(0, len(found) - keep + 1)]


Seal = Callable[[Callable[[IO[bytes]], None], IO[bytes]], None]


def _seal(options: Mapping[str, Any]) -> Seal:
    """Encrypts what a function writes."""
    if bool(options["passphrase"]) == bool(options["recipients"]):
        raise BackupError(
            "a backup has all of the cluster's keys, and is made only encrypted: give either a passphrase "
            "(K8SGU_BACKUP_PASSPHRASE) or recipients (k8sgu_backup_recipients, age1..., which age-keygen makes)"
        )
    if options["passphrase"]:
        return lambda write, stream: _with_passphrase(write, stream, options["passphrase"])
    owners = []
    for text in options["recipients"]:
        try:
            owners.append(pyrage.x25519.Recipient.from_str(text))
        except pyrage.RecipientError:
            raise BackupError(f"recipients: {text} is none of age's, such as age1ql3z7hjy54...") from None
    return lambda write, stream: _for_owners(write, stream, owners)


def _with_passphrase(write: Callable[[IO[bytes]], None], stream: IO[bytes], passphrase: str) -> None:
    archive = io.BytesIO()
    write(archive)
    stream.write(pyrage.passphrase.encrypt(archive.getvalue(), passphrase))


def _for_owners(write: Callable[[IO[bytes]], None], stream: IO[bytes], owners: list[Any]) -> None:
    """Through a pipe, so that nothing is on the disk as it is, however large."""
    failed: list[BaseException] = []
    reading, writing = os.pipe()

    def feed() -> None:
        try:
            with os.fdopen(writing, "wb") as pipe:
                write(pipe)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        with os.fdopen(reading, "rb") as pipe:
            pyrage.encrypt_io(pipe, stream, owners)
    finally:
        thread.join()
    if failed:
        raise failed[0]


def _beginning(path: Path) -> bytes:
    with path.open("rb") as stream:
        begins = stream.read(len(_FOR_PASSPHRASE))
    if not begins.startswith(_BEGINS):
        raise BackupError(f"path: {path} is no file of age, and so no backup")
    return begins


def _unsealed(path: Path, options: Mapping[str, Any], place: Path) -> IO[bytes]:
    """The archive, all of which is authentic. Raises BackupError."""
    if _beginning(path) == _FOR_PASSPHRASE:
        if not options["passphrase"]:
            raise BackupError(f"path: {path} takes a passphrase (K8SGU_BACKUP_PASSPHRASE)")
        sealed = path.read_bytes()
        try:
            return io.BytesIO(pyrage.passphrase.decrypt(sealed, options["passphrase"]))
        except pyrage.DecryptError as error:
            raise BackupError(_UNOPENED.format(path, error)) from None
    if not options["identity_file"]:
        raise BackupError(
            f"path: {path} takes the key of one of those it was made for: name the file that age-keygen wrote "
            "(k8sgu_backup_identity_file)"
        )
    try:
        keys = age.identities(Path(options["identity_file"]))
    except AgeError as error:
        raise BackupError(f"identity_file: {error}") from None
    archive = (place / "archive").open("x+b")
    with path.open("rb") as stream:
        try:
            age.decrypt(stream, archive, keys)
        except AgeError as error:
            raise BackupError(_UNOPENED.format(path, error)) from None
    archive.seek(0)
    return archive


MODULE = Module(ARGUMENT_SPECS["cluster_backup"], run, (BackupError, FileError, LibraryMissing))
