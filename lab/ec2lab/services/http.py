"""A small HTTP/1.1 server for sockets that the caller made (in a VPC's namespace)."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from http.server import BaseHTTPRequestHandler
from socketserver import BaseServer, ThreadingMixIn
from typing import Any

log = logging.getLogger(__name__)


class Server(ThreadingMixIn, BaseServer):
    """Serves connections of a listening socket, each in a thread; `context` is for the handlers."""

    daemon_threads = True
    # By default ThreadingMixIn keeps every thread that it started.
    block_on_close = False

    def __init__(self, listening: socket.socket, handler: type[BaseHTTPRequestHandler], context: Any) -> None:
        super().__init__(listening.getsockname(), handler)
        self.socket = listening
        self.context = context
        listening.listen(128)

    def fileno(self) -> int:
        return self.socket.fileno()

    def get_request(self) -> tuple[socket.socket, Any]:
        return self.socket.accept()

    def shutdown_request(self, request: Any) -> None:
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_WR)
        request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a connection from %s failed", client_address, exc_info=True)

    def start(self, name: str) -> None:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.5}, name=name, daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.socket.close()


class Handler(BaseHTTPRequestHandler):
    """Base of the lab's handlers: logs no requests, keeps connections open, times out silent clients."""

    protocol_version = "HTTP/1.1"
    timeout = 60
    server_version = "ec2lab"
    sys_version = ""

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("%s %s", self.address_string(), format % args)

    def answer(self, status: int, body: bytes = b"", kind: str = "text/plain", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
