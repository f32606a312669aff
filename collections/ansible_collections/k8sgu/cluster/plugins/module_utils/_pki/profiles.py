# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""CFSSL's signing configuration: default and named profiles.

Upstream: SigningProfile in https://github.com/cloudflare/cfssl/blob/master/config/config.go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import documents
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.durations import parse_duration
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.errors import PkiError
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.requests import path_length

# CFSSL's names of the bits of RFC 5280, 4.2.1.3, and those of the cryptography library, which we use.
KEY_USAGES = {
    "signing": "digital_signature",
    "digital signature": "digital_signature",
    "content commitment": "content_commitment",
    "content committment": "content_commitment",  # how CFSSL spelled it before 1.3
    "key encipherment": "key_encipherment",
    "key agreement": "key_agreement",
    "data encipherment": "data_encipherment",
    "cert sign": "key_cert_sign",
    "crl sign": "crl_sign",
    "encipher only": "encipher_only",
    "decipher only": "decipher_only",
}
# CFSSL's names of the object identifiers of RFC 5280, 4.2.1.12, and of Microsoft and Netscape.
EXTENDED_KEY_USAGES = {
    "any": "2.5.29.37.0",
    "server auth": "1.3.6.1.5.5.7.3.1",
    "client auth": "1.3.6.1.5.5.7.3.2",
    "code signing": "1.3.6.1.5.5.7.3.3",
    "email protection": "1.3.6.1.5.5.7.3.4",
    "s/mime": "1.3.6.1.5.5.7.3.4",
    "ipsec end system": "1.3.6.1.5.5.7.3.5",
    "ipsec tunnel": "1.3.6.1.5.5.7.3.6",
    "ipsec user": "1.3.6.1.5.5.7.3.7",
    "timestamping": "1.3.6.1.5.5.7.3.8",
    "ocsp signing": "1.3.6.1.5.5.7.3.9",
    "microsoft sgc": "1.3.6.1.4.1.311.10.3.3",
    "netscape sgc": "2.16.840.1.113730.4.1",
}
_BACKDATE = timedelta(minutes=5)
_PROFILE_KEYS = (
    "usages",
    "expiry",
    "backdate",
    "not_before",
    "not_after",
    "ca_constraint",
    "issuer_urls",
    "ocsp_url",
    "crl_url",
    "ocsp_no_check",
    "name_whitelist",
    "CSRWhitelist",
    # These have no meaning for certificates that are signed here.
    "auth_key",
    "prev_auth_key",
    "allowed_extensions",
    "cert_store",
    "ignored_lints",
    "ignored_lint_sources",
)
_ELSEWHERE = (
    "remote",
    "auth_remote",
    "ct_log_servers",
    "policies",
    "copy_extensions",
    "lint_error_level",
    "ClientProvidesSerialNumbers",
)
# Go's character classes that Python's regular expressions lack.
_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "digit": "0-9",
    "lower": "a-z",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}
_WHITELIST_KEYS = (
    "Subject",
    "PublicKeyAlgorithm",
    "PublicKey",
    "SignatureAlgorithm",
    "DNSNames",
    "IPAddresses",
    "EmailAddresses",
    "URIs",
)


@dataclass(frozen=True)
class Profile:
    """What a certificate of this profile may be. `option` is the option that holds it, for errors."""

    option: str
    key_usages: frozenset[str]
    extended_key_usages: tuple[str, ...]
    expiry: timedelta
    backdate: timedelta = _BACKDATE
    is_ca: bool = False
    pathlen: int | None = None
    not_before: datetime | None = None
    not_after: datetime | None = None
    issuer_urls: tuple[str, ...] = ()
    ocsp_url: str = ""
    crl_url: str = ""
    ocsp_no_check: bool = False
    name_whitelist: str = ""
    # Kinds of hosts, and "subject", that a request may not choose; None if it may choose everything.
    request_may_bring: frozenset[str] | None = None


