"""The same requests and configurations through cfssl and cfssljson and through cfssl_cert: the same certificates.

Both are compiled from the project's own pins, as playbooks/client_tools.yml does, by the mirror's builder.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.gobuild import (
    Builder,
    Sources,
    find_toolchain,
    orders,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.release import Recipe
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.run import default_cache_dir
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.cfssl_cert import ensure
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.errors import PkiError

RELEASES = Path(__file__).resolve().parents[2] / "releases"
PACKAGES = "github.com/cloudflare/cfssl/cmd/"
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
# Missing modules are fetched.
BUILD_TIMEOUT_S = 900


@pytest.fixture(scope="session", autouse=True)
def cfssl() -> Iterator[None]:
    """cfssl and cfssljson at the head of PATH."""
    toolchain = find_toolchain()
    assert toolchain is not None, "parity is shown with cfssl as it is built here: no Go toolchain on PATH"
    recipe = Recipe("cfssl", tuple((name, PACKAGES + name) for name in ("cfssl", "cfssljson")))
    [order] = orders([(recipe, MACHINES[platform.machine()])])
    builder = Builder(toolchain, Sources(str(RELEASES / "build")), default_cache_dir(), threading.Event())
    made = builder.build(order, lambda _state: None)
    path = os.environ["PATH"]
    os.environ["PATH"] = os.pathsep.join([*(str(Path(program).parent) for program in made.values()), path])
    yield
    os.environ["PATH"] = path


def run(*command: str | Path, data: str = "") -> str:
    done = subprocess.run(
        [str(part) for part in command], input=data, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


CONFIG: dict[str, Any] = {
    "signing": {
        "default": {"expiry": "168h", "usages": ["signing", "client auth"]},
        "profiles": {
            "kubernetes": {"expiry": "8760h", "usages": ["signing", "key encipherment", "server auth", "client auth"]},
            "odd": {
                "expiry": "100h30m",
                "backdate": "1h",
                "usages": [
                    "content commitment",
                    "key agreement",
                    "encipher only",
                    "code signing",
                    "any",
                    "ocsp signing",
                    "timestamping",
                    "email protection",
                    "microsoft sgc",
                ],
                "ocsp_url": "http://ocsp.example.com",
                "crl_url": "http://crl.example.com/a.crl",
                "issuer_urls": ["http://ca.example.com/ca.crt", "http://ca2.example.com/ca.crt"],
            },
            "intermediate": {
                "expiry": "43800h",
                "usages": ["cert sign", "crl sign", "signing"],
                "ca_constraint": {"is_ca": True, "max_path_len": 0, "max_path_len_zero": True},
            },
            "unlimited": {"expiry": "43800h", "usages": ["cert sign"], "ca_constraint": {"is_ca": True}},
            "silent": {
                "expiry": "+1h30m",
                "backdate": "0s",
                "usages": ["signing"],
                "copy_extensions": False,
                "remote": "",
                "policies": [],
                "cert_store": "x",
                "allowed_extensions": ["1.2.3"],
            },
            "no limit": {
                "expiry": "43800h",
                "usages": ["cert sign"],
                "ca_constraint": {"is_ca": True, "max_path_len": -1},
            },
            "classes": {"expiry": "1h", "usages": ["signing"], "name_whitelist": "^[[:lower:].]+\\z"},
            "fixed": {
                "expiry": "1h",
                "usages": ["signing"],
                "not_before": "2026-01-01T01:00:00+01:00",
                "not_after": "2030-01-01T00:00:00Z",
            },
        },
    }
}
NAMES = [{"C": "US", "L": "Portland", "O": "Kubernetes", "OU": "CA", "ST": "Oregon"}, {"O": "Second, Inc*"}]
HOSTS = ["kubernetes.default.svc", "10.32.0.1", "2001:db8::1", "::ffff:192.0.2.1", "*.example.com", "me@example.com"]
AUTHORITIES: dict[str, dict[str, Any]] = {
    "plain": {"CN": "demo"},
    "p384": {
        "CN": "demo",
        "names": NAMES,
        "key": {"algo": "ecdsa", "size": 384},
        "ca": {"expiry": "87600h", "pathlen": 2},
    },
    "p521": {
        "CN": "d\u00e9mo & co",
        "key": {"algo": "ecdsa", "size": 521},
        "ca": {"expiry": "50000h", "pathlenzero": True},
    },
    "rsa2048": {"CN": "demo", "key": {"algo": "rsa", "size": 2048}, "hosts": ["ca.example.com", "192.0.2.7"]},
    "rsa3072": {"CN": "demo", "key": {"algo": "rsa", "size": 3072}},
    "ed25519": {"CN": "demo", "key": {"algo": "ed25519", "size": 256}},
    "no limit": {"CN": "demo", "ca": {"pathlen": -1, "backdate": "0", "expiry": "+87600h"}},
    "no name": {"names": [{"O": "only"}], "crl_url": "http://crl.example.com/x"},
}
# Requests that cfssl accepts and we refuse, with the wrong option and the reason, as in the module's documentation.
REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    host: ({"CN": "x", "hosts": [host]}, "csr.hosts[0]", reason)
    for host, reason in {
        "svc.default.": "ends in a dot",
        "a.*.example.com": "has a wildcard that is not the whole first part",
        "f*.example.com": "has a wildcard that is not the whole first part",
        "*": "has a wildcard that is not the whole first part",
        "10.0.0.1/24": "is a network",
        "10.0.0.1:6443": "has a port",
        "localhost:8080": "has a port",
        "[2001:db8::1]": "is in brackets",
        "fe80::1%eth0": "is an address with a zone",
        "256.1.1.1": "is neither an IP address",
        "12345": "is neither an IP address",
        "-a.example.com": "begins or ends in a hyphen",
        ".example.com": "has an empty part before",
        "a" * 64 + ".example": "a part of 64 characters",
        "a." * 127 + "b": "at most 253",
        "a!b.example": "holds '!'",
        "a.example.com,b.example.com": "each host as its own entry of the list",
        " a.example.com": "holds a space",
        "": "is empty",
        "/path": "is a path",
        "https://example.com/#x": "without #",
        "https://": "is not a URI",
        "spiffe://x/y z": "write %20",
        '"a b"@example.com': "holds a space",
        "user@@example.com": "is not an email address",
    }.items()
}
REFUSED |= {
    "long": ({"CN": "x" * 65}, "csr.CN", "at most 64"),
    "country": ({"CN": "x", "names": [{"C": "USA"}]}, "csr.names[0].C", "at most 2"),
    "control character": ({"CN": "a\nb"}, "csr", "control character"),
    "unknown key": ({"CN": "x", "hots": []}, "csr.hots", "did you mean hosts"),
    "unknown part": ({"CN": "x", "names": [{"SerialNumber": "5"}]}, "csr.names[0].SerialNumber", "is not supported"),
    "other part": ({"CN": "x", "names": [{"OID": {"2.5.4.17": "9"}}]}, "csr.names[0].OID", "is not supported"),
    "delegation": ({"CN": "x", "delegation_enabled": True}, "csr.delegation_enabled", "is not supported"),
    "nobody": ({"key": {"algo": "ecdsa", "size": 256}}, "csr", "neither a subject nor a host"),
}
LEAVES: dict[str, tuple[str | None, dict[str, Any]]] = {
    "kubernetes": ("kubernetes", {"CN": "kubernetes", "names": NAMES, "hosts": HOSTS}),
    "identity": ("kubernetes", {"CN": "system:node:worker-1", "names": [{"O": "system:nodes"}]}),
    "default": (None, {"CN": "client", "hosts": []}),
    "odd": ("odd", {"CN": "odd", "serialnumber": "77", "hosts": ["odd.example.com"]}),
    "no name": ("kubernetes", {"names": [{"O": "only"}], "hosts": ["a.example.com"]}),
    "rsa": ("kubernetes", {"CN": "rsa", "key": {"algo": "rsa", "size": 2048}, "hosts": ["rsa.example.com"]}),
    "p521": ("kubernetes", {"CN": "p521", "key": {"algo": "ecdsa", "size": 521}}),
    "intermediate": ("intermediate", {"CN": "inter", "hosts": ["i.example.com", "192.0.2.9"]}),
    "unlimited": ("unlimited", {"CN": "inter"}),
    "uri": ("kubernetes", {"CN": "uri", "hosts": ["spiffe://cluster.local/ns/default"]}),
    "ed25519": ("kubernetes", {"CN": "ed", "key": {"algo": "ed25519", "size": 256}}),
    "no subject": ("kubernetes", {"hosts": ["a.example.com", "10.0.0.1"]}),
    "empty subject": ("kubernetes", {"CN": "", "names": [{"O": ""}], "hosts": ["a.example.com"]}),
    "underscore": ("kubernetes", {"CN": "x", "hosts": ["my_service.default.svc", "_sip._tcp.example.com"]}),
    "upper case": ("kubernetes", {"CN": "x", "hosts": ["A.Example.COM", "a.example.com", "2001:DB8::1", "URN:UUID:x"]}),
    "urn": ("kubernetes", {"CN": "x", "hosts": ["urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "tag:x,2026:y"]}),
    "other URIs": (
        "kubernetes",
        {"CN": "x", "hosts": ["HTTP://E.com/%20?a", "file:///x", "mailto:a@b.c", "http://[::1]:8"]},
    ),
    "emails": ("kubernetes", {"CN": "x", "hosts": ["me@my_host.example", "Me <i@example.com>", "<o'h@example.com>"]}),
    "addresses": (
        "kubernetes",
        {"CN": "x", "hosts": ["::", "::10.0.0.1", "0:0:0:0:0:0:0:1", "0.0.0.0", "xn--bcher-kva.de"]},
    ),
    "two email addresses": ("kubernetes", {"CN": "x", "names": [{"E": "a@b.de", "O": "o"}, {"E": "c@d.de"}]}),
    "asks for nothing": ("kubernetes", {"CN": "x", "extensions": [], "delegation_enabled": False, "ca": None}),
    "crl": ("kubernetes", {"CN": "x", "crl_url": "http://crl.example.com/x"}),
    "silent": ("silent", {"CN": "x", "hosts": ["a.example.com"]}),
    "no limit": ("no limit", {"CN": "inter"}),
    "classes": ("classes", {"CN": "x", "hosts": ["a.example.com"]}),
    "fixed": ("fixed", {"CN": "x"}),
}


def theirs(directory: Path, name: str, request: dict[str, Any], ca: Path | None, profile: str | None = None) -> None:
    """`cfssl gencert | cfssljson -bare`."""
    directory.mkdir(exist_ok=True)
    if ca is None:
        made = run("cfssl", "gencert", "-initca", "-", data=json.dumps(request))
    else:
        (directory / "config.json").write_text(json.dumps(CONFIG))
        chosen = ["-profile", profile] if profile else []
        signer = ["-ca", ca, "-ca-key", str(ca)[: -len(".pem")] + "-key.pem", "-config", directory / "config.json"]
        made = run("cfssl", "gencert", *signer, *chosen, "-", data=json.dumps(request))
    run("cfssljson", "-bare", directory / name, data=made)


def ours(
    directory: Path, name: str, request: dict[str, Any], ca: Path | None, profile: str | None = None
) -> dict[str, Any]:
    options: dict[str, Any] = {"path": str(directory), "name": name, "csr": request, "initca": ca is None}
    if ca is not None:
        options.update(ca=str(ca), config=CONFIG, profile=profile)
    result: dict[str, Any] = ensure(options)["certificates"][0]
    return result


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def properties(certificate: x509.Certificate) -> dict[str, Any]:
    """All that must agree: everything but keys, serial number, signature and the minute of issue."""
    result: dict[str, Any] = {
        "subject": certificate.subject.public_bytes(),
        "life": certificate.not_valid_after_utc - certificate.not_valid_before_utc,
        "seconds": certificate.not_valid_before_utc.second,
        "signature": certificate.signature_algorithm_oid.dotted_string,
        "version": certificate.version,
    }
    for extension in certificate.extensions:
        name = extension.oid._name
        value: Any = extension.value
        if name in ("subjectKeyIdentifier", "authorityKeyIdentifier"):
            value = "present"
        elif name == "subjectAltName":
            value = sorted(f"{type(one).__name__} {one.value}" for one in value)
        elif name == "extendedKeyUsage":
            value = sorted(one.dotted_string for one in value)
        result[name] = (extension.critical, value)
    return result


@pytest.mark.timeout(BUILD_TIMEOUT_S)
@pytest.mark.parametrize("name", AUTHORITIES)
def test_authorities_agree(tmp_path: Path, name: str) -> None:
    request = AUTHORITIES[name]
    theirs(tmp_path / "theirs", "ca", request, None)
    ours(tmp_path / "ours", "ca", request, None)
    assert properties(load(tmp_path / "ours" / "ca.pem")) == properties(load(tmp_path / "theirs" / "ca.pem"))
    run(
        "openssl",
        "verify",
        "-x509_strict",
        "-check_ss_sig",
        "-CAfile",
        tmp_path / "ours" / "ca.pem",
        tmp_path / "ours" / "ca.pem",
    )
    accepted = ours(tmp_path / "theirs", "ca", request, None)
    assert accepted["reasons"] == []


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One CA made by them, one by us."""
    directory = tmp_path_factory.mktemp("ca")
    theirs(directory, "theirs", AUTHORITIES["p384"], None)
    ours(directory, "ours", AUTHORITIES["p384"], None)
    return {"theirs": directory / "theirs.pem", "ours": directory / "ours.pem"}


