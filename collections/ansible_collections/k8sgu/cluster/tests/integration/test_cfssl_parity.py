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
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.running import default_cache_dir
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.cert_module import ensure

RELEASES = Path(__file__).resolve().parents[6] / "releases"
PACKAGES = "github.com/cloudflare/cfssl/cmd/"
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
# Where modules are not there yet, they are fetched.
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