def default_profile() -> Profile:
    """The profile with which CFSSL signs when nothing is configured."""
    return _profile(
        {"usages": ["signing", "key encipherment", "server auth", "client auth"], "expiry": "8760h"}, "config", {}
    )


def initca_profile(
    pathlen: int | None, expiry: timedelta | None, backdate: timedelta | None, crl_url: str, option: str
) -> Profile:
    """The profile of `cfssl gencert -initca`, with the settings of the request's `ca` section."""
    return Profile(
        option=option,
        key_usages=frozenset(("key_cert_sign", "crl_sign")),
        extended_key_usages=(),
        expiry=expiry or timedelta(hours=43800),
        backdate=backdate or _BACKDATE,
        is_ca=True,
        pathlen=pathlen,
        crl_url=crl_url,
    )


def find_profile(config: object, name: str | None, option: str) -> Profile:
    """The profile `name`, or the default one, of a configuration (None: CFSSL's own default).

    Raises PkiError that names the wrong part of `option`, or `profile` if there is no profile of that name.
    """
    if config is None:
        if name:
            raise PkiError("profile", f"{name!r} is not known, since there is no config; give config or config_file")
        return default_profile()
    top = documents.fold(config, ("signing", "auth_keys", "remotes", "ocsp"), option)
    if top.get("signing") is None:
        raise PkiError(option, "has no signing section; give {signing: {default: {...}, profiles: {...}}}")
    signing = documents.fold(top["signing"], ("default", "profiles"), f"{option}.signing")
    profiles = {} if signing.get("profiles") is None else signing["profiles"]
    if not isinstance(profiles, dict):
        raise PkiError(f"{option}.signing.profiles", f"must be a mapping, not {documents.kind(profiles)}")
    default = signing.get("default") or {}
    where = f"{option}.signing.default"
    inherited = documents.fold(default, _PROFILE_KEYS, where, unsupported=_ELSEWHERE)
    if not name:
        return _profile(inherited, where, {}) if inherited else default_profile()
    if name not in profiles:
        known = ", ".join(sorted(map(str, profiles))) or "none"
        raise PkiError("profile", f"{name!r} is not a profile of {option}; known are: {known}")
    where = f"{option}.signing.profiles.{name}"
    return _profile(documents.fold(profiles[name], _PROFILE_KEYS, where, unsupported=_ELSEWHERE), where, inherited)


def _profile(fields: dict[str, Any], option: str, inherited: dict[str, Any]) -> Profile:
    key_usages, extended = _usages(fields.get("usages"), f"{option}.usages")
    if not fields.get("expiry"):
        raise PkiError(f"{option}.expiry", "is missing; give a duration such as 8760h")
    constraint = documents.fold(
        fields.get("ca_constraint") or {}, ("is_ca", "max_path_len", "max_path_len_zero"), f"{option}.ca_constraint"
    )
    zero = documents.flag_of(constraint.get("max_path_len_zero", False), f"{option}.ca_constraint.max_path_len_zero")
    length = path_length(constraint.get("max_path_len", 0), zero, f"{option}.ca_constraint.max_path_len")
    is_ca = documents.flag_of(constraint.get("is_ca", False), f"{option}.ca_constraint.is_ca")
    if is_ca and "key_cert_sign" not in key_usages:
        raise PkiError(
            f"{option}.usages", "lacks 'cert sign', without which a CA (ca_constraint.is_ca) can sign nothing"
        )
    if not is_ca and "key_cert_sign" in key_usages:
        raise PkiError(
            f"{option}.usages", "grants 'cert sign' without being a CA; set ca_constraint.is_ca, or leave it out"
        )
    urls = documents.list_of(fields.get("issuer_urls", inherited.get("issuer_urls")), f"{option}.issuer_urls")
    not_before = _moment(fields.get("not_before"), f"{option}.not_before")
    not_after = _moment(fields.get("not_after"), f"{option}.not_after")
    if not_before and not_after and not_after <= not_before:
        raise PkiError(f"{option}.not_after", "is not after not_before")
    return Profile(
        option=option,
        key_usages=key_usages,
        extended_key_usages=extended,
        expiry=parse_duration(fields["expiry"], f"{option}.expiry"),
        # An empty list counts as not given, as in CFSSL.
        backdate=parse_duration(fields.get("backdate") or "0", f"{option}.backdate", zero=True) or _BACKDATE,
        is_ca=is_ca,
        pathlen=length if is_ca else None,
        not_before=not_before,
        not_after=not_after,
        issuer_urls=tuple(documents.text_of(url, f"{option}.issuer_urls") for url in urls),
        ocsp_url=documents.text_of(fields.get("ocsp_url") or inherited.get("ocsp_url"), f"{option}.ocsp_url"),
        crl_url=documents.text_of(fields.get("crl_url") or inherited.get("crl_url"), f"{option}.crl_url"),
        ocsp_no_check=documents.flag_of(fields.get("ocsp_no_check", False), f"{option}.ocsp_no_check"),
        name_whitelist=_pattern(fields.get("name_whitelist"), f"{option}.name_whitelist"),
        request_may_bring=_whitelist(fields.get("CSRWhitelist"), f"{option}.CSRWhitelist"),
    )


