# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The mirror's directory: reads and writes manifest.json, and checks the files against it.

docs/interfaces.md describes the layout, with the additional fields `key` (hash of what a built file was made from) and
`origin`.
"""

# Paths come and go as text here.
# ruff: noqa: PTH100, PTH103, PTH110, PTH116, PTH118, PTH123
from __future__ import annotations

import json
import os
import threading
from typing import Any, Iterable, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._files import FileError, atomic_write, sha256_of
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.errors import MirrorError, storage_errors

MANIFEST = "manifest.json"
SCHEMA = 1
# Files that were hashed, with their size, time and inode, so that no unchanged file is read twice.
_VERIFIED = ".verified.json"


class Store:
    """A mirror. Methods that change it are safe to call from several threads of one process."""

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        self._lock = threading.Lock()
        self.files: dict[str, dict[str, Any]] = {}
        self.images: dict[str, dict[str, Any]] = {}
        self.packages: dict[str, dict[str, Any]] = {}
        self._verified: dict[str, list[Any]] = {}
        self._verified_changed = False
        self.load()

    def path(self, relative: str) -> str:
        """The absolute path of a path in the manifest. Raises MirrorError for a path outside the mirror."""
        full = os.path.normpath(os.path.join(self.root, relative))
        if not full.startswith(self.root + os.sep):
            raise MirrorError(f"{self.root}/{MANIFEST}: path '{relative}' leads out of the mirror")
        return full

    def load(self) -> None:
        data = self._read(MANIFEST)
        if data.get("schema", SCHEMA) != SCHEMA:
            raise MirrorError(
                f"{self.root}/{MANIFEST}: schema {data.get('schema')} is unknown here (known: {SCHEMA}); "
                "use the version of k8sgu that wrote it, or an empty mirror_dir"
            )
        try:
            self.files = {str(entry["path"]): entry for entry in data.get("files", [])}
            self.images = {str(entry["name"]): entry for entry in data.get("images", [])}
            # Older manifests have entries without a version, which stood for any.
            packages = [entry for entry in data.get("packages", []) if "version" in entry and "arch" in entry]
            self.packages = {_item(entry): entry for entry in packages}
        except (KeyError, TypeError, AttributeError) as error:
            raise MirrorError(f"{self.root}/{MANIFEST}: is damaged ({error}); remove it and run again") from error
        # Keep what was hashed since: each record has the size, time and inode that it is valid for.
        self._verified = {**self._read(_VERIFIED, lenient=True), **self._verified}

    def _read(self, name: str, lenient: bool = False) -> dict[str, Any]:
        path = os.path.join(self.root, name)
        try:
            with open(path, "rb") as stream:
                data = json.loads(stream.read())
        except FileNotFoundError:
            return {}
        except NotADirectoryError as error:
            raise MirrorError(f"{self.root}: is not a directory") from error
        except (OSError, ValueError) as error:
            if lenient:
                return {}
            raise MirrorError(f"{path}: cannot be read ({error}); remove it and run again") from error
        if not isinstance(data, dict):
            if lenient:
                return {}
            raise MirrorError(f"{path}: is damaged; remove it and run again")
        return data

    def intact(self, relative: str, sha256: str, size: int) -> str:
        """Empty when the file exists with this checksum, otherwise what is wrong with it."""
        path = self.path(relative)
        try:
            status = os.stat(path)
        except FileNotFoundError:
            return "is missing"
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        if status.st_size != size:
            return f"has {status.st_size} bytes instead of {size}"
        seen = [status.st_size, status.st_mtime_ns, status.st_ino, sha256]
        with self._lock:
            if self._verified.get(relative) == seen:
                return ""
        try:
            actual = sha256_of(path)
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        if actual != sha256:
            return f"has the sha256 {actual} instead of {sha256}"
        with self._lock:
            self._verified[relative] = seen
            self._verified_changed = True
        return ""

    def forget(self, relative: str) -> None:
        """Hash this file again at the next check."""
        with self._lock:
            self._verified.pop(relative, None)

    def add_files(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Record placed files; the manifest on disk has them before this returns."""
        with self._lock:
            for entry in entries:
                self.files[str(entry["path"])] = dict(entry)
                self.packages.pop(_item(entry), None)
            self._save()

    def add_image(self, entry: Mapping[str, Any]) -> None:
        with self._lock:
            self.images[str(entry["name"])] = dict(entry)
            self._save()

    def package(self, component: str, version: str, arch: str) -> dict[str, Any] | None:
        """The entry of a component that comes from the nodes' distribution, or None."""
        return self.packages.get(file_path(component, version, arch, ""))

    def add_package(self, entry: Mapping[str, Any]) -> None:
        """Record that a component comes from the nodes' distribution; its files no longer count."""
        with self._lock:
            self.packages[_item(entry)] = dict(entry)
            self.files = {path: known for path, known in self.files.items() if _item(known) != _item(entry)}
            self._save()

    def remember_verified(self) -> None:
        """Save what was hashed; a mirror that is not writable is hashed again next time."""
        with self._lock:
            if not self._verified_changed or not os.access(self.root, os.W_OK):
                return
            known = {relative: seen for relative, seen in self._verified.items() if os.path.exists(self.path(relative))}
            try:
                atomic_write(os.path.join(self.root, _VERIFIED), json.dumps(known).encode(), 0o644)
            except FileError:
                return
            self._verified_changed = False

    def _save(self) -> None:
        data = {
            "schema": SCHEMA,
            "files": [self.files[key] for key in sorted(self.files)],
            "images": [self.images[key] for key in sorted(self.images)],
            "packages": [self.packages[key] for key in sorted(self.packages)],
        }
        text = json.dumps(data, indent=1, sort_keys=True) + "\n"
        with storage_errors(self.root):
            try:
                os.makedirs(self.root, 0o755, exist_ok=True)
                atomic_write(os.path.join(self.root, MANIFEST), text.encode(), 0o644)
            except FileError as error:
                if isinstance(error.__cause__, OSError):
                    raise OSError(*error.__cause__.args) from error
                raise MirrorError(str(error)) from error


def _item(entry: Mapping[str, Any]) -> str:
    """An entry's component, version and architecture as one string."""
    return file_path(str(entry["component"]), str(entry["version"]), str(entry["arch"]), "")


def file_path(component: str, version: str, arch: str, name: str) -> str:
    return f"files/{component}/{version}/{arch}/{name}"


def image_path(registry: str, repository: str) -> str:
    return f"images/{registry}/{repository}"
