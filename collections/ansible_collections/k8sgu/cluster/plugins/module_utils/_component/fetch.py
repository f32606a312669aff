# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installs programs from the mirror or their publishers: in parallel, verified by SHA-256, each placed atomically."""

# Paths are text here, as in the options and in results.
# ruff: noqa: PTH105, PTH110, PTH118, PTH119, PTH120, PTH123, PTH208

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
from typing import IO, Any, BinaryIO, Callable, cast

from ansible_collections.k8sgu.cluster.plugins.module_utils._component import elf
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import Artifact, ComponentError
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import ensure_directory, free_bytes, remove_file

_PARALLEL = 4
_ATTEMPTS = 3
_TIMEOUT_S = 30
_BLOCK = 1 << 20
_SAID = 500
_MODE = 0o755
_ARCHIVES = (".tgz", ".tar.gz")
_AGAIN = "fill the mirror again"
_CHANGED = "its publisher changed it, or something on the way did: find out which"
# Statuses below 500 that may change after a moment: a publisher asks for patience.
_PASSING = (408, 425, 429)
_PAUSE_S = 0.5
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def install(
    artifacts: list[Artifact],
    mirror_url: str,
    mirror_proxy: str,
    staged: str,
    publishers_proxy: str = "",
    mirror_ca: str = "",
) -> None:
    """Installs the artifacts, from the directory `staged` if they were pushed there, otherwise from their publishers,
    where they name one, or from the mirror.

    `mirror_proxy` is the proxy to the mirror; empty: the mirror is reached directly. `publishers_proxy` is that of the
    artifacts that are proxied. `mirror_ca`: the only authority of the mirror's certificate, as PEM; empty: those of
    the system.
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

    def obtain(group: list[Artifact]) -> None:
        first = group[0]
        if first.origin:
            _from_publisher(group, publishers_proxy if first.proxied else "")
        else:
            _install(first, mirror_url, mirror_proxy, staged, mirror_ca)

    # One download for all programs of an archive. The largest first, so that all threads end at about the same time.
    groups: dict[str, list[Artifact]] = {}
    for artifact in unique:
        groups.setdefault(artifact.origin or artifact.path, []).append(artifact)
    with ThreadPoolExecutor(_PARALLEL) as pool:
        ordered = sorted(groups.values(), key=lambda group: -sum(artifact.size for artifact in group))
        for done in [pool.submit(obtain, group) for group in ordered]:
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


def check_room_to_push(artifacts: list[Artifact]) -> None:
    """Raises ComponentError where pushed files and what is made of them have no room on one disk."""
    _check_space([*artifacts, *artifacts])


def _check_space(artifacts: list[Artifact]) -> None:
    directory = os.path.dirname(artifacts[0].path)
    have, need = free_bytes(directory), sum(artifact.size for artifact in artifacts)
    if have < need:
        raise ComponentError(
            f"binaries: {os.path.dirname(artifacts[0].path)} needs {need >> 20} MiB, has {have >> 20} MiB; make room"
        )


def _install(artifact: Artifact, mirror_url: str, mirror_proxy: str, staged: str, mirror_ca: str) -> None:
    source = staged_path(artifact, staged) if staged else ""
    if source and os.path.exists(source):
        try:
            with open(source, "rb") as stream:
                _place(artifact, stream, "the pushed copy", whole=True)
        finally:
            # Also one that differs, so that the next run pushes it again.
            remove_file(source)
        return
    _download(artifact, f"{mirror_url.rstrip('/')}/{artifact.url_path}", mirror_proxy, mirror_ca)


def _download(artifact: Artifact, url: str, proxy: str, authority: str) -> None:
    through = " through k8sgu_proxy" if proxy else ""
    _attempt(
        url,
        proxy,
        lambda stream: _place(artifact, stream, url),
        _AGAIN,
        f"does mirror_url reach it{through}?",
        authority,
    )


def _from_publisher(group: list[Artifact], proxy: str) -> None:
    """Fetches the programs of one address: the address's file itself, or members of the archive that it is."""
    url = group[0].origin
    left = {os.path.basename(artifact.path): artifact for artifact in group}

    def place(stream: BinaryIO) -> None:
        if url.endswith(_ARCHIVES):
            _unpack(left, stream, url)
        else:
            _place(group[0], stream, url, _CHANGED)

    ways = (
        f"k8sgu_proxy {'has to' if proxy else 'names a proxy to'} lead there; or set k8sgu_mirror_url to a mirror that "
        "the node reaches, or k8sgu_artifact_source to directory"
    )
    _attempt(url, proxy, place, ways, f"the node has no way there. {ways}")


