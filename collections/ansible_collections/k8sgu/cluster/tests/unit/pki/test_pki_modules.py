"""The modules' interface: documentation and argument specification agree, and a missing library is reported."""

from __future__ import annotations

import importlib
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from pki_support import make_ca, make_leaf

from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import info_module, remote
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.errors import PkiError

MODULES = "ansible_collections.k8sgu.cluster.plugins.modules"
FRAGMENTS = "ansible_collections.k8sgu.cluster.plugins.doc_fragments"


def compare(documented: dict[str, Any], spec: dict[str, Any], where: str) -> None:
    assert set(documented) == set(spec), where
    for name, option in spec.items():
        text = documented[name]
        for key in ("type", "elements", "default", "choices", "required"):
            assert text.get(key, False if key == "required" else None) == option.get(
                key, False if key == "required" else None
            ), f"{where}{name}: {key}"
        if "options" in option:
            compare(text["suboptions"], option["options"], f"{where}{name}.")


def attributes(documentation: dict[str, Any]) -> dict[str, Any]:
    """A module's own and those of its documentation fragments."""
    found = dict(documentation.get("attributes", {}))
    for name in documentation.get("extends_documentation_fragment", []):
        fragment = importlib.import_module(f"{FRAGMENTS}.{name.removeprefix('k8sgu.cluster.')}").ModuleDocFragment
        found.update(yaml.safe_load(fragment.DOCUMENTATION).get("attributes", {}))
    return found


@pytest.mark.parametrize("name", ["cfssl_cert", "cfssl_cert_info"])
def test_documentation_and_argument_specification_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(f"{MODULES}.{name}")
    seen: dict[str, Any] = {}

    def catch(**arguments: Any) -> None:
        seen.update(arguments)

    monkeypatch.setattr(module, "AnsibleModule", catch)
    monkeypatch.setattr(module, "run", lambda _module: None)
    module.main()
    documentation = yaml.safe_load(module.DOCUMENTATION)
    compare(documentation["options"], seen["argument_spec"], "")
    assert seen["supports_check_mode"]
    assert set(attributes(documentation)) == {"check_mode", "diff_mode", "idempotent"}
    for text in (module.EXAMPLES, module.RETURN):
        assert yaml.safe_load(text)


def test_everything_can_be_imported_without_the_library() -> None:
    package = Path(info_module.__file__).parent
    names = [f"{info_module.__package__}.{path.stem}" for path in package.glob("*.py")]
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
        info_module.gather({"timeout": 5, **options})
    assert error.value.option == option


def test_a_server_that_says_nothing_ends_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(PkiError, match=r"has not answered with a TLS handshake within 1 s"):
            info_module.gather({"addresses": [address], "timeout": 1})


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
        found = info_module.gather({"addresses": [address], "timeout": 30})
        thread.join(timeout=30)
    assert found[0]["fingerprint_sha256"] == leaf["fingerprint_sha256"]
    assert found[0]["source"] == address
    assert [one["position"] for one in found] == list(range(len(found)))
    from_file = info_module.gather({"paths": [str(chain)], "timeout": 1})
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
