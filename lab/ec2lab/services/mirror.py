"""The mirror: serves one directory over HTTP, and the OCI image layouts below `images/` by the registry's pull API.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pull
https://github.com/opencontainers/image-spec/blob/main/image-layout.md

Nothing is cached: the directory may be filled while it is served. Bodies go out by sendfile.
"""

from __future__ import annotations

import email.utils
import json
import mimetypes
import os
import re
import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import parse_qs, unquote, urlsplit

from ec2lab.services.http import Handler, Server

REF_NAME = "org.opencontainers.image.ref.name"
_NAME = re.compile(r"[a-z0-9._/-]+")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REGISTRY = re.compile(r"[A-Za-z0-9.-]+(?::[0-9]+)?")
_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)")


class NotFound(Exception):
    """`code` is the registry's error code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Content:
    """A file to send, and what it is."""

    path: Path
    kind: str
    digest: str | None = None


def inside(root: Path, relative: str) -> Path:
    """The path below `root`, with links and dots resolved; FileNotFoundError when it is outside."""
    base = root.resolve()
    found = (base / relative.lstrip("/")).resolve(strict=True)
    if found != base and base not in found.parents:
        raise FileNotFoundError(relative)
    return found


def layout(root: Path, registry: str, name: str) -> Path:
    """The OCI layout of a repository. Without a registry's name (a plain `/v2/` request) it tries every registry."""
    if not _NAME.fullmatch(name) or (registry and not _REGISTRY.fullmatch(registry)):
        raise NotFound("NAME_INVALID", "invalid repository name")
    images = root / "images"
    # Runtimes ask for docker.io when they mean Docker Hub's registry.
    wanted = [registry] if registry else sorted(entry.name for entry in images.iterdir()) if images.is_dir() else []
    for each in wanted:
        try:
            found = inside(images, f"{each}/{name}")
        except FileNotFoundError:
            continue
        if (found / "index.json").is_file():
            return found
    raise NotFound("NAME_UNKNOWN", f"repository {name} is not in the mirror")


def manifest(directory: Path, reference: str) -> Content:
    """A manifest or index, by tag or by digest."""
    try:
        index = json.loads((directory / "index.json").read_bytes())
    except (OSError, ValueError):
        raise NotFound("MANIFEST_UNKNOWN", "the image layout has no readable index.json") from None
    entries = index.get("manifests", [])
    if _DIGEST.fullmatch(reference):
        blob = blob_path(directory, reference)
        known = next((entry.get("mediaType") for entry in entries if entry.get("digest") == reference), None)
        return Content(blob, known or media_type(blob), reference)
    for entry in entries:
        names = entry.get("annotations", {}).get(REF_NAME, "")
        if reference == names or names.endswith(f":{reference}"):
            blob = blob_path(directory, entry["digest"])
            return Content(blob, entry.get("mediaType") or media_type(blob), entry["digest"])
    raise NotFound("MANIFEST_UNKNOWN", f"no tag {reference} in the mirror")


def media_type(blob: Path) -> str:
    """A manifest's mediaType, or else the one that follows from its form (OCI makes the field optional)."""
    try:
        if blob.stat().st_size > 4 << 20:
            raise ValueError("too large for a manifest")
        content = json.loads(blob.read_bytes())
    except (OSError, ValueError):
        raise NotFound("MANIFEST_UNKNOWN", "not a manifest") from None
    said = content.get("mediaType")
    if isinstance(said, str) and said:
        return said
    if "manifests" in content:
        return "application/vnd.oci.image.index.v1+json"
    return "application/vnd.oci.image.manifest.v1+json"


def blob_path(directory: Path, digest: str) -> Path:
    if not _DIGEST.fullmatch(digest):
        raise NotFound("DIGEST_INVALID", "not a sha256 digest")
    found = directory / "blobs" / "sha256" / digest.removeprefix("sha256:")
    if not found.is_file():
        raise NotFound("BLOB_UNKNOWN", f"{digest} is not in the mirror")
    return found


def tags(directory: Path) -> list[str]:
    index = json.loads((directory / "index.json").read_bytes())
    names = [entry.get("annotations", {}).get(REF_NAME, "") for entry in index.get("manifests", [])]
    return sorted({name.rsplit(":", 1)[-1] for name in names if name})


