# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `kubectl logs`, `exec` and `port-forward` do: through the API server to the kubelet, the last two to the
runtime.

These two are WebSockets (RFC 6455) whose messages are a channel's number and its bytes, exec as kubectl has done it
since 1.31.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import socket
from typing import IO, Iterator, Mapping, Sequence
from urllib.parse import urlencode

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes import connection
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.kubeconfig import Access

_TIMEOUT_S = 20.0
_SHOWN_BYTES = 300
_EXEC, _FORWARD = "v5.channel.k8s.io", "v4.channel.k8s.io"
_STDOUT, _STATUS = 1, 3
_DATA = 0
_PORT_BYTES = 2
_CLOSE, _FIRST_CONTROL = 8, 8


def connect(access: Access) -> socket.socket:
    return connection.connect(access, _TIMEOUT_S)


def run_in_pod(stream: socket.socket, access: Access, path: str, command: Sequence[str]) -> str:
    """What a command in the pod at `path` prints. Raises KubernetesError where it cannot be run, or fails."""
    query = [("command", word) for word in command] + [("stdout", "true"), ("stderr", "false")]
    with _answered(stream, access, f"{path}/exec?{urlencode(query)}", _upgrade(_EXEC), 101) as response:
        output, status = b"", {}
        for message in _messages(response.fp):
            if message[:1] == bytes([_STDOUT]):
                output += message[1:]
            elif message[:1] == bytes([_STATUS]):
                status = json.loads(message[1:])
        if status.get("status") != "Success":
            raise KubernetesError(
                f"{' '.join(command)}: {status.get('message') or 'the connection ended without a status'}"
            )
    return output.decode("utf-8", "replace")


def forward(stream: socket.socket, access: Access, path: str, port: int, request: bytes, wanted: str) -> str:
    """What the pod at `path` answers to a short request at one of its ports, as far as the words that are wanted."""
    with _answered(stream, access, f"{path}/portforward?ports={port}", _upgrade(_FORWARD), 101) as response:
        stream.sendall(_masked(bytes([_DATA]) + request))
        output = b""
        for message in _messages(response.fp):
            if message[:1] != bytes([_DATA]):
                # The other channel tells of errors; like the first, it begins with the port.
                if len(message) > 1 + _PORT_BYTES:
                    raise KubernetesError(message[1:].decode("utf-8", "replace"))
                continue
            output += message[1:]
            if wanted.encode() in output:
                break
    return output[_PORT_BYTES:].decode("utf-8", "replace")


def logs(stream: socket.socket, access: Access, path: str) -> str:
    """The first bytes that the pod at `path` wrote."""
    with _answered(stream, access, f"{path}/log?limitBytes={_SHOWN_BYTES}", {}, 200) as response:
        return response.read().decode("utf-8", "replace")


def _upgrade(protocol: str) -> dict[str, str]:
    return {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Protocol": protocol,
    }


def _masked(message: bytes) -> bytes:
    """A frame of fewer than 126 bytes as a client sends it."""
    mask = os.urandom(4)
    return bytes([0x82, 0x80 | len(message)]) + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(message))


@contextlib.contextmanager
def _answered(
    stream: socket.socket, access: Access, target: str, headers: Mapping[str, str], expected: int
) -> Iterator[http.client.HTTPResponse]:
    try:
        lines = [f"GET {access.prefix}{target} HTTP/1.1", f"Host: {access.host}:{access.port}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if access.token:
            lines.append(f"Authorization: Bearer {access.token}")
        stream.sendall("\r\n".join([*lines, "", ""]).encode())
        with contextlib.closing(http.client.HTTPResponse(stream)) as response:
            response.begin()
            if response.status != expected:
                raise KubernetesError(f"HTTP {response.status}: {_reason(response.read(1 << 16))}")
            yield response
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise KubernetesError(f"{type(error).__name__}: {error}") from error


def _reason(content: bytes) -> str:
    with contextlib.suppress(ValueError, AttributeError):
        return str(json.loads(content).get("message"))
    return content[:_SHOWN_BYTES].decode("utf-8", "replace").strip()


def _messages(source: IO[bytes]) -> Iterator[bytes]:
    """The messages of a WebSocket until the server closes it; what a server sends is not masked."""
    message = b""
    while True:
        head = source.read(2)
        if len(head) < 2 or head[0] & 15 == _CLOSE:
            return
        length = head[1] & 127
        if length >= 126:
            length = int.from_bytes(source.read(2 if length == 126 else 8), "big")
        content = source.read(length)
        if head[0] & 15 >= _FIRST_CONTROL:  # ping and pong, which a command this short can leave unanswered
            continue
        message += content
        if head[0] & 128:
            yield message
            message = b""
