"""cfssl_cert on real files: what it makes, when it makes it again and why, what it leaves unchanged."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from pki_support import CONFIG, call, make_ca, make_leaf, picture

from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import certificates, cfssl_cert
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.errors import PkiError


def read(path: Path) -> certificates.Certificate:
    return certificates.read_certificate(path.read_bytes())


def at(monkeypatch: pytest.MonkeyPatch, moment: datetime) -> None:
    """Let the module believe that it is `moment`."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return moment

    monkeypatch.setattr(cfssl_cert, "datetime", Clock)


def config_with(**fields: Any) -> dict[str, Any]:
    profile = {**CONFIG["signing"]["profiles"]["server"], **fields}  # type: ignore[dict-item]
    return {"signing": {"default": CONFIG["signing"]["default"], "profiles": {"server": profile}}}


def test_files_and_modes(tmp_path: Path) -> None:
    pki = tmp_path / "new" / "pki"
    make_ca(pki)
    modes = {path.name: path.stat().st_mode & 0o777 for path in pki.iterdir()}
    assert modes == {"ca.pem": 0o644, "ca-key.pem": 0o600, "ca.csr": 0o644}
    assert pki.stat().st_mode & 0o777 == pki.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("algo", "size", "first_line"),
    [
        ("ecdsa", 256, "-----BEGIN EC PRIVATE KEY-----"),
        ("ecdsa", 384, "-----BEGIN EC PRIVATE KEY-----"),
        ("ecdsa", 521, "-----BEGIN EC PRIVATE KEY-----"),
        ("rsa", 2048, "-----BEGIN RSA PRIVATE KEY-----"),
        ("rsa", 3072, "-----BEGIN RSA PRIVATE KEY-----"),
        ("rsa", 4096, "-----BEGIN RSA PRIVATE KEY-----"),
        ("ed25519", 256, "-----BEGIN PRIVATE KEY-----"),
    ],
)
def test_every_kind_of_key(tmp_path: Path, algo: str, size: int, first_line: str) -> None:
    key = {"algo": algo, "size": size}
    make_ca(tmp_path, csr={"key": key})
    leaf = make_leaf(tmp_path, csr={"CN": "web", "key": key})
    assert leaf["changed"]
    assert read(tmp_path / "web.pem").key == (algo, size)
    assert (tmp_path / "web-key.pem").read_text().splitlines()[0] == first_line
    assert not make_leaf(tmp_path, csr={"CN": "web", "key": key})["changed"]


@pytest.mark.parametrize("sizes", [(2048, 2048, 2048), (2048, 3072, 2048)])
def test_rsa_keys_made_on_several_cores_stay_with_their_certificates(tmp_path: Path, sizes: tuple[int, ...]) -> None:
    """The keys are made largest first and in parallel, and so are the signatures: nothing must get mixed up."""
    key = {"algo": "rsa", "size": 2048}
    authority = {"name": "ca", "initca": True, "csr": {"CN": "ca", "key": key, "ca": {"expiry": "87600h"}}}
    leaves = [
        {"name": f"leaf{number}", "csr": {"CN": f"leaf{number}", "key": {"algo": "rsa", "size": size}}}
        for number, size in enumerate(sizes)
    ]
    options = {"certificates": [*leaves, authority], "ca": str(tmp_path / "ca.pem"), "config": CONFIG}
    assert call(tmp_path, profile="server", **options)["changed"]
    ca = read(tmp_path / "ca.pem").parsed
    publics = set()
    for name, size in [("ca", 2048), *((f"leaf{number}", size) for number, size in enumerate(sizes))]:
        made = read(tmp_path / f"{name}.pem")
        made_key = serialization.load_pem_private_key((tmp_path / f"{name}-key.pem").read_bytes(), None)
        assert made.key == ("rsa", size)
        assert made.parsed.public_key() == made_key.public_key()
        assert made.parsed.subject.rfc4514_string() == f"CN={name}"
        made.parsed.verify_directly_issued_by(ca)
        publics.add(made.public_key)
    assert len(publics) == 4
    assert not call(tmp_path, profile="server", **options)["changed"]


