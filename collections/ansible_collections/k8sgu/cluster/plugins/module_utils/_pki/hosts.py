# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts of a request, told apart as CFSSL does: IP address, email address, URI, DNS name.

Upstream: csr.GenerateDER in https://github.com/cloudflare/cfssl/blob/master/csr/csr.go. CFSSL takes whatever is left
for a DNS name; here it must be one (RFC 1123, section 2.1; a wildcard as in RFC 6125, section 6.4.3).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.errors import PkiError

_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_EMAIL_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")
_DOTTED = re.compile(r"[0-9]+(?:\.[0-9]+)*")


class Host(NamedTuple):
    """One subject alternative name; `kind` is ip, email, uri or dns, `value` in its canonical form."""

    kind: str
    value: str


def classify_host(text: object, option: str) -> Host:
    """The host that `text` is; raises PkiError naming `option` where it is none."""
    if not isinstance(text, str):
        raise PkiError(option, f"{text!r} is not text; give an IP address, a DNS name, an email address or a URI")
    if not text.strip():
        raise PkiError(option, "is empty; give an IP address, a DNS name, an email address or a URI, or leave it out")
    address = _address(text)
    if address:
        return Host("ip", address)
    local, separator, domain = text.rpartition("@")
    if separator and _EMAIL_LOCAL.fullmatch(local) and is_dns_name(domain):
        return Host("email", text)
    if "://" in text and _URI.fullmatch(text):
        return Host("uri", text)
    if is_dns_name(text[2:] if text.startswith("*.") else text):
        return Host("dns", text)
    raise PkiError(
        option,
        f"{text!r} is neither a name nor an address; give an IP address without a prefix length, a DNS name"
        " (letters, digits and hyphens between dots), an email address or a URI",
    )


def is_dns_name(text: str) -> bool:
    """Whether `text` is a host name; four numbers that are no address are not."""
    if not 0 < len(text) <= 253 or _DOTTED.fullmatch(text):
        return False
    return all(_LABEL.fullmatch(label) for label in text.split("."))


def _address(text: str) -> str:
    """The address in canonical form, an IPv4-mapped one as IPv4, as Go's net.ParseIP has it; empty where it is none."""
    if not (text[0] in "0123456789:" or ":" in text) or "%" in text:
        return ""
    import ipaddress  # not needed for requests without addresses

    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return ""
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
