# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checksums: read from a publisher's file, and pinned in a lock file.

Publishers use these forms: a bare sum (dl.k8s.io), `sum  name` lines (sha256sum, goreleaser), and the asset digests of
https://docs.github.com/rest/releases/releases.
"""

# Paths come and go as text here.
# ruff: noqa: PTH120, PTH123
from __future__ import annotations

import json
import os
import re
import threading

from ansible.module_utils.common.yaml import yaml_load

from ansible_collections.k8sgu.cluster.plugins.module_utils._files import FileError, atomic_write
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.errors import MirrorError

_SUM = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_HEADER = """\
# Checksums that publishers gave over HTTPS, and digests of image tags, pinned when first seen. Keep this file.
# Written by k8sgu.cluster.mirror. A file that differs later is refused; remove a line only if the change is intended.
"""


def published_sum(text: str, file_name: str) -> str | None:
    """The SHA-256 that a publisher's file gives for `file_name`, or None when it gives none."""
    stripped = text.strip()
    bare = _SUM.fullmatch(stripped.lower())
    if bare:
        return bare.group(1)
    if stripped.startswith("{"):
        return _github_digest(stripped, file_name)
    for line in stripped.splitlines():
        words = line.split()
        if len(words) == 2 and words[1].lstrip("*").rpartition("/")[2] == file_name:
            match = _SUM.fullmatch(words[0].lower())
            if match:
                return match.group(1)
    return None


def _github_digest(text: str, file_name: str) -> str | None:
    try:
        assets = json.loads(text).get("assets", [])
        digests = [asset.get("digest") or "" for asset in assets if asset.get("name") == file_name]
    except (ValueError, AttributeError, TypeError):
        return None
    match = _SUM.fullmatch(str(digests[0])) if digests else None
    return match.group(1) if match else None


class Lock:
    """The lock file: {address of a file, or name of an image: its SHA-256}."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._sums: dict[str, dict[str, str]] = {"files": {}, "images": {}}
        try:
            with open(path, "rb") as stream:
                data = yaml_load(stream)
        except FileNotFoundError:
            return
        except OSError as error:
            raise MirrorError(f"{path}: {error.strerror}") from error
        except Exception as error:
            raise MirrorError(f"{path}: is not YAML: {error}") from error
        for kind, sums in self._sums.items():
            found = (data or {}).get(kind) or {}
            for key, digest in found.items():
                if not isinstance(digest, str) or not _SUM.fullmatch(digest):
                    raise MirrorError(f"{path}: {kind}: {key}: '{digest}' is not a SHA-256 (64 hexadecimal digits)")
                sums[str(key)] = digest

    def get(self, kind: str, key: str) -> str | None:
        with self._lock:
            return self._sums[kind].get(key)

    def pin(self, kind: str, key: str, digest: str) -> None:
        """Record a sum seen for the first time; it is in the file on disk before this returns."""
        with self._lock:
            known = self._sums[kind].get(key)
            if known is not None:
                if known != digest:
                    raise MirrorError(
                        f"{key}: its publisher now gives {digest}, but {self.path} has {known}; it was not used"
                    )
                return
            self._sums[kind][key] = digest
            lines = [_HEADER]
            for name, sums in self._sums.items():
                lines.append(f"{name}:" + ("\n" if sums else " {}\n"))
                lines += [f'  "{key}": "{sums[key]}"\n' for key in sorted(sums)]
            try:
                atomic_write(self.path, "".join(lines).encode(), 0o644)
            except FileError as error:
                raise MirrorError(
                    f"the sum of {key} cannot be pinned: {error}; make {os.path.dirname(self.path)} writable, or "
                    "commit the lock file from a machine where it is writable"
                ) from error