def _attempt(
    url: str, proxy: str, place: Callable[[BinaryIO], None], refused: str, silent: str, authority: str = ""
) -> None:
    """Opens the address and lets `place` read it, again where that may help. Raises ComponentError, which ends with
    what to do where the server refuses or does not answer."""
    import http.client
    import tarfile
    import urllib.error
    import urllib.request
    import zlib

    # Switch proxies off explicitly: a machine may have one for all programs (/etc/environment).
    handlers: list[Any] = [urllib.request.ProxyHandler({"http": proxy, "https": proxy} if proxy else {})]
    if authority:
        import ssl

        handlers.append(urllib.request.HTTPSHandler(context=ssl.create_default_context(cadata=authority)))
    opener = urllib.request.build_opener(*handlers)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            # Not Ansible's open_url, which would be sent to every node in every run although this needs none of it.
            with contextlib.closing(opener.open(url, timeout=_TIMEOUT_S)) as stream:
                place(stream)
            return
        except urllib.error.HTTPError as error:
            if (error.code < 500 and error.code not in _PASSING) or attempt == _ATTEMPTS:
                raise ComponentError(
                    f"binaries: {url} answers {error.code} {error.reason}{_said(error)}; {refused}"
                ) from error
        except (OSError, EOFError, http.client.HTTPException, tarfile.TarError, zlib.error) as error:
            if isinstance(error, OSError) and error.errno in _DISK:
                raise ComponentError(
                    f"binaries: what {url} has cannot be written: {error.strerror}; make room on the node's disk"
                ) from error
            if attempt == _ATTEMPTS:
                raise ComponentError(
                    f"binaries: {url} cannot be fetched ({error}, {_ATTEMPTS} attempts); {silent}"
                ) from error
        time.sleep(_PAUSE_S * attempt)


def _unpack(left: dict[str, Artifact], stream: BinaryIO, url: str) -> None:
    """Places members of a tar archive while it is read, and takes them out of `left`, so that another attempt goes on
    with the others. Each may be below one directory of any name, or after `./`."""
    import tarfile

    differs: dict[str, ComponentError] = {}
    with tarfile.open(fileobj=stream, mode="r|*") as tar:
        for info in tar:
            path = info.name[2:] if info.name.startswith("./") else info.name
            directory, _slash, name = path.rpartition("/")
            member = tar.extractfile(info) if info.isfile() and name in left and "/" not in directory else None
            if member is None:
                continue
            try:
                _place(left[name], cast("BinaryIO", member), f"{path} in {url}", _CHANGED, whole=True)
            except ComponentError as error:
                # Another directory of the archive may have a file of this name.
                differs[name] = error
                continue
            del left[name]
            if not left:
                return
    for name in left:
        if name in differs:
            raise differs[name]
        raise ComponentError(f"binaries: {url} has no {name}; {_AGAIN}")


def _said(answer: IO[bytes]) -> str:
    """The first line of the server's answer if it is text: it may say where the server looked."""
    try:
        line = answer.read(_SAID).decode("utf-8", "replace").strip().split("\n")[0].strip()
    except (OSError, ValueError):
        return ""
    return f" ({line})" if line.isprintable() and line and not line.startswith("<") else ""


def _place(artifact: Artifact, stream: BinaryIO, source: str, otherwise: str = _AGAIN, whole: bool = False) -> None:
    """`whole`: a stream that is too short did not break off, but is another file."""
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
    if size < artifact.size and not whole:
        raise OSError(f"ended after {size} of {artifact.size} bytes")
    if total.hexdigest() != artifact.sha256:
        remove_file(partial)
        raise ComponentError(
            f"binaries: {source} has {size} bytes and SHA-256 {total.hexdigest()}, not the {artifact.size} bytes and "
            f"{artifact.sha256} of the mirror's manifest; {otherwise}"
        )
    problem = elf.cannot_run(partial)
    if problem:
        remove_file(partial)
        raise ComponentError(
            f"binaries: {artifact.path} from {source} cannot run on this system: {problem}; use a build without that "
            "need (a static one), or nodes with a newer system (k8sgu_image)"
        )
    os.replace(partial, artifact.path)