@pytest.mark.parametrize("signer", ["theirs", "ours"])
@pytest.mark.parametrize("name", LEAVES)
def test_certificates_agree(tmp_path: Path, authorities: dict[str, Path], name: str, signer: str) -> None:
    """Under a CA of either make, signed by both."""
    profile, request = LEAVES[name]
    ca = authorities[signer]
    theirs(tmp_path / "theirs", "x", request, ca, profile)
    result = ours(tmp_path / "ours", "x", request, ca, profile)
    mine = load(tmp_path / "ours" / "x.pem")
    assert properties(mine) == properties(load(tmp_path / "theirs" / "x.pem"))
    run("openssl", "verify", "-x509_strict", "-CAfile", ca, tmp_path / "ours" / "x.pem")
    told = json.loads(run("cfssl", "certinfo", "-cert", tmp_path / "ours" / "x.pem"))
    assert told["serial_number"] == result["serial"]
    assert told["not_after"] == result["not_after"]
    accepted = ours(tmp_path / "theirs", "x", request, ca, profile)
    assert accepted["reasons"] == []
    mine_csr, their_csr = (
        x509.load_pem_x509_csr((tmp_path / who / "x.csr").read_bytes()) for who in ("ours", "theirs")
    )
    assert mine_csr.subject.public_bytes() == their_csr.subject.public_bytes()
    assert {one.oid for one in mine_csr.extensions} == {one.oid for one in their_csr.extensions}


