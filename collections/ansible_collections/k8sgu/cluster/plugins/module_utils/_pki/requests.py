# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A certificate request in CFSSL's JSON form.

Upstream: CertificateRequest in https://github.com/cloudflare/cfssl/blob/master/csr/csr.go.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple, Tuple

from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import documents
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.durations import parse_duration
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.errors import PkiError
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.hosts import Host, classify_host

# Relative distinguished names in order, each a tuple of (object identifier, value).
Subject = Tuple[Tuple[Tuple[str, str], ...], ...]

# In the order in which Go's crypto/x509/pkix encodes them, with the upper bounds of RFC 5280, appendix A.
_NAME_PARTS = (
    ("C", "2.5.4.6", 2),
    ("ST", "2.5.4.8", 128),
    ("L", "2.5.4.7", 128),
    ("O", "2.5.4.10", 64),
    ("OU", "2.5.4.11", 64),
)
_COMMON_NAME, _SERIAL_NUMBER, _EMAIL = "2.5.4.3", "2.5.4.5", "1.2.840.113549.1.9.1"
OID_NAMES = {
    "2.5.4.6": "C",
    "2.5.4.8": "ST",
    "2.5.4.7": "L",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    _COMMON_NAME: "CN",
    _SERIAL_NUMBER: "serialNumber",
    _EMAIL: "emailAddress",
}

KEY_SIZES = {"ecdsa": (256, 384, 521), "ed25519": (256,)}
_RSA_SMALLEST, _RSA_LARGEST = 2048, 8192


class KeySpec(NamedTuple):
    """Algorithm (ecdsa, rsa, ed25519) and size in bits."""

    algo: str
    size: int

    def __str__(self) -> str:
        return self.algo if self.algo == "ed25519" else f"{self.algo} {self.size}"


@dataclass(frozen=True)
class CaSection:
    """The `ca` section of a request: path length (None: no limit) and life."""

    pathlen: int | None = None
    expiry: timedelta | None = None
    backdate: timedelta | None = None


@dataclass(frozen=True)
class Request:
    """A validated request. If it was made elsewhere, `key` is None and `pem` is the request itself."""

    subject: Subject
    hosts: tuple[Host, ...]
    key: KeySpec | None
    ca: CaSection | None
    crl_url: str = ""
    pem: bytes | None = None
    public_key: bytes = b""
    # Key usages and extended key usages that such a request asks for.
    asked_usages: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())


def parse_request(document: object, option: str) -> Request:
    """The request in `document`. Raises PkiError that names the wrong part of `option`."""
    if document is None or document == {}:
        raise PkiError(option, "is empty; give at least CN, as in {CN: web, hosts: [web.example.com]}")
    fields = documents.fold(
        document,
        ("CN", "names", "hosts", "key", "ca", "serialnumber", "crl_url"),
        option,
        unsupported=("extensions", "delegation_enabled"),
    )
    subject = _subject(fields, option)
    hosts = _hosts(fields.get("hosts"), f"{option}.hosts")
    if not subject and not hosts:
        raise PkiError(option, "names neither a subject nor a host; give CN, names with at least one part, or hosts")
    return Request(
        subject=subject,
        hosts=hosts,
        key=_key(fields.get("key"), f"{option}.key"),
        ca=_ca(fields["ca"], f"{option}.ca") if fields.get("ca") is not None else None,
        crl_url=documents.text_of(fields.get("crl_url"), f"{option}.crl_url"),
    )


