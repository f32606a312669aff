# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The key pair of age for which members encrypt what they put into the bucket, made once and kept.

Nodes have the public one only: who breaks into a node cannot read what it put there before.
https://age-encryption.org
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.k8sgu.cluster.plugins.module_utils._backup.options import ARGUMENT_SPECS
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import FileError, atomic_write, resolve_destination
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.libraries import PYRAGE, LibraryMissing, require
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module

with contextlib.suppress(ImportError):  # `run` checks for it before anything here is called
    import pyrage

_PRIVATE, _PUBLIC = "AGE-SECRET-KEY-1", "age1"


class BackupKeyError(Exception):
    """The keys cannot be used; the text names the option and says what to do."""


class Plan(NamedTuple):
    """`create`: whether to make a key. `public`: whether the public key has to be written."""

    create: bool
    public: bool
    changes: list[str]


def run(call: Call) -> dict[str, Any]:
    """The module's result. Raises BackupKeyError, FileError, LibraryMissing."""
    require(PYRAGE)
    path, public_path = call.options["path"], call.options["public_path"]
    private, public = _line(path, "path", _PRIVATE), _line(public_path, "public_path", _PUBLIC)
    planned = plan(private, public, path, public_path)
    if not call.check_mode:
        apply(planned, private, path, public_path)
    return {
        "changed": bool(planned.changes),
        "changes": planned.changes,
        "diff": {"before": "", "after": "".join(f"{change}\n" for change in planned.changes)},
    }


def plan(private: str, public: str, path: str, public_path: str) -> Plan:
    """What must change, given the keys of the two files (empty: no file). Raises BackupKeyError. Pure but for age."""
    if not private:
        if public:
            raise BackupKeyError(
                f"path: {path} is missing, but {public_path} is there. Nothing else opens the snapshots in the bucket: "
                f"restore it from a backup of the state directory, or remove {public_path} to make a new key, which "
                "opens the new ones only"
            )
        return Plan(True, True, ["a key is made", "the public key is written"])
    own = str(_identity(private, path).to_public())
    if public and public != own:
        raise BackupKeyError(
            f"public_path: {public_path} is the public key of another one than {path}; restore the two that belong "
            f"together from a backup, or remove {public_path}, which is then written anew"
        )
    return Plan(False, not public, [] if public else ["the public key is written"])


def apply(planned: Plan, private: str, path: str, public_path: str) -> None:
    """Carries out `planned`, the private key first, since the public one follows from it. Raises FileError."""
    if planned.create:
        private = str(pyrage.x25519.Identity.generate())
        atomic_write(path, f"{private}\n".encode(), 0o600, directory_mode=0o700)
    if planned.public:
        public = str(_identity(private, path).to_public())
        atomic_write(public_path, f"{public}\n".encode(), 0o644, directory_mode=0o700)


def _line(path: str, option: str, begins: str) -> str:
    """The first line of a file that is a key, as age-keygen writes it among comments; empty if there is no file."""
    try:
        lines = Path(resolve_destination(path)).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise BackupKeyError(
            f"{option}: {path} cannot be read ({getattr(error, 'strerror', '') or 'no text'})"
        ) from None
    keys = [line.strip() for line in lines if line.strip().startswith(begins)]
    if not keys:
        raise BackupKeyError(f"{option}: {path} has no line {begins}..., as age-keygen writes it; restore or remove it")
    return keys[0]


def _identity(private: str, path: str) -> Any:
    try:
        return pyrage.x25519.Identity.from_str(private)
    except pyrage.IdentityError:
        raise BackupKeyError(
            f"path: {path} has a key that age does not know. It was left untouched: restore it from a backup of the "
            "state directory"
        ) from None


MODULE = Module(ARGUMENT_SPECS["backup_key"], run, (BackupKeyError, FileError, LibraryMissing))
