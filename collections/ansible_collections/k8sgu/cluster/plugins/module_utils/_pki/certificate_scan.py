# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds certificates in files and kubeconfigs; keys are left out. Standard library only: it runs on nodes."""

from __future__ import annotations

import base64
import binascii
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator, NamedTuple

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call

# Larger files do not hold certificates; an audit log below a scanned directory must not be read.
_MAX_BYTES = 1 << 20
_SUFFIXES = (".pem", ".crt", ".cer", ".conf", ".kubeconfig")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_EMBEDDED = re.compile(r"client-certificate-data:\s*[\"']?([A-Za-z0-9+/=]+)")


class Found(NamedTuple):
    """One certificate. `place` distinguishes several in one file, such as ca-bundle.pem#2."""

    place: str
    pem: str


class Unreadable(Exception):
    """Files cannot be read; the text names them and says what to do."""


def run(call: Call) -> dict[str, Any]:
    found, errors = find(call.options["paths"])
    if errors:
        raise Unreadable(f"paths: cannot be read, run as root or leave them out: {'; '.join(errors)}")
    return {"changed": False, "certificates": [item._asdict() for item in found]}


def find(paths: list[str]) -> tuple[list[Found], list[str]]:
    """The certificates in `paths` (files and directories, recursively), and the errors of what could not be read.

    A path that does not exist holds none. Of certificates that a kubelet rotates, only the current one counts.
    """
    found: list[Found] = []
    errors: list[str] = []
    seen: set[Path] = set()
    for path in paths:
        for file in _files(Path(path), errors):
            real = file.resolve()
            if real in seen:
                continue
            seen.add(real)
            try:
                if real.stat().st_size > _MAX_BYTES:
                    continue
                text = real.read_text(encoding="ascii", errors="replace")
            except OSError as error:
                errors.append(f"{file}: {error.strerror}")
                continue
            blocks = list(_blocks(text))
            for number, block in enumerate(blocks, 1):
                found.append(Found(f"{file}#{number}" if len(blocks) > 1 else str(file), block))
    return found, errors


def _files(path: Path, errors: list[str]) -> Iterator[Path]:
    if path.is_file():
        yield path
        return

    def failed(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            errors.append(f"{error.filename}: {error.strerror}")

    for directory, _directories, names in os.walk(path, onerror=failed):
        current = {name[: -len("current.pem")] for name in names if name.endswith("-current.pem")}
        for name in sorted(names):
            rotated = any(name.startswith(prefix) and name != f"{prefix}current.pem" for prefix in current)
            if name.endswith(_SUFFIXES) and not rotated:
                yield Path(directory, name)


def _blocks(text: str) -> Iterator[str]:
    yield from _CERTIFICATE.findall(text)
    for data in _EMBEDDED.findall(text):
        try:
            yield from _CERTIFICATE.findall(base64.b64decode(data, validate=True).decode("ascii"))
        except (binascii.Error, ValueError):
            continue