def _subject(fields: dict[str, object], option: str) -> Subject:
    """Values of one kind share one relative name, as in Go's encoding; each email address has its own.

    A duplicate value is encoded once, since a set cannot hold it twice; CFSSL writes it twice.
    """
    values: dict[str, list[str]] = {}
    for index, name in enumerate(documents.list_of(fields.get("names"), f"{option}.names")):
        where = f"{option}.names[{index}]"
        parts = documents.fold(
            name, [part for part, _oid, _limit in _NAME_PARTS] + ["E"], where, unsupported=("OID", "SerialNumber")
        )
        for part, oid, limit in (*_NAME_PARTS, ("E", _EMAIL, 255)):
            text = documents.text_of(parts.get(part), f"{where}.{part}")
            if not text.strip():
                continue
            if len(text) > limit:
                raise PkiError(f"{where}.{part}", f"has {len(text)} characters; at most {limit} are allowed")
            if part == "C" and not (len(text) == 2 and text.isascii() and text.isalpha()):
                raise PkiError(f"{where}.C", f"{text!r} is not a country; give its two letters, such as US")
            values.setdefault(oid, []).append(text)
    common_name = documents.text_of(fields.get("CN"), f"{option}.CN")
    if len(common_name) > 64:
        raise PkiError(f"{option}.CN", f"has {len(common_name)} characters; at most 64 are allowed")
    if common_name.strip():
        values[_COMMON_NAME] = [common_name]
    serial = documents.text_of(fields.get("serialnumber"), f"{option}.serialnumber")
    if len(serial) > 64:
        raise PkiError(f"{option}.serialnumber", f"has {len(serial)} characters; at most 64 are allowed")
    if serial:
        values[_SERIAL_NUMBER] = [serial]
    for oid, texts in values.items():
        if any(not character.isprintable() for text in texts for character in text):
            raise PkiError(option, f"{OID_NAMES[oid]} of its subject has a control character; take it out")
    order = [oid for _part, oid, _limit in _NAME_PARTS] + [_COMMON_NAME, _SERIAL_NUMBER]
    together = [tuple((oid, value) for value in dict.fromkeys(values[oid])) for oid in order if oid in values]
    return (*together, *(((_EMAIL, value),) for value in dict.fromkeys(values.get(_EMAIL, ()))))


def _hosts(value: object, option: str) -> tuple[Host, ...]:
    hosts = documents.list_of(value, option)
    return tuple(dict.fromkeys(classify_host(host, f"{option}[{index}]") for index, host in enumerate(hosts)))


def _key(value: object, option: str) -> KeySpec:
    if value is None:
        return KeySpec("ecdsa", 256)
    fields = documents.fold(value, ("algo", "size"), option)
    algo = documents.text_of(fields.get("algo"), f"{option}.algo").lower() or "ecdsa"
    if algo not in ("ecdsa", "rsa", "ed25519"):
        raise PkiError(f"{option}.algo", f"{algo!r} is not known; use ecdsa, rsa or ed25519")
    if fields.get("size") in (None, ""):
        return KeySpec(algo, {"ecdsa": 256, "rsa": 2048, "ed25519": 256}[algo])
    size = documents.number_of(fields["size"], f"{option}.size")
    if algo == "rsa":
        if not _RSA_SMALLEST <= size <= _RSA_LARGEST:
            raise PkiError(f"{option}.size", f"{size} is not a size of rsa; use {_RSA_SMALLEST} to {_RSA_LARGEST}")
        return KeySpec(algo, size)
    if algo == "ed25519":
        # The size of such a key is fixed; CFSSL ignores the number.
        return KeySpec(algo, 256)
    if size not in KEY_SIZES[algo]:
        raise PkiError(f"{option}.size", f"{size} is not a size of {algo}; use 256, 384 or 521")
    return KeySpec(algo, size)


def _ca(value: object, option: str) -> CaSection:
    fields = documents.fold(value, ("pathlen", "pathlenzero", "expiry", "backdate"), option)
    zero = documents.flag_of(fields.get("pathlenzero", False), f"{option}.pathlenzero")
    return CaSection(
        pathlen=path_length(fields.get("pathlen", 0), zero, f"{option}.pathlen"),
        expiry=parse_duration(fields["expiry"], f"{option}.expiry") if fields.get("expiry") else None,
        # An empty section counts as not given, as in CFSSL.
        backdate=parse_duration(fields["backdate"], f"{option}.backdate", zero=True) or None
        if fields.get("backdate")
        else None,
    )


def path_length(value: object, zero: bool, option: str) -> int | None:
    """How many CAs may follow. None for any number: that is what 0 without `zero` means, and -1 in Go."""
    length = 0 if value == -1 and not isinstance(value, bool) else documents.number_of(value, option)
    return length if length or (zero and value != -1) else None


def format_subject(subject: Subject) -> str:
    """`O=system:nodes, CN=system:node:worker-1`; values of one relative name are joined by +; else `(none)`."""
    if not subject:
        return "(none)"
    return ", ".join(
        "+".join(f"{OID_NAMES.get(oid, oid)}={_escape(value)}" for oid, value in relative) for relative in subject
    )


def _escape(value: str) -> str:
    return "".join(f"\\{character}" if character in ',+\\"' else character for character in value)
