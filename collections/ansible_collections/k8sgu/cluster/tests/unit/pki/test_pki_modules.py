"""cfssl_cert_info, and that the package can be imported without the library cryptography."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from pki_support import make_ca, make_leaf

from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import cfssl_cert_info, remote
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.errors import PkiError


def test_everything_can_be_imported_without_the_library() -> None:
    package = Path(cfssl_cert_info.__file__).parent
    names = [f"{cfssl_cert_info.__package__}.{path.stem}" for path in package.glob("*.py")]
    program = "import sys, importlib\nsys.modules['cryptography'] = None\n"
    program += "for name in sys.argv[1:]: importlib.import_module(name)"
    root = package.parents[5]
    done = subprocess.run(
        [sys.executable, "-c", program, *names],
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({}, "paths"),
        ({"paths": ["/nonexistent"]}, "paths[0]"),
        ({"paths": [__file__]}, "paths[0]"),
        ({"contents": [{"source": "x", "pem": "-----BEGIN CERTIFICATE-----\nMII"}]}, "contents[0].pem"),
        ({"addresses": ["localhost"]}, "addresses[0]"),
        ({"addresses": ["::1:443"]}, "addresses[0]"),
        ({"addresses": ["localhost:0"]}, "addresses[0]"),
        ({"addresses": ["127.0.0.1:1"]}, "addresses[0]"),
        ({"paths": ["/"], "timeout": 0}, "timeout"),
    ],
)
def test_an_ambiguous_call_is_refused(options: dict[str, Any], option: str) -> None:
    with pytest.raises(PkiError) as error:
        cfssl_cert_info.gather({"timeout": 5, **options})
    assert error.value.option == option


def test_a_server_that_says_nothing_ends_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(PkiError, match=r"has not answered with a TLS handshake within 1 s"):
            cfssl_cert_info.gather({"addresses": [address], "timeout": 1})


def test_a_server_s_certificate_is_read_whoever_signed_it(tmp_path: Path) -> None:
    make_ca(tmp_path)
    leaf = make_leaf(tmp_path)
    chain = tmp_path / "chain.pem"
    chain.write_bytes((tmp_path / "web.pem").read_bytes() + (tmp_path / "ca.pem").read_bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, tmp_path / "web-key.pem")
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _peer = server.accept()
            with context.wrap_socket(connection, server_side=True) as secured:
                secured.recv(1)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        found = cfssl_cert_info.gather({"addresses": [address], "timeout": 30})
        thread.join(timeout=30)
    assert found[0]["fingerprint_sha256"] == leaf["fingerprint_sha256"]
    assert found[0]["source"] == address
    assert [one["position"] for one in found] == list(range(len(found)))
    from_file = cfssl_cert_info.gather({"paths": [str(chain)], "timeout": 1})
    assert [one["subject"] for one in from_file] == ["CN=web", "CN=ca"]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.1:6443", ("192.0.2.1", 6443)),
        ("[2001:db8::1]:443", ("2001:db8::1", 443)),
        ("a.example:1", ("a.example", 1)),
    ],
)
def test_addresses(address: str, expected: tuple[str, int]) -> None:
    assert remote.split_address(address, "addresses") == expected
