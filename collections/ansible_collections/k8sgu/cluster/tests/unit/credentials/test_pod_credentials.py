# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""pod_credentials on directories as the kubelet makes them, and the ids of keys against another implementation."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from ansible_collections.k8sgu.cluster.plugins.filter.key_ids import key_ids
from ansible_collections.k8sgu.cluster.plugins.module_utils._credentials import run as runs
from ansible_collections.k8sgu.cluster.plugins.module_utils._credentials import volumes
from ansible_collections.k8sgu.cluster.plugins.module_utils._credentials.options import ARGUMENT_SPEC
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call

ISSUER = "https://kubernetes.default.svc.cluster.local"
SIGNATURE = "c2lnbmF0dXJl"


def authority(name: str) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number(), now)
    made = builder.not_valid_after(now + datetime.timedelta(days=1)).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


OLD, NEW, OTHER = authority("old"), authority("new"), authority("of a vault")


def fingerprint(pem: str) -> str:
    return x509.load_pem_x509_certificate(pem.encode()).fingerprint(hashes.SHA256()).hex()


def part(data: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(data).encode()).decode().rstrip("=")


def token(pod: str = "web-0", kid: str = "new", left_s: float = 3000, **payload: Any) -> str:
    claims = {
        "aud": [ISSUER],
        "iss": ISSUER,
        "exp": int(time.time() + left_s),
        "kubernetes.io": {"namespace": "shop", "pod": {"name": pod, "uid": "u"}},
        **payload,
    }
    return f"{part({'alg': 'RS256', 'kid': kid})}.{part(claims)}.{SIGNATURE}"


class Node:
    """A kubelet's directory of pods."""

    def __init__(self, path: Path) -> None:
        self.path, self.writes = path, 0

    def write(self, uid: str, volume: str, kind: str = "projected", **files: str) -> Path:
        """As the kubelet's AtomicWriter does: a new directory, the link, and the earlier directory is gone."""
        place = self.path / uid / "volumes" / f"kubernetes.io~{kind}" / volume
        self.writes += 1
        name = f"..2026_01_01_00_00_00.{self.writes}"
        for file, text in files.items():
            at = place / name / file.replace("__", "/")
            at.parent.mkdir(parents=True, exist_ok=True)
            at.write_text(text)
        before = os.readlink(place / "..data") if (place / "..data").is_symlink() else ""
        (place / "..data_tmp").symlink_to(name)
        (place / "..data_tmp").rename(place / "..data")
        for top in {file.partition("__")[0] for file in files}:
            if not (place / top).is_symlink():
                (place / top).symlink_to(f"..data/{top}")
        if before:
            shutil.rmtree(place / before)
        return place

    def look(self, check_mode: bool = True, **options: Any) -> tuple[dict[str, Any], list[str]]:
        given = {name: option.get("default") for name, option in ARGUMENT_SPEC.items()}
        call = Call({**given, "pods_dir": str(self.path), **options}, check_mode)
        return runs.run(call), call.warnings

    def lags(self, **options: Any) -> tuple[str, list[dict[str, str]]]:
        with pytest.raises(runs.CredentialsError) as failed:
            self.look(**options)
        assert failed.value.result["lagging"] and SIGNATURE not in str(failed.value) + json.dumps(failed.value.result)
        return str(failed.value), failed.value.result["lagging"]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    (tmp_path / "pods").mkdir()
    return Node(tmp_path / "pods")


# The text of files that a pod may have; "ca.crt" is written so since it is no name of Python's.
def files(ca: str | None = None, **more: str) -> dict[str, str]:
    return {**({} if ca is None else {"ca.crt": ca}), **more}


def test_pods_that_have_everything(node: Node) -> None:
    node.write("a", "kube-api-access-x", **files(NEW + OLD, token=token(), namespace="shop"))
    node.write("b", "certs", **files(OLD + "\n" + NEW + OLD))
    (node.path / "c" / "volumes" / "kubernetes.io~empty-dir" / "scratch").mkdir(parents=True)
    (node.path / "stray").write_text("a file")
    result, told = node.look(authorities=[OLD, NEW], key_ids=["new"])
    assert result == {"changed": False, "pods": 2, "lagging": []} and told == []
    assert node.look(authorities=[OLD + NEW])[0]["pods"] == 2


