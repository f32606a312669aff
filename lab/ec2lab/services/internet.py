"""The lab's own internet: outside hosts by name over HTTPS and HTTP, and AWS's endpoints, which are the lab's API.

A directory that the caller gives says what is there:

    hosts/<host>/<path>                     a file at https://<host>/<path>
    images/<registry>/<repository>/         an OCI image layout, which <registry> serves by the registry's pull API

Other hosts do not exist in it: for their names the VPC's name server asks the host's. What is in the directory may
change while it is served; its hosts are read with every query.
"""

from __future__ import annotations

import contextlib
import logging
import re
import select
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from ec2lab.errors import LabError
from ec2lab.services.http import Handler, Server
from ec2lab.services.mirror import MirrorHandler

if TYPE_CHECKING:  # the command line needs no more of this module than check_directory
    from ec2lab.authority import Authority

log = logging.getLogger(__name__)

HTTPS, HTTP = 443, 80
# The registry behind the name docker.io, at which nothing is pulled:
# https://github.com/distribution/reference/blob/main/normalize.go
REGISTRIES = {"docker.io": "registry-1.docker.io"}
CHUNK = 1 << 18
HANDSHAKE_S = 30.0
SILENCE_S = 300.0
MOST_HEAD = 1 << 16
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_HOST_LINE = re.compile(rb"(?im)^host:[ \t]*([^:\s]+)")


@dataclass(frozen=True)
class Internet:
    """What is out there: `directory` (None: nothing but AWS) and AWS's names, which the API knows.

    `serve_aws` answers on a connection to one of these, from a client, with TLS or without.
    """

    directory: Path | None
    aws_names: Callable[[], set[str]]
    serve_aws: Callable[[socket.socket, Any, bool], None]

    def hosts(self) -> set[str]:
        """Every host of the directory."""
        if self.directory is None:
            return set()
        return _names(self.directory / "hosts") | {
            REGISTRIES.get(name, name) for name in _names(self.directory / "images")
        }

    def names(self) -> set[str]:
        """Every name that leads here."""
        return self.hosts() | self.aws_names()

    def kind(self, name: str) -> Literal["host", "aws", ""]:
        """What serves a name that a client asks for here; empty: nothing. A bucket's name is AWS's before it exists."""
        if name in self.hosts():
            return "host"
        return "aws" if name.endswith(".amazonaws.com") else ""


def _names(directory: Path) -> set[str]:
    return {entry.name for entry in directory.iterdir()} if directory.is_dir() else set()


def check_directory(directory: Path) -> None:
    """LabError when the directory cannot be served."""
    option = f"--internet-dir {directory}"
    if not directory.is_dir():
        raise LabError(f"{option} is not a directory")
    found = Internet(directory, set, lambda *_connection: None).hosts()
    if not found:
        raise LabError(f"{option} has neither a host in hosts/ nor a registry in images/: nothing would be served")
    for name in sorted(found):
        if not _HOST.fullmatch(name) or "." not in name:
            raise LabError(f"{option}: {name!r} is not a host's name, such as downloads.example.com")


class OutsideHandler(MirrorHandler):
    """The mirror's handler for the host that a request names, over TLS or not."""

    @property
    def internet(self) -> Internet:
        internet: Internet = self.server.context  # type: ignore[attr-defined]
        return internet

    @property
    def host(self) -> str:
        return str(self.headers.get("Host", "")).partition(":")[0].lower()

    @property
    def root(self) -> Path:
        directory = self.internet.directory
        if directory is None or self.host not in self.internet.hosts():
            raise FileNotFoundError(self.host)
        return directory

    def do_GET(self) -> None:
        try:
            _ = self.root
        except FileNotFoundError:
            self.answer(404, f"there is no host {self.host!r} in the lab's internet\n".encode(errors="replace"))
        else:
            super().do_GET()

    do_HEAD = do_GET

    def _registry(self, path: str, namespace: str) -> None:
        names = {served: name for name, served in REGISTRIES.items()}
        super()._registry(path, names.get(self.host, self.host))

    @property
    def files(self) -> Path:
        return self.root / "hosts" / self.host

    def _body(self, file: BinaryIO, first: int, length: int) -> None:
        if not isinstance(self.connection, ssl.SSLSocket):
            super()._body(file, first, length)
            return
        file.seek(first)
        while length:
            chunk = file.read(min(length, CHUNK))
            if not chunk:
                raise ConnectionError("the file became shorter while it was sent")
            self.wfile.write(chunk)
            length -= len(chunk)


