"""Each bad input is refused with the option's name, before anything is changed, in check mode too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pki_support import CONFIG, call, make_ca, make_leaf, picture

from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.errors import PkiError

Setup = Callable[[Path], dict[str, Any]]


def profile(**fields: Any) -> dict[str, Any]:
    one = {"expiry": "8760h", "usages": ["signing", "server auth"], **fields}
    return {"config": {"signing": {"profiles": {"server": one}}}}


def written(path: Path, text: str | bytes) -> str:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def truncate(path: Path) -> dict[str, Any]:
    path.write_bytes(path.read_bytes()[:150])
    return {}


def linked(pki: Path) -> dict[str, Any]:
    (pki / "elsewhere").mkdir()
    (pki / "web.pem").symlink_to(pki / "elsewhere" / "web.pem")
    return {}


def request_for_a_ca(pki: Path) -> dict[str, Any]:
    return {"csr": None, "csr_file": str(pki / "ca.csr")}


BAD: dict[str, tuple[Setup, str, str]] = {
    "empty request": (lambda pki: {"csr": {}}, "csr", "is empty"),
    "no request": (lambda pki: {"csr": None}, "csr", "csr or csr_file"),
    "request file missing": (lambda pki: {"csr": None, "csr_file": str(pki / "no.json")}, "csr_file", "does not exist"),
    "request file empty": (
        lambda pki: {"csr": None, "csr_file": written(pki / "e.json", " \n")},
        "csr_file",
        "is empty",
    ),
    "request file no JSON": (
        lambda pki: {"csr": None, "csr_file": written(pki / "b.json", "{")},
        "csr_file",
        "is not JSON",
    ),
    "request file a list": (
        lambda pki: {"csr": None, "csr_file": written(pki / "l.json", "[]")},
        "csr_file",
        "JSON object",
    ),
    "request file binary": (
        lambda pki: {"csr": None, "csr_file": written(pki / "x.json", b"\xff\xfe")},
        "csr_file",
        "UTF-8",
    ),
    "request file unknown key": (
        lambda pki: {"csr": None, "csr_file": written(pki / "k.json", json.dumps({"CN": "x", "key": {"algo": "dsa"}}))},
        "csr_file.key.algo",
        "use ecdsa, rsa or ed25519",
    ),
    "request and file": (lambda pki: {"csr_file": "x"}, "csr_file", "leave one out"),
    "PEM request truncated": (
        lambda pki: {"csr": None, "csr_file": written(pki / "t.csr", (pki / "ca.csr").read_bytes()[:200])},
        "csr_file",
        "is not a PEM certificate request",
    ),
    "PEM request for a CA": (request_for_a_ca, "csr_file.ca", "does not grant"),
    "request for a CA": (lambda pki: {"csr": {"CN": "x", "ca": {"pathlen": 0}}}, "csr.ca", "does not grant"),
    "request for more path": (
        lambda pki: {"csr": {"CN": "x", "ca": {"pathlen": 1}}, "profile": "intermediate"},
        "csr.ca.pathlen",
        "lower it",
    ),
    "request for a longer life": (
        lambda pki: {"csr": {"CN": "x", "ca": {"expiry": "80000h"}}, "profile": "intermediate"},
        "csr.ca.expiry",
        "shorten it",
    ),
    "name not on the list": (lambda pki: profile(name_whitelist=r"\.example\.org$"), "csr", "name_whitelist"),
    "host not on the list": (
        lambda pki: profile(CSRWhitelist={"Subject": True, "DNSNames": True}),
        "csr.hosts",
        "192.0.2.10",
    ),
    "host": (
        lambda pki: {"csr": {"CN": "x", "hosts": ["10.0.0.1/24"]}},
        "csr.hosts[0]",
        "without a prefix length",
    ),
    "algorithm": (
        lambda pki: {"csr": {"CN": "x", "key": {"algo": "dsa"}}},
        "csr.key.algo",
        "use ecdsa, rsa or ed25519",
    ),
    "size": (
        lambda pki: {"csr": {"CN": "x", "key": {"algo": "rsa", "size": 1024}}},
        "csr.key.size",
        "use 2048 to 8192",
    ),
    "profile": (lambda pki: {"profile": "sever"}, "profile", "known are: client, intermediate, server"),
    "usage": (lambda pki: profile(usages=["sign"]), "config.signing.profiles.server.usages[0]", "known are: signing"),
    "expiry": (lambda pki: profile(expiry="1 year"), "config.signing.profiles.server.expiry", "such as 8760h"),
    "expiry beyond the CA's": (
        lambda pki: profile(expiry="90000h"),
        "config.signing.profiles.server.expiry",
        "set cap_at_ca",
    ),
    "end of the CA too near": (
        lambda pki: (
            make_ca(pki, "young", csr={"ca": {"expiry": "100h"}}) and {"ca": str(pki / "young.pem"), "cap_at_ca": True}
        ),
        "cap_at_ca",
        "renew the CA first, or shorten renew_before",
    ),
    "a CA without a subject": (
        lambda pki: {"csr": {"hosts": ["a.example"]}, "profile": "intermediate"},
        "csr",
        "names no subject, which a CA must have",
    ),
    "initca that ends with a CA": (
        lambda pki: {"initca": True, "ca": None, "profile": None, "cap_at_ca": True},
        "cap_at_ca",
        "does not go with initca",
    ),
    "end in the past": (
        lambda pki: profile(not_after="2020-01-01T00:00:00Z"),
        "config.signing.profiles.server.expiry",
        "is over",
    ),
    "config file missing": (
        lambda pki: {"config": None, "config_file": str(pki / "no.json")},
        "config_file",
        "does not exist",
    ),
    "config file no JSON": (
        lambda pki: {"config": None, "config_file": written(pki / "c.json", "x")},
        "config_file",
        "is not JSON",
    ),
    "config and file": (lambda pki: {"config_file": "x"}, "config_file", "leave one out"),
    "no CA": (lambda pki: {"ca": None}, "ca", "initca"),
    "CA missing": (lambda pki: {"ca": str(pki / "no.pem")}, "ca", "does not exist"),
    "CA is none": (
        lambda pki: {"ca": make_leaf(pki, name="b")["certificate_path"]},
        "ca",
        "is not the certificate of a CA",
    ),
    "CA truncated": (lambda pki: truncate(pki / "ca.pem"), "ca", "its end is missing"),
    "CA may sign no CA": (
        lambda pki: {
            "ca": make_leaf(pki, name="inter", profile="intermediate", csr={"CN": "inter"})["certificate_path"],
            "profile": "intermediate",
        },
        "ca",
        "path length is 0",
    ),
    "CA key missing": (lambda pki: {"ca_key": str(pki / "no.pem")}, "ca_key", "does not exist"),
    "CA key not derivable": (lambda pki: {"ca": written(pki / "ca.crt", "x")}, "ca_key", "does not end in .pem"),
    "CA key of another": (lambda pki: {"ca_key": make_ca(pki, "b")["key_path"]}, "ca_key", "is not the key of"),
    "CA key truncated": (lambda pki: truncate(pki / "ca-key.pem"), "ca_key", "cannot be read as a private key"),
    "CA key needs a passphrase": (
        lambda pki: make_ca(pki, passphrase="sesame") and {},
        "ca_passphrase",
        "is needed to open",
    ),
    "CA key has another passphrase": (
        lambda pki: make_ca(pki, passphrase="sesame") and {"ca_passphrase": "wrong"},
        "ca_passphrase",
        "does not open",
    ),
    "passphrase empty": (lambda pki: {"passphrase": ""}, "passphrase", "is empty"),
    "key needs a passphrase": (
        lambda pki: make_leaf(pki, passphrase="sesame") and {},
        "passphrase",
        "is needed to open",
    ),
    "key has another passphrase": (
        lambda pki: make_leaf(pki, passphrase="sesame") and {"passphrase": "wrong"},
        "passphrase",
        "does not open",
    ),
    "certificate truncated": (lambda pki: make_leaf(pki) and truncate(pki / "web.pem"), "path", "set force"),
    "key truncated": (lambda pki: make_leaf(pki) and truncate(pki / "web-key.pem"), "path", "set force"),
    "request truncated": (lambda pki: make_leaf(pki) and truncate(pki / "web.csr"), "path", "set force"),
    "certificate unreadable": (lambda pki: written(pki / "web.pem", "notes") and {}, "path", "set force"),
    "certificate a directory": (lambda pki: (pki / "web.pem").mkdir() or {}, "path", "is a directory"),
    "key a directory": (lambda pki: (pki / "web-key.pem").mkdir() or {}, "path", "is a directory"),
    "certificate a link elsewhere": (linked, "path", "outside its directory"),
    "directory a file": (lambda pki: {"path": written(pki / "file", "x")}, "path", "not a directory"),
    "name with a slash": (lambda pki: {"name": "a/b"}, "name", "base name"),
    "name empty": (lambda pki: {"name": ""}, "name", "base name"),
    "no path": (lambda pki: {"path": None}, "path", "is missing"),
    "renewed before it is made": (lambda pki: {"renew_before": "8760h"}, "renew_before", "every run"),
    "renew_before no duration": (lambda pki: {"renew_before": "soon"}, "renew_before", "8760h or 60d"),
    "initca with a CA": (lambda pki: {"initca": True, "profile": None}, "ca", "does not go with initca"),
    "initca with a profile": (lambda pki: {"initca": True, "ca": None}, "profile", "does not go with initca"),
}


@pytest.mark.parametrize("check_mode", [False, True], ids=["run", "check"])
@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_refused_and_nothing_changed(tmp_path: Path, what: str, check_mode: bool) -> None:
    setup, option, text = BAD[what]
    make_ca(tmp_path)
    options = setup(tmp_path)
    before = picture(tmp_path)
    with pytest.raises(PkiError) as error:
        make_leaf(tmp_path, check_mode=check_mode, **options)
    assert error.value.option == option
    assert text in error.value.message
    assert picture(tmp_path) == before


def entry(**fields: Any) -> dict[str, Any]:
    return {"name": "web", "csr": {"CN": "web"}, **fields}


LISTS: dict[str, tuple[list[dict[str, Any]], str, str]] = {
    "empty": ([], "certificates", "is empty"),
    "twice": ([entry(), entry()], "certificates[1] (web).name", "own name"),
    "files of another": ([entry(), entry(name="web-key")], "certificates[1] (web-key).name", "is also one of"),
    "bad host": (
        [entry(), entry(name="b", csr={"CN": "b", "hosts": ["a b"]})],
        "certificates[1] (b).csr.hosts[0]",
        "a b",
    ),
    "circle": (
        [entry(ca="b.pem", profile="intermediate"), entry(name="b", ca="web.pem", profile="intermediate")],
        "certificates[0] (web).ca",
        "leads back",
    ),
    "signed by a leaf": (
        [entry(ca="b.pem"), entry(name="b", profile="server")],
        "certificates[0] (web).ca",
        "is not the certificate of a CA",
    ),
    "signed by what is removed": (
        [entry(ca="b.pem"), {"name": "b", "state": "absent"}],
        "certificates[0] (web).ca",
        "is removed",
    ),
    "key of another CA": (
        [entry(ca="b.pem", ca_key="c-key.pem"), entry(name="b", profile="intermediate")],
        "certificates[0] (web).ca_key",
        "is not the key of",
    ),
}


@pytest.mark.parametrize("what", LISTS)
def test_a_bad_entry_of_a_list_is_named(tmp_path: Path, what: str) -> None:
    entries, option, text = LISTS[what]
    make_ca(tmp_path)
    before = picture(tmp_path)
    for one in entries:
        for key in ("ca", "ca_key"):
            if key in one:
                one[key] = str(tmp_path / Path(one[key]).name)
    with pytest.raises(PkiError) as error:
        call(tmp_path, certificates=entries, ca=str(tmp_path / "ca.pem"), config=CONFIG, profile="server")
    assert error.value.option == option
    assert text in error.value.message
    assert picture(tmp_path) == before
