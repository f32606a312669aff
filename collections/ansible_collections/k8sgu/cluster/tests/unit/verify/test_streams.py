# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kubectl exec, logs and port-forward as verify makes them, against a server that answers as it should, or not."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from typing import Any, Callable

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.errors import KubernetesError
from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.kubeconfig import Access
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify import cluster, streams
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.cluster import ClusterChecks, Pod

ACCESS = Access("admin.kubeconfig", "192.0.2.1", 6443, "", ssl.create_default_context(), "", "")
UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
LONG = b"x" * 70000


def message(channel: int, content: bytes, last: bool = True, opcode: int = 2) -> bytes:
    length = len(content) + 1
    if length < 126:
        size = bytes([length])
    else:
        size = b"\x7e" + length.to_bytes(2, "big") if length < 1 << 16 else b"\x7f" + length.to_bytes(8, "big")
    return bytes([opcode | (128 if last else 0)]) + size + bytes([channel]) + content


def status(**fields: str) -> bytes:
    return message(3, json.dumps(fields).encode())


def refusal(code: str, text: str) -> bytes:
    body = json.dumps({"kind": "Status", "message": text}).encode()
    return f"HTTP/1.1 {code}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def served(answer: bytes) -> tuple[socket.socket, list[bytes]]:
    """Our end of a connection whose other end reads one request, answers and closes."""
    ours, theirs = socket.socketpair()
    requests: list[bytes] = []

    def serve() -> None:
        with theirs:
            requests.append(theirs.recv(1 << 16))
            # A frame may follow the head.
            if b"portforward" in requests[0]:
                theirs.sendall(answer[: len(UPGRADED)])
                requests[0] += theirs.recv(1 << 16)
                answer_left = answer[len(UPGRADED) :]
            else:
                answer_left = answer
            theirs.sendall(answer_left)

    threading.Thread(target=serve, daemon=True).start()
    ours.settimeout(10)
    return ours, requests


def run(answer: bytes) -> str:
    stream, _requests = served(answer)
    with stream:
        return streams.run_in_pod(stream, ACCESS, "/api/v1/namespaces/n/pods/p", ["/agnhost", "--version"])


def test_a_command_is_asked_for_as_kubectl_does() -> None:
    stream, requests = served(UPGRADED + status(status="Success"))
    with stream:
        streams.run_in_pod(stream, ACCESS, "/api/v1/namespaces/n/pods/p", ["/agnhost", "--version"])
    lines = requests[0].decode().splitlines()
    assert lines[0] == (
        "GET /api/v1/namespaces/n/pods/p/exec?command=%2Fagnhost&command=--version&stdout=true&stderr=false HTTP/1.1"
    )
    assert "Sec-WebSocket-Protocol: v5.channel.k8s.io" in lines


@pytest.mark.parametrize(
    ("frames", "output"),
    [
        (message(1, b"version 2\n") + status(status="Success"), "version 2\n"),
        (message(1, b"") + message(1, b"a") + message(1, b"b") + status(status="Success"), "ab"),
        (message(1, LONG[:200]) + message(1, LONG) + status(status="Success"), "x" * 70200),
        # A message in two parts, with a ping between them.
        (b"\x02\x03\x01ve" + b"\x89\x00" + b"\x80\x01r" + status(status="Success"), "ver"),
        (message(1, b"a") + status(status="Success") + b"\x88\x00", "a"),
    ],
)
def test_what_a_command_prints(frames: bytes, output: str) -> None:
    assert run(UPGRADED + frames) == output


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (refusal("500 Internal Server Error", "tls: failed to verify certificate"), "HTTP 500: tls: failed to verify"),
        (refusal("403 Forbidden", "pods is forbidden"), "HTTP 403: pods is forbidden"),
        (UPGRADED + message(1, b"version") + status(status="Failure", message="exit code 2"), "--version: exit code 2"),
        (UPGRADED + message(1, b"version"), "ended without a status"),
        (UPGRADED + b"\x82\x7e", "ended without a status"),
        (UPGRADED + message(3, b"no JSON"), "JSONDecodeError"),
        (b"", "RemoteDisconnected"),
    ],
)
def test_a_command_that_could_not_be_run(answer: bytes, expected: str) -> None:
    with pytest.raises(KubernetesError, match=expected):
        run(answer)