def _usages(value: object, option: str) -> tuple[frozenset[str], tuple[str, ...]]:
    names = documents.list_of(value, option)
    if not names:
        raise PkiError(
            option, "is missing; give what the certificate is for, such as [signing, key encipherment, server auth]"
        )
    key_usages, extended = [], []
    for index, name in enumerate(names):
        if name in KEY_USAGES:
            key_usages.append(KEY_USAGES[name])
        elif name in EXTENDED_KEY_USAGES:
            extended.append(EXTENDED_KEY_USAGES[name])
        else:
            known = ", ".join([*KEY_USAGES, *EXTENDED_KEY_USAGES])
            raise PkiError(f"{option}[{index}]", f"{name!r} is not a usage; known are: {known}")
    if {"encipher_only", "decipher_only"} & set(key_usages) and "key_agreement" not in key_usages:
        raise PkiError(
            option, "'encipher only' and 'decipher only' mean nothing without 'key agreement' (RFC 5280, 4.2.1.3)"
        )
    return frozenset(key_usages), tuple(dict.fromkeys(extended))


def _moment(value: object, option: str) -> datetime | None:
    if not value:
        return None
    text = value if isinstance(value, str) else ""
    try:
        moment = datetime.fromisoformat(re.sub(r"[Zz]$", "+00:00", text))
    except ValueError:
        raise PkiError(option, f"{value!r} is not a time; write it as 2026-01-31T12:00:00Z") from None
    if moment.tzinfo is None:
        raise PkiError(option, f"{value!r} has no time zone; write it as 2026-01-31T12:00:00Z")
    return moment.astimezone(timezone.utc).replace(microsecond=0)


def _pattern(value: object, option: str) -> str:
    """A regular expression of Go's, translated to Python's syntax."""
    given = documents.text_of(value, option)

    def replaced(found: re.Match[str]) -> str:
        if found.group() == r"\z":
            return r"\Z"
        return _CLASSES.get(found.group(1), found.group()) if found.group(1) else found.group()

    text = re.sub(r"\\.|\[:(\w+):\]", replaced, given)
    if re.search(r"\[:\^?\w+:\]", text):
        raise PkiError(option, f"{given!r} has an unknown character class; known are {', '.join(_CLASSES)}")
    try:
        re.compile(text)
    except re.error as error:
        raise PkiError(option, f"{given!r} is not a regular expression: {error}") from None
    return text


def _whitelist(value: object, option: str) -> frozenset[str] | None:
    if value is None:
        return None
    fields = documents.fold(value, _WHITELIST_KEYS, option)
    kinds = {"Subject": "subject", "DNSNames": "dns", "IPAddresses": "ip", "EmailAddresses": "email", "URIs": "uri"}
    return frozenset(kinds[key] for key in kinds if documents.flag_of(fields.get(key, False), f"{option}.{key}"))
