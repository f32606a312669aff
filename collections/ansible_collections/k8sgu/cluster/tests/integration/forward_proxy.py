# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A forward proxy (CONNECT, and GET of a whole address) that records its requests.

https://www.rfc-editor.org/rfc/rfc9110#CONNECT, https://www.rfc-editor.org/rfc/rfc9112#absolute-form
"""

from __future__ import annotations

import base64
import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

TIMEOUT_S = 60


class ForwardProxy:
    """Serves on `listener`; `hosts` are names that only it resolves, each to (address, port).

    With `credentials` ("user:password") it refuses whoever does not give them. `requests` are method and target in
    order, `refused` those that lacked the credentials.
    """

    def __init__(
        self, listener: socket.socket, hosts: Mapping[str, tuple[str, int]] | None = None, credentials: str = ""
    ) -> None:
        self.requests: list[str] = []
        self.refused: list[str] = []
        self.hosts = dict(hosts or {})
        self._expected = f"basic {base64.b64encode(credentials.encode()).decode()}" if credentials else ""
        self._listener = listener
        self.port = listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _address = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(TIMEOUT_S)
        with contextlib.suppress(OSError), client:
            head = b""
            while b"\r\n\r\n" not in head:
                if not (data := client.recv(65536)):
                    return
                head += data
            head, _blank, rest = head.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            method, target, _version = first.split(" ")
            if self._expected and f"proxy-authorization: {self._expected}" not in map(_lowered, lines):
                self.refused.append(f"{method} {target}")
                client.sendall(
                    b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=test\r\n"
                    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
                )
                return
            self.requests.append(f"{method} {target}")
            try:
                server = self._connect(target if method == "CONNECT" else urlsplit(target).netloc)
            except OSError:
                client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            with server:
                if method == "CONNECT":
                    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                else:
                    # One request a connection: what else the client asks for, it asks for anew.
                    parts = urlsplit(target)
                    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                    kept = [line for line in lines if not line.lower().startswith(("proxy-", "connection:"))]
                    asked = "\r\n".join([f"{method} {path} HTTP/1.1", *kept, "Connection: close", "", ""])
                    server.sendall(asked.encode("latin-1") + rest)
                back = threading.Thread(target=_copy, args=(server, client), daemon=True)
                back.start()
                _copy(client, server)
                back.join()

    def _connect(self, place: str) -> socket.socket:
        host, _colon, port = place.rpartition(":") if ":" in place else (place, "", "80")
        return socket.create_connection(self.hosts.get(host, (host.strip("[]"), int(port))), TIMEOUT_S)


def _lowered(header: str) -> str:
    """With the name and the method of authorization in lower case: programs write them as they like."""
    name, _colon, value = header.partition(":")
    method, _space, rest = value.strip().partition(" ")
    return f"{name.lower()}: {method.lower()} {rest}"


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def running(
    hosts: Mapping[str, tuple[str, int]] | None = None, credentials: str = "", listener: socket.socket | None = None
) -> Iterator[ForwardProxy]:
    """A proxy on loopback, or on a socket that is given."""
    proxy = ForwardProxy(listener or socket.create_server(("127.0.0.1", 0)), hosts, credentials)
    try:
        yield proxy
    finally:
        proxy.close()


def variables(url: str) -> dict[str, str]:
    """What a company sets for its machines: the proxy under every name, and nothing excepted."""
    names = ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
    return {**dict.fromkeys(names, url), "NO_PROXY": "", "no_proxy": ""}


@contextlib.contextmanager
def dead() -> Iterator[str]:
    """The address of a proxy that refuses every connection: a port that is bound, but not listening."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{holder.getsockname()[1]}"
