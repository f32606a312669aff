# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A publisher and a registry on loopback, over HTTPS, that misbehave when asked; and releases that name them."""

from __future__ import annotations

import datetime
import hashlib
import http.server
import io
import ipaddress
import json
import ssl
import tarfile
import threading
import urllib.parse
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.options import ARGUMENT_SPEC
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.transport import Limits

COLLECTION = Path(__file__).resolve().parents[3]
ROOT = COLLECTION.parents[3]
RELEASES = COLLECTION / "releases"
QUICK = Limits(timeout_s=10, attempts=3, pause_s=0.01)
HOST = "publisher.example"  # a name by which only a proxy finds it
PROGRAM = b"#!/bin/sh\necho 1\n" * 20000


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o755
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def make_certificate(directory: Path) -> Path:
    """A self-signed certificate for 127.0.0.1 and HOST, key and certificate in one file: its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName(HOST)]
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    path = directory / "server.pem"
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


class Publisher:
    """Serves `files` (path -> bytes).

    ranges: whether Range is honoured. cut: path -> list of byte counts after which the next answers break off.
    errors: path -> list of statuses to give first. refused: path -> status of every answer but to HEAD.
    redirects: path -> address. slow: seconds before each chunk.
    """

    def __init__(self, certificate: Path | None) -> None:
        self.files: dict[str, bytes] = {}
        self.ranges = True
        self.cut: dict[str, list[int]] = {}
        self.errors: dict[str, list[int]] = {}
        self.refused: dict[str, int] = {}
        self.redirects: dict[str, str] = {}
        self.slow = 0.0
        self.requests: list[tuple[str, str, str]] = []  # method, path, Range
        self.token = ""  # required on /v2/ when set
        self.tokens_given = 0
        self.types: dict[str, str] = {}
        self.active = self.peak = 0  # answers under way, and the most there were at a time
        self._counting = threading.Lock()
        publisher = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with publisher._counting:
                    publisher.active += 1
                    publisher.peak = max(publisher.peak, publisher.active)
                try:
                    publisher.answer(self)
                finally:
                    with publisher._counting:
                        publisher.active -= 1

            do_HEAD = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"{'https' if certificate else 'http'}://{self.host}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def asked(self) -> Counter[str]:
        return Counter(path for method, path, _range in self.requests if method == "GET")

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        path, _question, query = handler.path.partition("?")
        self.requests.append((handler.command, path, handler.headers.get("Range", "")))
        if path == "/token":
            self._give_token(handler, query)
        elif path.startswith("/v2/") and self.token and handler.headers.get("Authorization") != f"Bearer {self.token}":
            challenge = f'Bearer realm="{self.url}/token",service="test",scope="repository:any:pull"'
            self._send(handler, 401, b"", {"WWW-Authenticate": challenge})
        elif self.errors.get(path):
            self._send(handler, self.errors[path].pop(0), b"")
        elif path in self.refused and handler.command != "HEAD":
            self._send(handler, self.refused[path], b"")
        elif path in self.redirects:
            self._send(handler, 302, b"", {"Location": self.redirects[path]})
        elif path == "/v2/":
            self._send(handler, 200, b"{}")
        elif path not in self.files:
            self._send(handler, 404, b"")
        else:
            self._send_file(handler, path)

    def _give_token(self, handler: http.server.BaseHTTPRequestHandler, query: str) -> None:
        fields = urllib.parse.parse_qs(query)
        ok = fields.get("service") == ["test"] and fields.get("scope") == ["repository:any:pull"]
        self.tokens_given += 1
        self._send(handler, 200 if ok else 403, json.dumps({"token": self.token, "expires_in": 300}).encode())

    def _send_file(self, handler: http.server.BaseHTTPRequestHandler, path: str) -> None:
        data, status, headers = self.files[path], 200, {}
        wanted = handler.headers.get("Range", "")
        if wanted and self.ranges:
            start = int(wanted[len("bytes=") :].rstrip("-"))
            if start >= len(data):
                self._send(handler, 416, b"", {"Content-Range": f"bytes */{len(data)}"})
                return
            headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
            data, status = data[start:], 206
        headers["Content-Type"] = self.types.get(path, "application/octet-stream")
        self._send(handler, status, data, headers, self.cut[path].pop(0) if self.cut.get(path) else None)

    def _send(
        self,
        handler: http.server.BaseHTTPRequestHandler,
        status: int,
        data: bytes,
        headers: dict[str, str] | None = None,
        cut: int | None = None,
    ) -> None:
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        if handler.command == "HEAD":
            return
        body = data if cut is None else data[:cut]
        for start in range(0, len(body), 65536):
            if self.slow:
                threading.Event().wait(self.slow)
            handler.wfile.write(body[start : start + 65536])
        if cut is not None:
            handler.wfile.flush()
            handler.close_connection = True


def serve_image(publisher: Publisher, repository: str, tag: str, arches: tuple[str, ...]) -> str:
    """Put a multi-architecture image into a registry; the digest of its index."""

    def put(kind: str, media_type: str, data: bytes) -> dict[str, Any]:
        digest = "sha256:" + sha256(data)
        publisher.files[f"/v2/{repository}/{kind}/{digest}"] = data
        publisher.types[f"/v2/{repository}/{kind}/{digest}"] = media_type
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    entries = []
    for arch in arches:
        layer = put("blobs", "application/vnd.oci.image.layer.v1.tar+gzip", archive({"program": arch.encode() * 5000}))
        config = json.dumps({"architecture": arch, "os": "linux"}).encode()
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": put("blobs", "application/vnd.oci.image.config.v1+json", config),
            "layers": [layer],
        }
        entry = put("manifests", str(manifest["mediaType"]), json.dumps(manifest).encode())
        entries.append({**entry, "platform": {"architecture": arch, "os": "linux"}})
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
        "manifests": entries,
    }
    body = json.dumps(index).encode()
    publisher.files[f"/v2/{repository}/manifests/{tag}"] = body
    publisher.types[f"/v2/{repository}/manifests/{tag}"] = str(index["mediaType"])
    return "sha256:" + sha256(body)


def write_release(directory: Path, components: dict[str, Any], images: dict[str, Any] | None = None) -> Path:
    """releases/ with one release, 1.36.4."""
    releases = directory / "releases"
    (releases / "build").mkdir(parents=True, exist_ok=True)
    data = {
        "release": "1.36",
        "kubernetes": "1.36.4",
        "architectures": ["amd64", "arm64"],
        "components": components,
        "images": images or {},
    }
    (releases / "1.36.yml").write_text(yaml.safe_dump(data))
    return releases


def write_tool(releases: Path, name: str = "tool", go: str = "1.21", text: str = "hello") -> dict[str, Any]:
    """A small Go program's recipe below releases/build; its `build` field."""
    directory = releases / "build" / name
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "go.mod").write_text(f"module k8sgu.io/build/{name}\n\ngo {go}\n")
    source = f'package main\n\nvar version string\n\nfunc main() {{ println("{text}", version) }}\n'
    (directory / "main.go").write_text(source)
    return {"module": name, "packages": {name: "."}, "stamp": {"main.version": "1.0.0"}}


def parameters(releases: Path, tmp_path: Path, **changes: Any) -> dict[str, Any]:
    """Every option of the module, the caller's and otherwise the defaults."""
    given = {name: spec.get("default") for name, spec in ARGUMENT_SPEC.items()}
    given.update(
        kubernetes_version="1.36.4",
        releases_dir=str(releases),
        mirror_dir=str(tmp_path / "mirror"),
        cache_dir=str(tmp_path / "cache"),
        attempts=3,
        timeout=10,
    )
    given.update(changes)
    return given
