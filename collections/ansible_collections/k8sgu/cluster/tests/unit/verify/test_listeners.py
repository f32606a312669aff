from __future__ import annotations

import os
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._verify import listeners, node
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.listeners import Listener


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("0100007F:1F90", ("127.0.0.1", 8080)),
        ("00000000:192B", ("0.0.0.0", 6443)),
        ("0000000000000000FFFF00000A00F00A:0016", ("10.240.0.10", 22)),
        ("00000000000000000000000001000000:094B", ("::1", 2379)),
    ],
)
def test_addresses_of_proc_net(text, address):
    assert listeners.decode_address(text) == address


class Server:
    """A TCP server that answers each connection by a function of the socket."""

    def __init__(self, answer):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.answer = answer
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection, _peer = self.socket.accept()
            except OSError:
                return
            with connection:
                self.answer(connection)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.socket.close()


def plain(connection):
    connection.recv(512)
    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello")


def ssh(connection):
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")


def go_refusal(connection):
    connection.recv(512)
    connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")


def closing(connection):
    connection.recv(512)


@pytest.mark.parametrize(("answer", "speaks"), [(plain, True), (ssh, False), (go_refusal, False), (closing, False)])
def test_only_an_answer_without_tls_counts(answer, speaks):
    with Server(answer) as server:
        listener = Listener("127.0.0.1", server.port, "test")
        assert bool(listeners.plaintext_listeners([listener])) is speaks


def test_a_tls_server_is_no_plaintext_listener(tmp_path):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x",
         "-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"],
        check=True,
        capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")

    def handshake(connection):
        try:
            context.wrap_socket(connection, server_side=True)
        except (ssl.SSLError, OSError):
            return

    with Server(handshake) as server:
        assert listeners.plaintext_answer(Listener("0.0.0.0", server.port, "test")) == ""


def test_our_own_listener_is_found_with_its_program():
    with Server(closing) as server:
        found = {listener.port: listener for listener in listeners.listeners()}
    assert found[server.port].address == "127.0.0.1"
    assert found[server.port].program == os.path.basename(os.path.realpath("/proc/self/exe"))  # noqa: PTH119


@pytest.mark.parametrize(
    ("value", "good"),
    [
        (b"k8s:enc:secretbox:v1:key-1:\x00\x01", True),
        (b"k8s\x00\n\x0c\n\x02v1\x12\x06Secret words", False),
        (b"k8s:enc:secretbox:v1:key-1: words", False),
        (b"k8s:enc:aescbc:v1:key-1:\x00", False),
        (b"", False),
    ],
)
def test_only_the_providers_ciphertext_counts_as_encrypted(value, good):
    assert node.encrypted(value, "k8s:enc:secretbox:v1:", "words") is good


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ('{"userAgent": "k8sgu-verify/1", "stage": "ResponseComplete"}', True),
        ('{"userAgent": "k8sgu-verify/1", "stage": "RequestReceived"}', False),
        ('{"userAgent": "curl", "requestURI": "k8sgu-verify/1", "stage": "ResponseComplete"}', False),
        ('{"userAgent": "k8sgu-verify/1", "sta', False),
    ],
)
def test_only_a_complete_event_of_that_user_agent_counts(line, found):
    assert (node.audit_event(line, "k8sgu-verify/1") is not None) is found


def test_a_descriptor_that_is_closed_meanwhile_hides_no_other(tmp_path: Path) -> None:
    descriptors = tmp_path / "77" / "fd"
    descriptors.mkdir(parents=True)
    (descriptors.parent / "comm").write_text("kubelet\n")
    (descriptors.parent / "exe").symlink_to("/usr/bin/kubelet")
    for number in range(10):
        (descriptors / str(number)).symlink_to(f"socket:[{number}]")
    # Not a link, so it cannot be read, as one that is gone.
    (descriptors / "5").unlink()
    (descriptors / "5").touch()
    assert listeners.socket_programs(tmp_path) == {str(number): "kubelet" for number in range(10) if number != 5}