def test_logs() -> None:
    stream, requests = served(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    with stream:
        assert streams.logs(stream, ACCESS, "/api/v1/namespaces/n/pods/p") == "hello"
    assert requests[0].startswith(b"GET /api/v1/namespaces/n/pods/p/log?limitBytes=300 HTTP/1.1\r\n")
    stream, _requests = served(refusal("502 Bad Gateway", "dial tcp 10.0.0.1:10250: connect: connection refused"))
    with stream, pytest.raises(KubernetesError, match="HTTP 502: dial tcp"):
        streams.logs(stream, ACCESS, "/api/v1/namespaces/n/pods/p")


PORTS = message(0, (8080).to_bytes(2, "little")) + message(1, (8080).to_bytes(2, "little"))


def test_a_port_is_forwarded() -> None:
    stream, requests = served(
        UPGRADED + PORTS + message(0, b"HTTP/1.0 200 OK\r\n\r\npro") + message(0, b"be-1") + b"\x89"
    )
    with stream:
        answer = streams.forward(
            stream, ACCESS, "/api/v1/namespaces/n/pods/p", 8080, b"GET / HTTP/1.0\r\n\r\n", "probe-1"
        )
    assert answer.endswith("probe-1")
    head, _end, frame = requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"GET /api/v1/namespaces/n/pods/p/portforward?ports=8080 HTTP/1.1\r\n")
    assert b"Sec-WebSocket-Protocol: v4.channel.k8s.io" in head
    # What a client sends is masked.
    mask, hidden = frame[2:6], frame[6:]
    assert bytes(byte ^ mask[at % 4] for at, byte in enumerate(hidden)) == b"\0GET / HTTP/1.0\r\n\r\n"


def test_a_port_that_could_not_be_forwarded() -> None:
    refused = UPGRADED + PORTS + message(1, b"dial tcp4 127.0.0.1:8080: connect: connection refused")
    stream, _requests = served(refused)
    with stream, pytest.raises(KubernetesError, match="connection refused"):
        streams.forward(stream, ACCESS, "/api/v1/namespaces/n/pods/p", 8080, b"GET", "probe-1")


class Api:
    access = ACCESS


def _refuse() -> str:
    raise KubernetesError("HTTP 500")


@pytest.mark.parametrize(
    ("exec_answer", "log_answer", "answered", "seen"),
    [
        (lambda: "app version 2", "started", "probe-", "all of it, on 2 nodes"),
        (lambda: "", "started", "probe-", "a: exec ''"),
        (lambda: "app version 2", "", "probe-", "logs ''"),
        (lambda: "app version 2", "started", "", "port-forward ''; b: "),
        (_refuse, "started", "probe-", "a: HTTP 500; b: HTTP 500"),
    ],
)
def test_the_check_names_the_nodes_that_are_not_reached(
    monkeypatch: pytest.MonkeyPatch, exec_answer: Callable[[], str], log_answer: str, answered: str, seen: str
) -> None:
    probes = [Pod(cluster.PROBES, f"probe-{name}", name, "10.200.0.2", True) for name in ("a", "b")]
    monkeypatch.setattr(cluster, "pods", lambda *_arguments: probes)
    monkeypatch.setattr(streams, "connect", lambda _access: socket.socket())
    monkeypatch.setattr(streams, "run_in_pod", lambda *_arguments: exec_answer())
    monkeypatch.setattr(streams, "logs", lambda *_arguments: log_answer)
    # Each pod answers with its own name.
    monkeypatch.setattr(streams, "forward", lambda *arguments: answered and arguments[-1])
    api: Any = Api()
    check = ClusterChecks(api, ["a", "b"], "cluster.local", 1).streams()
    assert check.passed is seen.startswith("all")
    assert seen in check.seen
