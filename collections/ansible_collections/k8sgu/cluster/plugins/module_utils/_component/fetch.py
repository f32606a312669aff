# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installs programs from the mirror: in parallel, verified by their SHA-256, each placed atomically."""

# Paths are text here, as in the options and in results.
# ruff: noqa: PTH105, PTH110, PTH118, PTH120, PTH123, PTH208

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import IO, BinaryIO

from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import Artifact, ComponentError
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import ensure_directory, remove_file

_PARALLEL = 4
_ATTEMPTS = 3
_TIMEOUT_S = 30
_BLOCK = 1 << 20
_SAID = 500
_MODE = 0o755


def install(artifacts: list[Artifact], mirror_url: str, mirror_proxy: str, staged: str) -> None:
    """Installs the artifacts, from the directory `staged` if they were pushed there, otherwise from the mirror.

    `mirror_proxy` is the proxy to the mirror; empty: the mirror is reached directly.
    """
    unique = list({artifact.path: artifact for artifact in artifacts}.values())
    if not unique:
        return
    for directory in sorted({os.path.dirname(artifact.path) for artifact in unique}):
        ensure_directory(directory, mode=0o755)
        _remove_partials(directory)
    _check_space(unique)
    # Imported here, since the import takes longer than all else in a run with nothing to fetch.
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(_PARALLEL) as pool:
        # The largest first, so that all threads end at about the same time.
        unique.sort(key=lambda artifact: -artifact.size)
        for done in [pool.submit(_install, artifact, mirror_url, mirror_proxy, staged) for artifact in unique]:
            done.result()


def staged_path(artifact: Artifact, staged: str) -> str:
    return os.path.join(staged, artifact.sha256)


def _partial(path: str) -> str:
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}.partial")


def _remove_partials(directory: str) -> None:
    """Removes partial files of killed runs; the caller holds the lock, so nobody is writing them."""
    for name in os.listdir(directory):
        if name.startswith(".") and name.endswith(".partial"):
            remove_file(os.path.join(directory, name))


def _check_space(artifacts: list[Artifact]) -> None:
    free = os.statvfs(os.path.dirname(artifacts[0].path))
    have, need = free.f_bavail * free.f_frsize, sum(artifact.size for artifact in artifacts)
    if have < need:
        raise ComponentError(
            f"binaries: {os.path.dirname(artifacts[0].path)} needs {need >> 20} MiB, has {have >> 20} MiB; make room"
        )


def _install(artifact: Artifact, mirror_url: str, mirror_proxy: str, staged: str) -> None:
    source = staged_path(artifact, staged) if staged else ""
    if source and os.path.exists(source):
        with open(source, "rb") as stream:
            _place(artifact, stream, "the pushed copy")
        remove_file(source)
        return
    _download(artifact, f"{mirror_url.rstrip('/')}/{artifact.url_path}", mirror_proxy)


def _download(artifact: Artifact, url: str, proxy: str) -> None:
    import http.client
    import urllib.error
    import urllib.request

    # Switch proxies off explicitly: a machine may have one for all programs (/etc/environment).
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": proxy, "https": proxy} if proxy else {}))
    through = " through k8sgu_proxy" if proxy else ""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            # Not Ansible's open_url, which would be sent to every node in every run although this needs none of it.
            with contextlib.closing(opener.open(url, timeout=_TIMEOUT_S)) as stream:
                _place(artifact, stream, url)
            return
        except urllib.error.HTTPError as error:
            if error.code < 500 or attempt == _ATTEMPTS:
                raise ComponentError(
                    f"binaries: {url} answers {error.code} {error.reason}{_said(error)}; fill the mirror again"
                ) from error
        except (OSError, http.client.HTTPException) as error:
            if attempt == _ATTEMPTS:
                raise ComponentError(
                    f"binaries: {url} cannot be fetched ({error}, {_ATTEMPTS} attempts); does mirror_url reach it"
                    f"{through}?"
                ) from error


def _said(answer: IO[bytes]) -> str:
    """The first line of the server's answer if it is text: it may say where the server looked."""
    try:
        line = answer.read(_SAID).decode("utf-8", "replace").strip().split("\n")[0].strip()
    except (OSError, ValueError):
        return ""
    return f" ({line})" if line.isprintable() and line and not line.startswith("<") else ""


def _place(artifact: Artifact, stream: BinaryIO, source: str) -> None:
    partial = _partial(artifact.path)
    total, size = hashlib.sha256(), 0
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "wb") as target:
        for block in iter(lambda: stream.read(_BLOCK), b""):
            total.update(block)
            size += len(block)
            target.write(block)
        target.flush()
        os.fchown(handle, 0, 0)
        os.fchmod(handle, _MODE)
        os.fsync(handle)
    if size < artifact.size:
        raise OSError(f"ended after {size} of {artifact.size} bytes")
    if total.hexdigest() != artifact.sha256:
        remove_file(partial)
        raise ComponentError(
            f"binaries: {source} has {size} bytes and SHA-256 {total.hexdigest()}, not the {artifact.size} bytes and "
            f"{artifact.sha256} of the mirror's manifest; fill the mirror again"
        )
    os.replace(partial, artifact.path)
