# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes requests and certificates as CFSSL does: same fields, same extensions, same encodings.

Upstream: signer.FillTemplate and local.Signer in https://github.com/cloudflare/cfssl/tree/master/signer, and Go's
x509.CreateCertificate, which adds the authority key identifier unless a certificate signs itself.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta

from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import keys, x509_names
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.hosts import Host
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.profiles import KEY_USAGES, Profile
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.requests import Request, Subject

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.x509.name import _ASN1Type
    from cryptography.x509.oid import AuthorityInformationAccessOID
except ImportError:
    pass  # libraries.require reports it before anything here is called

_PRINTABLE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 '()+,-./:=?")


@dataclass(frozen=True)
class Template:
    """A certificate to make: everything but its keys, serial number and issuer."""

    subject: Subject
    hosts: tuple[Host, ...]
    profile: Profile
    not_before: datetime
    not_after: datetime
    # The encoded subject of a CA that is renewed: the certificates that it has signed name their issuer in this form.
    encoded: x509.Name | None = None


def validity(profile: Profile, now: datetime) -> tuple[datetime, datetime]:
    """Start and end as CFSSL computes them: from the nearest minute less the backdate, or as the profile fixes them."""
    minute = (now + timedelta(seconds=30)).replace(second=0, microsecond=0)
    not_before = profile.not_before or (minute - profile.backdate).replace(microsecond=0)
    return not_before, profile.not_after or (not_before + profile.expiry).replace(microsecond=0)


def effective_hosts(hosts: tuple[Host, ...], is_ca: bool) -> tuple[Host, ...]:
    """The hosts that CFSSL puts into a certificate; for a CA, IP addresses only."""
    return tuple(host for host in hosts if host.kind == "ip") if is_ca else hosts


def encode_subject(subject: Subject) -> x509.Name:
    """The subject in Go's encoding: PrintableString if that can hold the value, otherwise UTF8String. Go's verifiers
    compare issuers byte by byte, so a renewed CA must not change its encoding."""
    return x509.Name(
        x509.RelativeDistinguishedName(
            x509.NameAttribute(
                x509.ObjectIdentifier(oid),
                value,
                _ASN1Type.PrintableString if _PRINTABLE.issuperset(value) else _ASN1Type.UTF8String,
                _validate=False,
            )
            for oid, value in relative
        )
        for relative in subject
    )


def make_request(request: Request, key: keys.PrivateKey) -> bytes:
    """The PEM request that `cfssl genkey` would make."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(encode_subject(request.subject))
    if request.hosts:
        builder = builder.add_extension(_alternative_names(request.hosts), critical=not request.subject)
    if request.ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=request.ca.pathlen), critical=True)
    return builder.sign(key, keys.signature_hash(key)).public_bytes(serialization.Encoding.PEM)


def make_certificate(
    template: Template,
    public_key: keys.PublicKey,
    issuer: x509.Certificate | None,
    issuer_key: keys.PrivateKey,
) -> x509.Certificate:
    """A certificate for `public_key`, signed by `issuer` (None: self-signed)."""
    profile = template.profile
    subject = template.encoded if template.encoded is not None else encode_subject(template.subject)
    issuer_name = x509_names.subject_of(issuer) if issuer is not None else subject
    subject_key = x509.SubjectKeyIdentifier.from_public_key(public_key)
    builder = (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .subject_name(subject)
        .issuer_name(issuer_name)
        .public_key(public_key)
        .not_valid_before(template.not_before)
        .not_valid_after(template.not_after)
    )
    if profile.key_usages:
        bits = {name: name in profile.key_usages for name in set(KEY_USAGES.values())}
        builder = builder.add_extension(x509.KeyUsage(**bits), critical=True)
    if profile.extended_key_usages:
        usages = [x509.ObjectIdentifier(oid) for oid in profile.extended_key_usages]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    builder = builder.add_extension(
        x509.BasicConstraints(ca=profile.is_ca, path_length=profile.pathlen if profile.is_ca else None), critical=True
    ).add_extension(subject_key, critical=False)
    if issuer is not None and issuer_name != subject:
        authority = _key_id(issuer)
        if authority is not None:
            builder = builder.add_extension(x509.AuthorityKeyIdentifier(authority, None, None), critical=False)
    access = [(AuthorityInformationAccessOID.OCSP, profile.ocsp_url)] if profile.ocsp_url else []
    access += [(AuthorityInformationAccessOID.CA_ISSUERS, url) for url in profile.issuer_urls]
    if access:
        descriptions = [x509.AccessDescription(oid, x509.UniformResourceIdentifier(url)) for oid, url in access]
        builder = builder.add_extension(x509.AuthorityInformationAccess(descriptions), critical=False)
    if template.hosts:
        builder = builder.add_extension(_alternative_names(template.hosts), critical=not template.subject)
    if profile.crl_url:
        point = x509.DistributionPoint([x509.UniformResourceIdentifier(profile.crl_url)], None, None, None)
        builder = builder.add_extension(x509.CRLDistributionPoints([point]), critical=False)
    if profile.ocsp_no_check:
        builder = builder.add_extension(x509.OCSPNoCheck(), critical=False)
    return builder.sign(issuer_key, keys.signature_hash(issuer_key))


def pem_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_id(certificate: x509.Certificate) -> bytes | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        return None


def _alternative_names(hosts: tuple[Host, ...]) -> x509.SubjectAlternativeName:
    """In Go's order: DNS names, email addresses, addresses, URIs."""
    order = ("dns", "email", "ip", "uri")
    return x509.SubjectAlternativeName(
        [_general_name(host) for host in sorted(hosts, key=lambda host: order.index(host.kind))]
    )


def _general_name(host: Host) -> x509.GeneralName:
    if host.kind == "ip":
        return x509.IPAddress(ipaddress.ip_address(host.value))
    if host.kind == "email":
        return x509.RFC822Name(host.value)
    if host.kind == "uri":
        return x509.UniformResourceIdentifier(host.value)
    return x509.DNSName(host.value)