def test_a_ca_of_theirs_is_renewed_with_its_key_and_its_certificates_stay_valid(tmp_path: Path) -> None:
    request = AUTHORITIES["p384"]
    theirs(tmp_path, "ca", request, None)
    theirs(tmp_path, "x", LEAVES["kubernetes"][1], tmp_path / "ca.pem", "kubernetes")
    old = (tmp_path / "ca.pem").read_bytes()
    (tmp_path / "ca.pem").unlink()
    assert ours(tmp_path, "ca", request, None)["issued"]
    assert (tmp_path / "ca.pem").read_bytes() != old
    run("openssl", "verify", "-x509_strict", "-CAfile", tmp_path / "ca.pem", tmp_path / "x.pem")
    assert ours(tmp_path, "x", LEAVES["kubernetes"][1], tmp_path / "ca.pem", "kubernetes")["reasons"] == []


def test_a_ca_of_cfssl_with_a_duplicate_value_is_used(tmp_path: Path) -> None:
    """CFSSL writes `C` of two names twice, which the library that reads certificates here refuses to read."""
    request = {"CN": "demo", "names": [{"C": "US", "O": "a"}, {"C": "US", "O": "b"}], "ca": {"expiry": "87600h"}}
    leaf = {"CN": "leaf", "names": request["names"], "hosts": ["a.example.com"]}
    theirs(tmp_path, "ca", request, None)
    ca = tmp_path / "ca.pem"
    theirs(tmp_path, "x", {**leaf, "hosts": ["a.example.com", "a.example.com"]}, ca, "kubernetes")
    assert ours(tmp_path, "ca", request, None)["reasons"] == []
    assert ours(tmp_path, "x", leaf, ca, "kubernetes")["reasons"] == []
    assert ours(tmp_path, "y", LEAVES["kubernetes"][1], ca, "kubernetes")["issued"]
    # Renewed, it keeps the name as it is, and what it has signed stays valid: byte for byte, as Go compares.
    assert ours(tmp_path, "ca", {**request, "ca": {"expiry": "87600h", "pathlen": 3}}, None)["issued"]
    for name in ("x", "y"):
        run("openssl", "verify", "-x509_strict", "-CAfile", ca, tmp_path / f"{name}.pem")
        told = json.loads(run("cfssl", "certinfo", "-cert", tmp_path / f"{name}.pem"))
        assert told["issuer"]["names"] == json.loads(run("cfssl", "certinfo", "-cert", ca))["subject"]["names"]