class PlainServer(Server):
    """HTTP at whatever name a client asks for, as `OutsideServer` over TLS."""

    def finish_request(self, request: Any, client_address: Any) -> None:
        internet: Internet = self.context
        if internet.kind(asked_host(request)) == "aws":
            internet.serve_aws(request, client_address, False)
        else:
            self.RequestHandlerClass(request, client_address, self)  # type: ignore[arg-type]


def asked_host(connection: socket.socket) -> str:
    """The host of the first request on a connection, which is read again after this; empty when there is none."""
    connection.settimeout(HANDSHAKE_S)
    deadline, known = time.monotonic() + HANDSHAKE_S, b""
    while time.monotonic() < deadline:
        head = connection.recv(MOST_HEAD, socket.MSG_PEEK)
        if b"\r\n\r\n" in head or len(head) == MOST_HEAD or not head:
            found = _HOST_LINE.search(head.partition(b"\r\n\r\n")[0])
            return found[1].decode("latin-1").lower() if found else ""
        if len(head) == len(known):  # a peek returns at once what it has returned before
            time.sleep(0.01)
        known = head
    return ""


class OutsideServer(Server):
    """HTTPS at whatever name a client asks for: AWS's go to the lab's API, the others to the handler."""

    def __init__(
        self,
        listening: socket.socket,
        handler: type[BaseHTTPRequestHandler],
        internet: Internet,
        authority: Authority,
    ) -> None:
        super().__init__(listening, handler, internet)
        self.internet, self.authority = internet, authority
        self._entry = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._entry.minimum_version = ssl.TLSVersion.TLSv1_2
        self._entry.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> int | None:
        if name is None or not self.internet.kind(name.lower()):
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.context = self.authority.context(name.lower())
        connection.asked = name.lower()  # type: ignore[attr-defined]
        return None

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread, so that a client that is silent keeps no other waiting."""
        request.settimeout(HANDSHAKE_S)
        with self._entry.wrap_socket(request, server_side=True) as secure:
            if self.internet.kind(getattr(secure, "asked", "")) == "aws":
                self.internet.serve_aws(secure, client_address, True)
            else:
                self.RequestHandlerClass(secure, client_address, self)  # type: ignore[arg-type]


def pump(one: socket.socket, other: socket.socket) -> None:
    """Carries bytes both ways until both sides have ended, or nobody has said anything for SILENCE_S."""
    peers = {one: other, other: one}
    for each in peers:
        each.settimeout(SILENCE_S)
    reading = set(peers)
    while reading:
        waiting = [each for each in reading if isinstance(each, ssl.SSLSocket) and each.pending()]
        ready = waiting or select.select(list(reading), [], [], SILENCE_S)[0]
        if not ready:
            return
        for each in ready:
            content = each.recv(CHUNK)
            if content:
                peers[each].sendall(content)
                continue
            reading.discard(each)
            if isinstance(peers[each], ssl.SSLSocket):  # closing it one way is closing it
                return
            with contextlib.suppress(OSError):
                peers[each].shutdown(socket.SHUT_WR)


class ProxyHandler(Handler):
    """CONNECT, for programs on the host: its names do not resolve to the lab's internet, so they come by name."""

    def do_CONNECT(self) -> None:
        name, _colon, port = self.path.rpartition(":")
        context: ProxyContext = self.server.context  # type: ignore[attr-defined]
        if port != str(HTTPS) or not context.internet.kind(name.lower()):
            self.answer(403, f"the lab's internet has no {self.path}\n".encode(errors="replace"), Connection="close")
            return
        self.close_connection = True
        with context.connect() as there:
            self.send_response(200, "Connection established")
            self.end_headers()
            pump(self.connection, there)


@dataclass(frozen=True)
class ProxyContext:
    internet: Internet
    connect: Callable[[], socket.socket]


class Outside:
    """The servers of the lab's own internet, and the proxy that leads there from the host."""

    def __init__(
        self,
        internet: Internet,
        authority: Authority,
        listen: Callable[[int], socket.socket],
        connect: Callable[[], socket.socket],
        proxy: socket.socket,
    ) -> None:
        """`listen` opens a port of its address, `connect` connects to its HTTPS port; `proxy` is on the host."""
        secure = OutsideServer(listen(HTTPS), OutsideHandler, internet, authority)
        plain = PlainServer(listen(HTTP), OutsideHandler, internet)
        way = Server(proxy, ProxyHandler, ProxyContext(internet, connect))
        self._servers = [secure, plain, way]
        for server, name in zip(self._servers, ("outside https", "outside http", "outside proxy"), strict=True):
            server.start(name)

    def close(self) -> None:
        for server in self._servers:
            server.close()
