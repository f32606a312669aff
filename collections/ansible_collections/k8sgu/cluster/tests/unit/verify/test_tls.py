# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a TLS server accepts, tested with real servers."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster import ports as port_table
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify import tls
from ansible_collections.k8sgu.cluster.plugins.module_utils._verify.listeners import Listener

GOOD = "ECDHE+AESGCM:ECDHE+CHACHA20"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Certificate and key by kind of key."""
    folder, made = tmp_path_factory.mktemp("tls"), {}
    for kind, options in {"rsa": ["rsa:2048"], "ec": ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]}.items():
        made[kind] = (folder / f"{kind}.pem", folder / f"{kind}-key.pem")
        argv = ["openssl", "req", "-x509", "-newkey", *options, "-nodes", "-subj", "/CN=x", "-out", made[kind][0]]
        subprocess.run([*argv, "-keyout", made[kind][1]], check=True, capture_output=True)
    return made


@contextlib.contextmanager
def serving(answer):
    """The port of a server that answers each connection by a function of the socket."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                connection, _peer = server.accept()
            except OSError:
                return
            with connection:
                answer(connection)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        server.close()


def handshake(certificate, lowest, highest, ciphers):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    context.set_ciphers(ciphers)
    context.minimum_version, context.maximum_version = lowest, highest

    def answer(connection):
        with contextlib.suppress(ssl.SSLError, OSError):
            context.wrap_socket(connection, server_side=True)

    return answer


V = ssl.TLSVersion


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["rsa", "ec"])
@pytest.mark.parametrize(
    ("lowest", "highest", "ciphers", "faults"),
    [
        (V.TLSv1_2, V.TLSv1_3, GOOD, []),
        (V.TLSv1_2, V.TLSv1_2, GOOD, []),
        (V.TLSv1_3, V.TLSv1_3, GOOD, []),
        (V.TLSv1_1, V.TLSv1_3, f"{GOOD}:ECDHE+AES:@SECLEVEL=0", ["agrees to TLS 1.1", "agrees to TLS 1.2"]),
        (V.TLSv1_1, V.TLSv1_1, "ECDHE+AES:@SECLEVEL=0", ["protocol version", "to TLS 1.1", "to TLS 1.1"]),
        (V.TLSv1_2, V.TLSv1_3, f"{GOOD}:ECDHE+AES:@SECLEVEL=0", ["agrees to TLS 1.2"]),
    ],
)
def test_versions_and_suites(certificates, kind, lowest, highest, ciphers, faults):
    with serving(handshake(certificates[kind], lowest, highest, ciphers)) as port:
        found = tls.faults("127.0.0.1", port, (*tls.WEAK, *tls.CBC))
    assert len(found) == len(faults), found
    assert all(expected in seen for expected, seen in zip(faults, found))


def test_static_rsa_is_a_fault_and_cbc_is_one_if_it_is_tried(certificates):
    with serving(handshake(certificates["rsa"], V.TLSv1_2, V.TLSv1_3, f"{GOOD}:AES128-SHA:@SECLEVEL=0")) as port:
        (found,) = tls.faults("127.0.0.1", port, tls.WEAK)
        assert "agrees to TLS 1.2 with suite 0x002F" in found
    with serving(handshake(certificates["ec"], V.TLSv1_2, V.TLSv1_3, f"{GOOD}:ECDHE+AES")) as port:
        assert tls.faults("127.0.0.1", port, tls.WEAK) == []


@pytest.mark.parametrize(
    ("answer", "seen"),
    [
        (lambda connection: None, "closed without an answer"),
        (lambda connection: connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n"), "is no TLS"),
    ],
)
def test_a_server_without_tls_refuses_nothing(answer, seen):
    def after_reading(connection):
        connection.recv(4096)
        answer(connection)

    with serving(after_reading) as port:
        found = tls.faults("127.0.0.1", port, tls.WEAK)
    assert [seen in fault for fault in found] == [True, True, True]


def test_an_address_where_nothing_listens_is_three_faults():
    with serving(lambda connection: None) as port:
        pass
    assert len(tls.faults("127.0.0.1", port, tls.WEAK)) == 3


def test_every_listener_of_a_tls_row_is_asked_and_no_other(certificates):
    good = handshake(certificates["ec"], V.TLSv1_2, V.TLSv1_3, GOOD)
    rows = port_table.as_dictionaries("routed")
    with serving(good) as port, serving(lambda connection: None) as silent:
        row = {**rows[0], "name": "x", "listener": "x", "first": port, "last": port, "encryption": "tls"}
        found = [Listener("127.0.0.1", port, "x"), Listener("127.0.0.1", silent, "sshd")]
        check = tls.check_tls([row], "worker", found, "node")
        assert check.passed, check.seen
        assert check.seen.startswith("1 listeners")
        broken = {**row, "first": silent, "last": silent, "listener": "sshd"}
        check = tls.check_tls([row, broken], "worker", found, "node")
        assert not check.passed
        assert f"sshd at tcp 127.0.0.1:{silent}" in check.seen
    assert not tls.check_tls([row], "worker", [], "node").passed, "nothing asked proves nothing"
