# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads subjects and issuers, also those that the cryptography library refuses: with an attribute twice in a set.

X.501 does not allow such names, but Go programs make them (CFSSL does for `C` in two of its `names`), and OpenSSL and
Go accept them. A certificate must name its issuer byte by byte, so they are kept unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Iterator

try:
    from cryptography import x509
    from cryptography.x509.name import _ASN1Type
except ImportError:
    pass  # the callers report it before anything here is called

if TYPE_CHECKING:
    from typing import Union

    Parsed = Union[x509.Certificate, x509.CertificateSigningRequest]

_SEQUENCE, _OBJECT_IDENTIFIER = 0x30, 0x06
# Encodings of the strings that are not UTF-8, by their universal tags (X.680, 8.4).
_ENCODINGS = {20: "latin-1", 28: "utf-32-be", 30: "utf-16-be"}


def subject_of(parsed: Parsed) -> x509.Name:
    """The subject of a certificate or request. Raises ValueError if it cannot be read at all."""
    try:
        return parsed.subject
    except ValueError:
        if isinstance(parsed, x509.Certificate):
            return _read(parsed.tbs_certificate_bytes, 3)
        return _read(parsed.tbs_certrequest_bytes, 0)


def issuer_of(parsed: x509.Certificate) -> x509.Name:
    """The issuer of a certificate. Raises ValueError if it cannot be read at all."""
    try:
        return parsed.issuer
    except ValueError:
        return _read(parsed.tbs_certificate_bytes, 1)


def _read(signed: bytes, position: int) -> x509.Name:
    """The name in the SEQUENCE at `position` among those of a certificate (algorithm, issuer, validity, subject: RFC
    5280, 4.1) or of a request (subject: RFC 2986, 4.1)."""
    [(_tag, body)] = _values(signed)
    name = [content for tag, content in _values(body) if tag == _SEQUENCE][position]
    return x509.Name([_relative(content) for _set, content in _values(name)])


def _relative(content: bytes) -> x509.RelativeDistinguishedName:
    attributes = []
    for _sequence, attribute in _values(content):
        (kind, oid), (tag, value) = _values(attribute)
        if kind != _OBJECT_IDENTIFIER:
            raise ValueError("an attribute of the name has no object identifier")
        attributes.append(
            x509.NameAttribute(
                x509.ObjectIdentifier(_dotted(oid)),
                value.decode(_ENCODINGS.get(tag, "utf-8")),
                _ASN1Type(tag),
                _validate=False,
            )
        )
    return _relative_name(attributes)


def _relative_name(attributes: list[x509.NameAttribute[str]]) -> x509.RelativeDistinguishedName:
    """A relative name as the library makes it, but also with a duplicate attribute."""
    made = x509.RelativeDistinguishedName(attributes[:1])
    made._attributes = list(attributes)
    made._attribute_set = frozenset(attributes)
    return made


def _values(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and content of each value in `content` (X.690, 8.1). Raises ValueError for truncated values."""
    position = 0
    while position < len(content):
        tag, length = content[position], content[position + 1]
        position += 2
        if length & 0x80:
            count = length & 0x7F
            length = int.from_bytes(content[position : position + count], "big")
            position += count
        if position + length > len(content):
            raise ValueError("the name is truncated")
        yield tag, content[position : position + length]
        position += length


def _dotted(oid: bytes) -> str:
    """An object identifier in its usual form (X.690, 8.19)."""
    numbers, number = [], 0
    for byte in oid:
        number = number << 7 | byte & 0x7F
        if not byte & 0x80:
            numbers.append(number)
            number = 0
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, [first, numbers[0] - 40 * first, *numbers[1:]]))