@pytest.mark.parametrize("what", REFUSED)
def test_what_cfssl_accepts_and_we_refuse_is_refused_with_its_reason(
    tmp_path: Path, authorities: dict[str, Path], what: str
) -> None:
    request, option, reason = REFUSED[what]
    theirs(tmp_path / "theirs", "x", request, authorities["theirs"], "kubernetes")
    assert (tmp_path / "theirs" / "x.pem").exists()
    with pytest.raises(PkiError) as error:
        ours(tmp_path / "ours", "x", request, authorities["theirs"], "kubernetes")
    assert error.value.option == option
    assert reason in error.value.message
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    ("host", "asked", "found"),
    [
        ("svc.default.", "svc.default", False),
        ("svc.default", "svc.default", True),
        ("my_service.default.svc", "my_service.default.svc", True),
        ("a.*.example.com", "a.b.example.com", False),
    ],
)
def test_whom_a_verifier_finds(
    tmp_path: Path, authorities: dict[str, Path], host: str, asked: str, found: bool
) -> None:
    """Why names with a final dot and other wildcards are refused, and those with underscores are not."""
    theirs(tmp_path, "x", {"CN": "x", "hosts": [host]}, authorities["theirs"], "kubernetes")
    verify = ["openssl", "verify", "-verify_hostname", asked, "-CAfile", authorities["theirs"], tmp_path / "x.pem"]
    done = subprocess.run(verify, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode == 0) == found, done.stderr