def test_what_is_returned(tmp_path: Path) -> None:
    make_ca(tmp_path, csr={"names": [{"O": "demo"}]})
    leaf = make_leaf(tmp_path)
    made = read(tmp_path / "web.pem")
    assert leaf["serial"] == str(made.serial)
    assert leaf["fingerprint_sha256"] == made.fingerprint_sha256
    assert leaf["days_left"] == 364
    assert leaf["hosts"] == ["web.example.com", "192.0.2.10"]
    assert (leaf["subject"], leaf["issuer"]) == ("CN=web", "O=demo, CN=ca")
    assert leaf["reasons"] == ["web-key.pem is missing", "web.pem is missing"]
    assert leaf["key_path"] == str(tmp_path / "web-key.pem")


Change = Callable[[Path], dict[str, Any]]
CHANGES: dict[str, tuple[Change, str]] = {
    "subject": (lambda pki: {"csr": {"CN": "other", "hosts": ["web.example.com", "192.0.2.10"]}}, "subject: is CN=web"),
    "hosts": (
        lambda pki: {"csr": {"CN": "web", "hosts": ["web.example.com", "192.0.2.11"]}},
        "hosts: to add 192.0.2.11; to drop 192.0.2.10",
    ),
    "usages": (lambda pki: {"profile": "client"}, "usages: to add client auth; to drop server auth"),
    "key type": (
        lambda pki: {
            "csr": {"CN": "web", "hosts": ["web.example.com", "192.0.2.10"], "key": {"algo": "ecdsa", "size": 384}}
        },
        "key: is ecdsa 256, to be ecdsa 384",
    ),
    "issuer": (
        lambda pki: {"ca": make_ca(pki, "ca2")["certificate_path"]},
        "issuer: is CN=ca, to be CN=ca2",
    ),
    "certificate gone": (lambda pki: (pki / "web.pem").unlink() or {}, "web.pem is missing"),
    "key gone": (lambda pki: (pki / "web-key.pem").unlink() or {}, "web-key.pem is missing"),
    "key of another": (
        lambda pki: make_leaf(pki, name="b") and (pki / "b-key.pem").replace(pki / "web-key.pem") and {},
        "do not belong together",
    ),
    "CA replaced": (
        lambda pki: [(pki / name).unlink() for name in ("ca.pem", "ca-key.pem")] and make_ca(pki) and {},
        "issuer: the key of ca.pem has been replaced",
    ),
    "constraints": (
        lambda pki: {"profile": "intermediate"},
        "constraints: is not a CA, to be one",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_issued_again_when_something_that_matters_differs(tmp_path: Path, what: str) -> None:
    """Four steps: check, run, check again, run again."""
    change, reason = CHANGES[what]
    make_ca(tmp_path)
    make_leaf(tmp_path)
    options = change(tmp_path)
    before = picture(tmp_path)
    predicted = make_leaf(tmp_path, check_mode=True, **options)
    assert picture(tmp_path) == before
    assert predicted["issued"]
    assert any(reason in one for one in predicted["reasons"])
    done = make_leaf(tmp_path, **options)
    assert done["reasons"] == predicted["reasons"]
    assert not make_leaf(tmp_path, check_mode=True, **options)["changed"]
    assert not make_leaf(tmp_path, **options)["changed"]


@pytest.mark.parametrize(
    "options",
    [
        {"csr": {"CN": "web", "hosts": ["192.0.2.10", "web.example.com", "web.example.com"]}},
        {"config": config_with(expiry="4380h")},
        {"config": config_with(ocsp_url="http://ocsp.example.com")},
        {"config": config_with(usages=["digital signature", "server auth", "key encipherment"])},
        {"renew_before": "100h"},
        {"rotate_key": True},
        {"force": True},
    ],
    ids=["order and repetition of hosts", "expiry", "addresses", "other words", "renew_before", "rotate_key", "force"],
)
def test_nothing_is_issued_if_nothing_relevant_differs(tmp_path: Path, options: dict[str, Any]) -> None:
    make_ca(tmp_path)
    make_leaf(tmp_path)
    before = picture(tmp_path)
    assert not make_leaf(tmp_path, **options)["changed"]
    assert picture(tmp_path) == before


def test_renewed_in_time_and_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_ca(tmp_path)
    first = make_leaf(tmp_path, renew_before="60d")
    now = datetime.now(timezone.utc)
    at(monkeypatch, now + timedelta(days=304))
    assert not make_leaf(tmp_path, renew_before="60d")["changed"]
    at(monkeypatch, now + timedelta(days=306))
    renewed = make_leaf(tmp_path, renew_before="60d")
    assert "renew_before" in renewed["reasons"][0]
    assert renewed["serial"] != first["serial"]
    at(monkeypatch, now + timedelta(days=306 + 366))
    assert make_leaf(tmp_path, renew_before="60d", check_mode=True)["reasons"][0].startswith("expired at")


def test_a_leaf_gets_a_new_key_and_a_ca_keeps_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_ca(tmp_path)
    make_leaf(tmp_path)
    make_leaf(tmp_path, name="account", rotate_key=False)
    keys = {name: (tmp_path / f"{name}-key.pem").read_bytes() for name in ("ca", "web", "account")}
    at(monkeypatch, datetime.now(timezone.utc) + timedelta(days=3640))
    assert make_ca(tmp_path)["issued"]
    make_leaf(tmp_path)
    make_leaf(tmp_path, name="account", rotate_key=False)
    assert (tmp_path / "ca-key.pem").read_bytes() == keys["ca"]
    assert (tmp_path / "account-key.pem").read_bytes() == keys["account"]
    assert (tmp_path / "web-key.pem").read_bytes() != keys["web"]


def test_what_a_renewed_ca_has_signed_stays(tmp_path: Path) -> None:
    make_ca(tmp_path)
    make_leaf(tmp_path)
    (tmp_path / "ca.pem").unlink()
    assert make_ca(tmp_path)["reasons"] == ["ca.pem is missing"]
    assert not make_leaf(tmp_path)["changed"]


def test_a_leaf_ends_with_its_young_ca_where_that_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of five years: made with the CA, an hour later, and until the CA is near its end."""
    make_ca(tmp_path, csr={"ca": {"expiry": "43800h"}})
    five_years = config_with(expiry="43800h")
    assert make_leaf(tmp_path, config=five_years)["issued"]
    now = datetime.now(timezone.utc)
    at(monkeypatch, now + timedelta(hours=1))
    with pytest.raises(PkiError, match="set cap_at_ca"):
        make_leaf(tmp_path, name="late", config=five_years)
    foretold = make_leaf(tmp_path, check_mode=True, name="late", config=five_years, cap_at_ca=True)
    late = make_leaf(tmp_path, name="late", config=five_years, cap_at_ca=True)
    end = read(tmp_path / "ca.pem").not_after
    assert read(tmp_path / "late.pem").not_after == end
    assert foretold["not_after"] == late["not_after"] == certificates.timestamp(end)
    # Shorter than asked for is no reason to issue it again, and nor is asking for less.
    for asked in (five_years, config_with(expiry="87600h"), config_with(expiry="8760h")):
        assert not make_leaf(tmp_path, name="late", config=asked, cap_at_ca=True)["changed"]
    assert not make_leaf(tmp_path, name="late", config=five_years)["changed"]
    # One that ends sooner than its CA is left alone.
    year = make_leaf(tmp_path, name="year", cap_at_ca=True)
    assert year["not_after"] < late["not_after"]
    at(monkeypatch, end - timedelta(hours=721))
    assert not make_leaf(tmp_path, name="late", config=five_years, cap_at_ca=True)["changed"]
    assert make_leaf(tmp_path, name="last", config=five_years, cap_at_ca=True)["issued"]
    at(monkeypatch, end - timedelta(hours=719))
    before = picture(tmp_path)
    for name in ("late", "new"):
        with pytest.raises(PkiError, match="is due for renewal at once"):
            make_leaf(tmp_path, name=name, config=five_years, cap_at_ca=True)
    assert picture(tmp_path) == before
    # The ways out of the message.
    assert make_leaf(tmp_path, name="new", config=five_years, cap_at_ca=True, renew_before="100h")["issued"]
    assert make_ca(tmp_path, csr={"ca": {"expiry": "87600h"}}, renew_before="720h")["issued"]
    assert make_leaf(tmp_path, name="late", config=five_years, cap_at_ca=True)["issued"]


def test_a_list_caps_its_leaves_and_not_its_root(tmp_path: Path) -> None:
    root = {"name": "ca", "initca": True, "csr": {"CN": "ca", "ca": {"expiry": "1000h"}}}
    options = {"ca": str(tmp_path / "ca.pem"), "config": CONFIG, "profile": "server", "cap_at_ca": True}
    made = call(tmp_path, certificates=[{"name": "web", "csr": {"CN": "web"}}, root], **options)["certificates"]
    assert made[0]["not_after"] == made[1]["not_after"]
    assert not call(tmp_path, certificates=[{"name": "web", "csr": {"CN": "web"}}, root], **options)["changed"]


def test_a_start_that_is_yet_to_come_is_no_reason_to_issue_again(tmp_path: Path) -> None:
    make_ca(tmp_path)
    start = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=30)
    fixed = config_with(not_before=start.isoformat())
    assert make_leaf(tmp_path, config=fixed)["issued"]
    assert read(tmp_path / "web.pem").not_before == start
    assert not make_leaf(tmp_path, config=fixed)["changed"]
    assert make_leaf(tmp_path)["reasons"] == [f"is not valid before {certificates.timestamp(start)}"]


def test_a_certificate_without_a_subject_is_one_by_its_hosts(tmp_path: Path) -> None:
    make_ca(tmp_path)
    hosts = {"hosts": ["web.example.com"]}
    assert make_leaf(tmp_path, csr=hosts)["subject"] == "(none)"
    names = read(tmp_path / "web.pem").parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical
    assert not make_leaf(tmp_path, csr=hosts)["changed"]
    assert make_leaf(tmp_path, csr={"CN": "web", **hosts})["reasons"] == ["subject: is (none), to be CN=web"]


def chain(pki: Path) -> list[dict[str, Any]]:
    """Leaf, intermediate and root, in the wrong order."""
    return [
        {
            "name": "leaf",
            "ca": str(pki / "inter.pem"),
            "profile": "server",
            "csr": {"CN": "leaf", "hosts": ["a.example"]},
        },
        {"name": "inter", "profile": "intermediate", "csr": {"CN": "inter"}},
        {"name": "root", "initca": True, "passphrase": "sesame", "csr": {"CN": "root", "ca": {"expiry": "87600h"}}},
    ]


def test_a_whole_chain_in_one_call(tmp_path: Path) -> None:
    shared = {"ca": str(tmp_path / "root.pem"), "config": CONFIG}
    predicted = call(tmp_path, check_mode=True, certificates=chain(tmp_path), **shared)
    assert not list(tmp_path.iterdir())
    done = call(tmp_path, certificates=chain(tmp_path), **shared)
    for before, after in zip(predicted["certificates"], done["certificates"]):
        assert {**after, "serial": None, "fingerprint_sha256": None} == before
    leaf, inter, root = (read(tmp_path / f"{name}.pem") for name in ("leaf", "inter", "root"))
    assert leaf.signed_by(inter.parsed.public_key())  # type: ignore[arg-type]
    assert inter.signed_by(root.parsed.public_key())  # type: ignore[arg-type]
    assert (inter.pathlen, root.pathlen, root.authority_key_id) == (0, None, "")
    assert leaf.authority_key_id == inter.subject_key_id
    assert not call(tmp_path, certificates=chain(tmp_path), **shared)["changed"]


def test_check_mode_foretells_what_follows_from_a_new_ca(tmp_path: Path) -> None:
    shared = {"ca": str(tmp_path / "root.pem"), "config": CONFIG}
    call(tmp_path, certificates=chain(tmp_path), **shared)
    changed = chain(tmp_path)
    changed[2]["csr"] = {"CN": "root", "key": {"algo": "ecdsa", "size": 384}, "ca": {"expiry": "87600h"}}
    predicted = call(tmp_path, check_mode=True, certificates=changed, **shared)
    done = call(tmp_path, certificates=changed, **shared)
    reasons = [one["reasons"] for one in done["certificates"]]
    # The intermediate keeps its key, so the leaf stays.
    assert (
        reasons
        == [one["reasons"] for one in predicted["certificates"]]
        == [
            [],
            ["issuer: the key of root.pem has been replaced"],
            ["key: is ecdsa 256, to be ecdsa 384"],
        ]
    )
    assert not call(tmp_path, certificates=changed, **shared)["changed"]


def test_removal_in_four_steps(tmp_path: Path) -> None:
    make_ca(tmp_path)
    make_leaf(tmp_path)
    before = picture(tmp_path)
    assert call(tmp_path, check_mode=True, name="web", state="absent")["changed"]
    assert picture(tmp_path) == before
    assert call(tmp_path, name="web", state="absent")["changed"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca-key.pem", "ca.csr", "ca.pem"]
    assert not call(tmp_path, check_mode=True, name="web", state="absent")["changed"]
    assert not call(tmp_path, name="web", state="absent")["changed"]


def test_backup_keeps_what_is_replaced(tmp_path: Path) -> None:
    make_ca(tmp_path)
    make_leaf(tmp_path)
    old = (tmp_path / "web-key.pem").read_bytes()
    done = make_leaf(tmp_path, profile="client", backup=True)
    assert len(done["backup_files"]) == 3
    copies = [Path(copy) for copy in done["backup_files"] if "-key" in copy]
    assert copies[0].read_bytes() == old
    assert copies[0].stat().st_mode & 0o777 == 0o600


def test_a_key_is_encrypted_and_stays_the_same_key(tmp_path: Path) -> None:
    make_ca(tmp_path)
    make_leaf(tmp_path)
    assert make_ca(tmp_path, passphrase="sesame")["reasons"] == ["ca-key.pem is not encrypted"]
    pem = (tmp_path / "ca-key.pem").read_bytes()
    assert pem.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")
    serialization.load_pem_private_key(pem, b"sesame")
    assert not make_ca(tmp_path, passphrase="sesame")["changed"]
    assert not make_leaf(tmp_path)["changed"], "with nothing to sign the CA's key is not needed"
    assert make_leaf(tmp_path, name="b", ca_passphrase="sesame")["issued"]


def test_open_keys_are_closed_and_requests_restored(tmp_path: Path) -> None:
    make_ca(tmp_path)
    (tmp_path / "ca-key.pem").chmod(0o644)
    (tmp_path / "ca.csr").unlink()
    certificate = (tmp_path / "ca.pem").read_bytes()
    done = make_ca(tmp_path)
    assert done["reasons"] == ["ca.csr is missing", "ca-key.pem is accessible to others"]
    assert not done["issued"]
    assert (tmp_path / "ca-key.pem").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "ca.pem").read_bytes() == certificate
    assert not make_ca(tmp_path)["changed"]


def test_a_request_from_elsewhere_is_signed(tmp_path: Path) -> None:
    make_ca(tmp_path)
    make_leaf(tmp_path, name="other")
    request = (tmp_path / "other.csr").rename(tmp_path / "request.csr")
    options = {"csr": None, "csr_file": str(request)}
    done = make_leaf(tmp_path, **options)
    assert done["key_path"] is None
    assert done["hosts"] == ["web.example.com", "192.0.2.10"]
    assert not (tmp_path / "web-key.pem").exists()
    assert read(tmp_path / "web.pem").public_key == read(tmp_path / "other.pem").public_key
    assert not make_leaf(tmp_path, **options)["changed"]


def test_a_diff_shows_properties_and_never_a_key(tmp_path: Path) -> None:
    make_ca(tmp_path)
    result = call(tmp_path, name="web", csr={"CN": "web"}, ca=str(tmp_path / "ca.pem"), passphrase="sesame")
    diff = result["diff"]["before"] + result["diff"]["after"]
    assert "subject: CN=web" in diff
    assert "PRIVATE KEY" not in str(result)
    assert "sesame" not in str(result)


def test_force_replaces_what_cannot_be_read(tmp_path: Path) -> None:
    make_ca(tmp_path)
    make_leaf(tmp_path)
    for name in ("web.pem", "web-key.pem", "web.csr"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:100])
    done = make_leaf(tmp_path, force=True)
    assert done["issued"]
    assert not make_leaf(tmp_path)["changed"]


def test_a_ca_whose_key_is_gone_is_not_replaced_unasked(tmp_path: Path) -> None:
    make_ca(tmp_path)
    (tmp_path / "ca-key.pem").unlink()
    with pytest.raises(Exception, match=r"whose key ca-key\.pem is missing"):
        make_ca(tmp_path)
    assert make_ca(tmp_path, force=True)["issued"]