class MirrorHandler(Handler):
    # Generous, since a busy client may read a large image slowly.
    timeout = 300

    @property
    def root(self) -> Path:
        root: Path = self.server.context  # type: ignore[attr-defined]
        return root

    @property
    def files(self) -> Path:
        """The directory of plain files."""
        return self.root

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        path = unquote(address.path)
        try:
            if path == "/v2" or path.startswith("/v2/"):
                self._registry(path.removeprefix("/v2").strip("/"), parse_qs(address.query).get("ns", [""])[0])
            else:
                self._file(path)
        except NotFound as error:
            message = f"{error}; this mirror is {self.root}"
            body = json.dumps({"errors": [{"code": error.code, "message": message}]}).encode()
            self.answer(404, body, "application/json", Docker_Distribution_Api_Version="registry/2.0")
        except (FileNotFoundError, NotADirectoryError):
            # Name the directory too, so that the user notices when another directory was filled.
            self.answer(404, f"there is no {path} in {self.root}\n".encode(errors="surrogateescape"))
        except PermissionError:
            self.answer(403, b"not readable\n")

    do_HEAD = do_GET

    def _registry(self, path: str, namespace: str) -> None:
        if not path:
            self.answer(200, b"{}", "application/json", Docker_Distribution_Api_Version="registry/2.0")
            return
        for marker in ("/manifests/", "/blobs/", "/tags/list"):
            name, found, reference = path.rpartition(marker)
            if not found:
                continue
            directory = layout(self.root, namespace, name)
            if marker == "/manifests/":
                self._send(manifest(directory, reference))
            elif marker == "/blobs/":
                self._send(Content(blob_path(directory, reference), "application/octet-stream", reference))
            else:
                body = json.dumps({"name": name, "tags": tags(directory)}).encode()
                self.answer(200, body, "application/json", Docker_Distribution_Api_Version="registry/2.0")
            return
        raise NotFound("UNSUPPORTED", "the lab's registry serves pulls only")

    def _file(self, path: str) -> None:
        found = inside(self.files, path)
        if found.is_dir():
            names = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in found.iterdir())
            self.answer(200, "".join(f"{name}\n" for name in names).encode())
            return
        self._send(Content(found, mimetypes.guess_type(found.name)[0] or "application/octet-stream"))

    def _send(self, content: Content) -> None:
        with content.path.open("rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise FileNotFoundError(content.path)
            # Blobs are identified by their digest, other files by time and size.
            tag = f'"{content.digest or f"{about.st_mtime_ns:x}-{about.st_size:x}"}"'
            if self.headers.get("If-None-Match") == tag:
                self.send_response(304)
                self.send_header("ETag", tag)
                self.end_headers()
                return
            span = self._range(about.st_size)
            if span is None:
                self.answer(416, b"", Content_Range=f"bytes */{about.st_size}")
                return
            first, length = span
            partial = "Range" in self.headers and _RANGE.fullmatch(self.headers["Range"]) is not None
            self.send_response(206 if partial else 200)
            self.send_header("Content-Type", content.kind)
            self.send_header("Content-Length", str(length))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", tag)
            self.send_header("Last-Modified", email.utils.formatdate(about.st_mtime, usegmt=True))
            if partial:
                self.send_header("Content-Range", f"bytes {first}-{first + length - 1}/{about.st_size}")
            if content.digest:
                self.send_header("Docker-Content-Digest", content.digest)
                self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
            self.end_headers()
            if self.command != "HEAD":
                self._body(file, first, length)

    def _range(self, size: int) -> tuple[int, int] | None:
        """(first byte, length) of the answer; None when the range is not satisfiable (RFC 9110, section 14)."""
        match = _RANGE.fullmatch(self.headers.get("Range", ""))
        if match is None or match.groups() == ("", ""):
            return 0, size
        start, end = match.groups()
        if not start:  # the last bytes
            length = min(int(end), size)
            return (size - length, length) if length else None
        first = int(start)
        last = min(int(end), size - 1) if end else size - 1
        return (first, last - first + 1) if first <= last else None

    def _body(self, file: BinaryIO, first: int, length: int) -> None:
        self.wfile.flush()
        while length:
            # The socket is blocking: the kernel enforces the handler's timeout, see `setup`.
            sent = os.sendfile(self.connection.fileno(), file.fileno(), first, min(length, 1 << 24))
            if not sent:
                raise ConnectionError("the file became shorter while it was sent")
            first, length = first + sent, length - sent

    def setup(self) -> None:
        super().setup()
        # sendfile needs a blocking socket, so the kernel enforces the timeout.
        self.connection.settimeout(None)
        span = int(self.timeout).to_bytes(8, "little") + bytes(8)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, span)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, span)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def serve(listening: socket.socket, directory: Path, name: str) -> Server:
    server = Server(listening, MirrorHandler, directory)
    server.start(name)
    return server