def test_an_intermediate_may_ask_for_less_than_its_profile(tmp_path: Path, authorities: dict[str, Path]) -> None:
    """cfssl gencert refuses the section, and cfssl sign gives all of the profile; here the lesser of the two counts."""
    request = {"CN": "inter", "ca": {"expiry": "100h", "pathlen": 0, "pathlenzero": True}}
    made = ours(tmp_path, "x", request, authorities["theirs"], "intermediate")
    certificate = load(tmp_path / "x.pem")
    assert made["issued"]
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc == timedelta(hours=100)
    run("openssl", "verify", "-x509_strict", "-CAfile", authorities["theirs"], tmp_path / "x.pem")


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=30)
LABEL = st.from_regex(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
HOST = st.one_of(LABEL, LABEL.map(lambda name: f"*.{name}.example"), st.ip_addresses().map(str))

NAME = st.fixed_dictionaries({}, optional={"C": st.just("DE"), "O": TEXT, "OU": TEXT, "L": TEXT, "ST": TEXT})


def distinct(names: list[dict[str, str]]) -> bool:
    """No value twice: Go writes it twice, against the rules of a set."""
    pairs = [pair for name in names for pair in name.items()]
    return len(set(pairs)) == len(pairs)


@settings(deadline=None, max_examples=20, derandomize=True, database=None)
@given(
    request=st.fixed_dictionaries(
        {"CN": TEXT},
        optional={
            "names": st.lists(NAME, max_size=3).filter(distinct),
            "hosts": st.lists(HOST, max_size=5, unique=True),
        },
    ),
    profile=st.sampled_from(["kubernetes", "odd", "intermediate", None]),
)
def test_random_requests_agree(
    tmp_path_factory: pytest.TempPathFactory, authorities: dict[str, Path], request: dict[str, Any], profile: str | None
) -> None:
    directory = tmp_path_factory.mktemp("random")
    ca = authorities["theirs"]
    theirs(directory / "theirs", "x", request, ca, profile)
    ours(directory / "ours", "x", request, ca, profile)
    assert properties(load(directory / "ours" / "x.pem")) == properties(load(directory / "theirs" / "x.pem"))
    assert ours(directory / "theirs", "x", request, ca, profile)["reasons"] == []
