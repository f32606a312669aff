# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Classifies the hosts of a request as CFSSL does: IP address, email address, URI, DNS name.

Upstream: csr.GenerateDER in https://github.com/cloudflare/cfssl/blob/master/csr/csr.go. CFSSL takes anything else for a
DNS name; here it must be a valid one (RFC 1123, section 2.1, and the underscore, which Go's and OpenSSL's verifiers
accept; a wildcard as in RFC 6125, section 6.4.3). The error for an invalid name says why.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import documents
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.errors import PkiError

_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_ATEXT = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~-"
_EMAIL_LOCAL = re.compile(rf"[{_ATEXT}]+(?:\.[{_ATEXT}]+)*")
# `Me <me@example.com>`: the certificate gets the address only.
_NAMED_EMAIL = re.compile(rf'(?:"[^"\\<>]*" *|[. {_ATEXT}]*)<([^<>]+)>')
# URIs that Go's net/url leaves unchanged; RFC 5280, 4.2.1.6: never relative, and with a host if there is an authority.
_PART = r"(?:[A-Za-z0-9._~:@!$&'()*+,;=\[\]/?-]|%[0-9A-Fa-f]{2})"
_SCHEME = r"([A-Za-z][A-Za-z0-9+.-]*)"
_AUTHORITY = r"(?:[A-Za-z0-9._~:$&+,;=-]+@)?(?:[A-Za-z0-9._~!$&'()*+,;=-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?"
_URI = re.compile(rf"{_SCHEME}:(?://(?:{_AUTHORITY}(?:[/?]{_PART}*)?|/{_PART}*)|(?!//|:|[0-9]+(?:[/?]|$)){_PART}+)")
_DOTTED = re.compile(r"[0-9]+(?:\.[0-9]+)*")
# Go would parse fe80:1 and similar as a scheme and the rest.
_BROKEN_IPV6 = re.compile(r"[0-9A-Fa-f]{0,4}:[0-9A-Fa-f]{0,4}:.*")


class Host(NamedTuple):
    """One subject alternative name; `kind` is ip, email, uri or dns, `value` in its canonical form."""

    kind: str
    value: str


def classify_host(text: object, option: str) -> Host:
    """`text` as a host. Raises PkiError that names `option` if it is not a valid one."""
    if not isinstance(text, str):
        raise PkiError(
            option,
            f"{text!r} is {documents.kind(text)}, not text; give an IP address, a DNS name, an email address or a URI,"
            " in quotes where YAML would take it for something else",
        )
    if not text.strip():
        raise PkiError(option, "is empty; give an IP address, a DNS name, an email address or a URI, or leave it out")
    address = _address(text)
    if address:
        return Host("ip", address)
    named = _NAMED_EMAIL.fullmatch(text)
    email = named.group(1) if named else text
    local, separator, domain = email.rpartition("@")
    if separator and _EMAIL_LOCAL.fullmatch(local) and is_dns_name(domain):
        return Host("email", email)
    uri = _URI.fullmatch(text)
    if uri and not _is_zoned(text) and not _BROKEN_IPV6.fullmatch(text):
        # Go writes the scheme in lower case.
        return Host("uri", uri.group(1).lower() + text[uri.end(1) :])
    if is_dns_name(text[2:] if text.startswith("*.") else text):
        return Host("dns", text)
    raise PkiError(option, f"{text!r} {_why_not(text)}")


def is_dns_name(text: str) -> bool:
    """Whether `text` is a host name; four numbers that are not a valid address are not."""
    if not 0 < len(text) <= 253 or _DOTTED.fullmatch(text):
        return False
    return all(_LABEL.fullmatch(label) for label in text.split("."))


def _address(text: str) -> str:
    """The address in canonical form, IPv4-mapped ones as IPv4, like Go's net.ParseIP; empty if it is not an address."""
    if not (text[:1].isdigit() or ":" in text) or "%" in text:
        return ""
    import ipaddress  # not needed for requests without addresses

    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _is_zoned(text: str) -> bool:
    return "%" in text and bool(_address(text.partition("%")[0]))


def _why_not(text: str) -> str:
    """What is wrong with an invalid host, and what to write instead."""
    if "," in text and "://" not in text:
        return "holds a comma; give each host as its own entry of the list"
    if any(character.isspace() for character in text):
        return "holds a space; remove it (in a URI, write %20)"
    if not text.isascii():
        return (
            "holds a letter beyond ASCII; write a name in its ASCII form (xn--...) and such letters of a URI as %XX;"
            " an email address cannot have any"
        )
    if _is_zoned(text):
        return "is an address with a zone, which is only valid on one machine; leave out the % and what follows"
    if _address(text.partition("/")[0]):
        return "is a network; give an IP address without a prefix length"
    if text.startswith("[") and text.rstrip("0123456789:").endswith("]"):
        return "is in brackets, as in a URI; give only the IP address"
    if re.fullmatch(r"[^:/@]+:[0-9]+(?:/.*)?", text):
        return "has a port; give only the name or the address"
    if _BROKEN_IPV6.fullmatch(text):
        return "is not a valid IPv6 address; correct it, or give a name"
    if re.match(rf"{_SCHEME}:", text):
        return (
            "is not a URI that can name a server or client; give a scheme and what it needs, such as"
            " spiffe://cluster.local/x or urn:uuid:..., with a host after // and without #"
        )
    if "@" in text:
        return "is not an email address; write NAME@DOMAIN, without quotes or brackets"
    if "/" in text:
        return "is a path; give a name, an address, or a URI with its scheme"
    if "*" in text:
        return (
            "has a wildcard that is not the whole first part, as in *.example.com; verifiers do not agree on other ones"
        )
    if _DOTTED.fullmatch(text.rstrip(".")):
        return (
            "is neither an IP address (four numbers up to 255 without leading zeros) nor a name, which needs a letter"
        )
    return _why_no_name(text)


def _why_no_name(text: str) -> str:
    if text.endswith(".") and is_dns_name(text[:-1]):
        return (
            "ends in a dot; leave the dot off: names in certificates have none (RFC 5280, 4.2.1.6), and clients that"
            " connect to the name without it would refuse the certificate"
        )
    if len(text) > 253:
        return f"has {len(text)} characters; a DNS name has at most 253"
    for label in text.split("."):
        if not label:
            return "has an empty part before, after or between its dots; write a DNS name such as web.example.com"
        if len(label) > 63:
            return f"has a part of {len(label)} characters between dots; a DNS name allows 63"
        if label.startswith("-") or label.endswith("-"):
            return f"has the part {label!r}, which begins or ends in a hyphen; a DNS name's may not (RFC 1123, 2.1)"
    odd = next((character for character in text if not _LABEL.fullmatch(character) and character not in "-."), "")
    return f"holds {odd!r}; a DNS name has letters, digits, hyphens and underscores between dots"