@pytest.mark.parametrize(
    ("has", "said"),
    [
        (OLD, f"has SHA-256 {fingerprint(OLD)[:16]}"),
        (NEW + OLD, " and SHA-256 "),
        (OTHER, f"has SHA-256 {fingerprint(OTHER)[:16]}"),
        ("", "holds no CERTIFICATE"),
        ("-----BEGIN CERTIFICATE-----\n", "holds no CERTIFICATE"),
        (NEW + "-----BEGIN CERTIFICATE-----\n", "has a CERTIFICATE without its end"),
        ("-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n", "has a CERTIFICATE that is not base64"),
        (NEW.replace("CERTIFICATE", "PRIVATE KEY"), "holds a PRIVATE KEY, where only a CERTIFICATE belongs"),
    ],
    ids=["old", "both", "other", "empty", "cut off", "second cut off", "garbage", "a key"],
)
def test_an_authority_that_is_not_exactly_the_wanted_one(node: Node, has: str, said: str) -> None:
    node.write("a", "kube-api-access-x", **files(has, token=token()))
    text, lagging = node.lags(authorities=[NEW])
    [lag] = lagging
    assert said in lag.pop("has")
    assert lag == {"pod": "shop/web-0", "volume": "kube-api-access-x", "file": "ca.crt"}
    for part_of in (
        "1 of 1 pods here do not have what they should:",
        "Pod shop/web-0, volume kube-api-access-x: ca.crt",
        f"exactly SHA-256 {fingerprint(NEW)[:16]};",
        "kubectl --namespace shop delete pod web-0",
        "journalctl --unit kubelet",
        "ignore: [shop/web-0]",
    ):
        assert part_of in text, text
    assert "Each token" not in text
    assert node.look(key_ids=["new"])[0]["lagging"] == []
    assert node.look(authorities=[NEW], ignore=["shop/web-0"])[0]["pods"] == 0
    assert node.look(authorities=[NEW], ignore=["a"])[0]["pods"] == 0


@pytest.mark.parametrize(
    ("volume", "given", "counts"),
    [
        ("certs", files(OTHER), False),
        ("certs", files(NEW + OTHER), True),
        ("certs", files(OTHER, token=token(aud=["vault"])), False),
        ("certs", files(OTHER, token=token(aud=["vault", ISSUER])), True),
        ("certs", files(OTHER, token=token(aud=ISSUER)), True),
        ("kube-api-access-y", files(OTHER), True),
        ("certs", {"other.crt": OLD}, False),
        ("certs", {"deep__er__ca.crt": NEW + OLD}, True),
    ],
    ids=["other", "shared", "vault", "several audiences", "one audience", "every pod's", "other name", "deep"],
)
def test_which_files_are_authorities_of_the_api(node: Node, volume: str, given: dict[str, str], counts: bool) -> None:
    node.write("a", volume, **given)
    if counts:
        [lag] = node.lags(authorities=[NEW])[1]
        assert lag["file"] == next(iter(given)).replace("__", "/")
    else:
        assert node.look(authorities=[NEW])[0]["lagging"] == []


def test_tokens_of_another_key_under_any_name_and_audience(node: Node) -> None:
    node.write("a", "kube-api-access-x", token=token(kid="old"))
    node.write("a", "vault", vault__jwt=token(kid="older", aud=["vault"]), text="a.b.c", number="1.2.3")
    node.write("b", "kube-api-access-y", token=token("web-1"))
    node.write("c", "none", token=token("web-2", kid=""))
    text, lagging = node.lags(key_ids=["new", "newer"])
    assert [(lag["pod"], lag["file"], lag["has"]) for lag in lagging] == [
        ("shop/web-0", "token", "is signed by the key old"),
        ("shop/web-0", "vault/jwt", "is signed by the key older"),
        ("shop/web-2", "token", "does not say by which key it is signed"),
    ]
    assert "2 of 3 pods" in text and "signed by new or newer;" in text and "when it is restarted" in text
    assert "Each ca.crt" not in text and "Secret" not in text
    assert node.look(key_ids=["old", "older", "new", ""][:3], ignore=["c"])[0]["pods"] == 2


def test_a_token_of_a_secret_is_never_renewed(node: Node) -> None:
    legacy = {
        "iss": "kubernetes/serviceaccount",
        "kubernetes.io/serviceaccount/namespace": "shop",
        "kubernetes.io/serviceaccount/secret.name": "robot",
    }
    text = f"{part({'kid': 'old'})}.{part(legacy)}.{SIGNATURE}"
    node.write("uid-a", "robot", "secret", **files(OLD, token=text))
    said, lagging = node.lags(key_ids=["new"])
    assert [lag["pod"] for lag in lagging] == ["uid-a"]
    assert "delete that Secret and make it again" in said and "delete the pod, whose" in said
    assert len(node.lags(key_ids=["new"], authorities=[NEW])[1]) == 2


def test_a_jwt_of_somebody_else_is_none_of_ours(node: Node) -> None:
    node.write("a", "jwt", token=f"{part({'kid': 'x'})}.{part({'iss': 'https://login.example'})}.{SIGNATURE}")
    node.write("b", "jwt", token=f"{part([1])}.{part('text')}.{SIGNATURE}", other="~.~.~")
    assert node.look(key_ids=["new"])[0]["pods"] == 0


def test_pods_that_have_ended_hold_nothing_up(node: Node) -> None:
    node.write("a", "kube-api-access-x", **files(OLD, token=token("gone", "old", left_s=-1)))
    torn_down = node.write("b", "kube-api-access-y", **files(OLD, token=token("torn", "old")))
    shutil.rmtree(torn_down)
    torn_down.mkdir()  # the mount is gone
    being = node.write("c", "kube-api-access-z", **files(OLD, token=token("being", "old")))
    shutil.rmtree(being / os.readlink(being / "..data"))
    result, told = node.look(authorities=[NEW], key_ids=["new"])
    assert (result["pods"], result["lagging"]) == (0, [])
    assert len(told) == 1 and "have all expired were not looked at: shop/gone. They have ended" in told[0]


def test_only_the_first_pods_are_shown(node: Node) -> None:
    for number in range(7):
        node.write(f"u{9 - number}", "kube-api-access-x", token=token(f"web-{number}", "old"))
        node.write(f"e{number}", "kube-api-access-x", token=token(f"gone-{number}", "old", left_s=-1))
    given = {name: option.get("default") for name, option in ARGUMENT_SPEC.items()}
    call = Call({**given, "pods_dir": str(node.path), "key_ids": ["new"]}, True)
    with pytest.raises(runs.CredentialsError) as failed:
        runs.run(call)
    text = str(failed.value)
    assert "7 of 7 pods" in text and text.count("  Pod shop/web-") == 5 and "web-4," in text and "and 2 more" in text
    assert len(failed.value.result["lagging"]) == 7 and "shop/gone-4 and 2 more." in call.warnings[0]


def test_it_is_waited_until_the_last_has_followed(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.write("a", "kube-api-access-x", **files(OLD, token=token()))
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            node.write("a", "kube-api-access-x", **files(NEW, token=token()))

    monkeypatch.setattr(time, "sleep", sleep)
    assert node.look(check_mode=False, authorities=[NEW], interval=1)[0]["lagging"] == []
    assert slept == [1, 1, 1]
    text, _lagging = node.lags(check_mode=False, authorities=[OLD], timeout=0)
    assert len(slept) == 3 and "what they should:" in text


def test_the_error_says_how_long_it_waited(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.write("a", "kube-api-access-x", token=token(kid="old"))
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    assert "what they should after 7 s:" in node.lags(check_mode=False, key_ids=["new"], timeout=7)[0]
    assert now == [7.0]


def test_files_that_are_written_anew_while_they_are_read(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory goes between the link and the files, twice; then the volume is read as it is."""
    node.write("a", "kube-api-access-x", **files(OLD, token=token(kid="old")))
    real, left = volumes._files, [2]

    def racing(top: Path) -> Any:
        if left[0]:
            left[0] -= 1
            node.write("a", "kube-api-access-x", **files(NEW, token=token()))
        yield from real(top)

    monkeypatch.setattr(volumes, "_files", racing)
    result, _told = node.look(authorities=[NEW], key_ids=["new"])
    assert (result["pods"], result["lagging"], left) == (1, [], [0])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "authorities, key_ids: both are empty"),
        ({"key_ids": ["new"], "timeout": -1}, "timeout: -1 seconds are too few; give at least 0"),
        ({"key_ids": ["new"], "interval": 0}, "interval: 0 seconds are too few; give at least 1"),
        ({"authorities": [NEW, "text"]}, "authorities[1]: holds no CERTIFICATE; give certificates as PEM text"),
        ({"key_ids": ["new", "a b"]}, "key_ids[1]: is not the id of a key; make it of the public key by the filter"),
        ({"key_ids": [""]}, "key_ids[0]: is not the id of a key"),
        (
            {"key_ids": ["new"], "pods_dir": "/nowhere/pods"},
            "pods_dir: /nowhere/pods: No such file or directory; is it",
        ),
    ],
)
def test_options_that_cannot_be(node: Node, options: dict[str, Any], said: str) -> None:
    with pytest.raises(runs.CredentialsError) as failed:
        node.look(**options)
    assert said in str(failed.value) and failed.value.result == {}


def test_key_ids_are_those_of_the_api_server() -> None:
    """Hashed with another library's encoding; the API server's own is held against it in the integration tests."""
    keys = [
        rsa.generate_private_key(65537, 2048).public_key(),
        ec.generate_private_key(ec.SECP256R1()).public_key(),
    ]
    encoding, form = serialization.Encoding, serialization.PublicFormat.SubjectPublicKeyInfo
    texts = [key.public_bytes(encoding.PEM, form).decode() for key in keys]
    digests = [hashlib.sha256(key.public_bytes(encoding.DER, form)).digest() for key in keys]
    wanted = [base64.urlsafe_b64encode(digest).decode().rstrip("=") for digest in digests]
    assert key_ids("".join(texts)) == wanted
    assert key_ids(texts[1] + "\n" + texts[0] + texts[1]) == [wanted[1], wanted[0]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "takes the PEM text of public keys"),
        ("", "holds no PUBLIC KEY"),
        (OLD, "holds a CERTIFICATE, where only a PUBLIC KEY belongs"),
        (OLD.replace("CERTIFICATE", "PRIVATE KEY"), "holds a PRIVATE KEY"),
    ],
    ids=["nothing", "empty", "a certificate", "a private key"],
)
def test_texts_that_are_no_public_keys(text: Any, said: str) -> None:
    with pytest.raises(AnsibleFilterError, match=said):
        key_ids(text)
