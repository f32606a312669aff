# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The CAs that sign, with their keys; checked before anything is changed."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from ansible_collections.k8sgu.cluster.plugins.module_utils._files.present import present
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import keys
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.certificates import (
    Certificate,
    CertificateUnreadable,
    read_certificate,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.entries import Entry, Wanted
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.plan import Issuer, Plan
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.store import Disk


@dataclass
class Authorities:
    """The CAs of one call: those that it makes, by the path of their certificate, and those on disk."""

    disk: Disk
    plans: dict[str, Plan] = field(default_factory=dict)
    certificates: dict[str, Certificate] = field(default_factory=dict)
    loaded: dict[tuple[str, str, str | None], keys.PrivateKey] = field(default_factory=dict)

    def planned(self, wanted: Wanted) -> Plan | None:
        """The CA's plan if this call makes it, else None."""
        return self.plans.get(os.path.realpath(wanted.ca))

    def issuer(self, entry: Entry, wanted: Wanted) -> Issuer | None:
        """The CA that signs; None for a self-signed certificate. Raises PkiError if it is not a CA."""
        if wanted.initca:
            return None
        plan = self.planned(wanted)
        if plan is None:
            certificate = self.certificate(entry, wanted)
            return _issuer_of(wanted.ca, certificate)
        own = present(plan.entry.wanted, "order() refuses a CA that is removed")
        if not plan.issue:
            return _issuer_of(
                plan.entry.certificate_path, present(plan.current.certificate, "or it would have to be issued")
            )
        key = plan.current.key
        return Issuer(
            plan.entry.certificate_path,
            own.template.subject,
            None if plan.new_key or key is None else key.public_key(),
            own.template.not_after,
            own.profile.is_ca,
            own.profile.pathlen,
        )

    def certificate(self, entry: Entry, wanted: Wanted) -> Certificate:
        """The CA's certificate on disk. Raises PkiError if it cannot be used."""
        path = wanted.ca
        if path not in self.certificates:
            try:
                found = self.disk.read(path)
            except OSError as error:
                raise entry.error("ca", f"{path} cannot be read: {error.strerror}") from None
            if found is None:
                raise entry.error("ca", f"{path} does not exist; make the CA first, or in the same call with initca")
            try:
                certificate = read_certificate(found[0])
            except CertificateUnreadable as error:
                raise entry.error("ca", f"{path} cannot be read as a certificate: {error}") from None
            self.certificates[path] = certificate
        certificate = self.certificates[path]
        if not certificate.is_ca or (certificate.key_usages and "key_cert_sign" not in certificate.key_usages):
            raise entry.error("ca", f"{path} is not the certificate of a CA; name one, or make it with initca")
        return certificate

    def check_key(self, entry: Entry, wanted: Wanted) -> None:
        """Raises PkiError if the CA cannot sign, before anything is changed."""
        plan = self.planned(wanted)
        if plan is None:
            self.key(entry, wanted)
        elif os.path.realpath(wanted.ca_key) != os.path.realpath(plan.entry.key_path):
            raise entry.error(
                "ca_key",
                f"{wanted.ca_key} is not the key of {wanted.ca}, which this call makes with {plan.entry.key_path}",
            )
        elif not plan.entry.own_key:
            raise entry.error("ca", f"{wanted.ca} is made from a request whose key is elsewhere; sign there")

    def key(self, entry: Entry, wanted: Wanted) -> keys.PrivateKey:
        """The key of a CA on disk. Raises PkiError if it cannot be used."""
        cached = self.loaded.get((wanted.ca, wanted.ca_key, wanted.ca_passphrase))
        if cached is not None:
            return cached
        certificate = self.certificate(entry, wanted)
        path = wanted.ca_key
        try:
            found = self.disk.read(path)
        except OSError as error:
            raise entry.error("ca_key", f"{path} cannot be read: {error.strerror}") from None
        if found is None:
            raise entry.error("ca_key", f"{path} does not exist; give the key of {wanted.ca}")
        try:
            key = keys.load(found[0], wanted.ca_passphrase)
        except keys.PassphraseNeeded:
            raise entry.error("ca_passphrase", f"is needed to open {path}, which is encrypted") from None
        except keys.PassphraseWrong:
            raise entry.error("ca_passphrase", f"does not open {path}; give the one it was made with") from None
        except keys.KeyUnreadable as error:
            raise entry.error("ca_key", f"{path} cannot be read as a private key: {error}") from None
        if keys.public_der(key.public_key()) != certificate.public_key:
            raise entry.error("ca_key", f"{path} is not the key of {wanted.ca}; give the one that belongs to it")
        self.loaded[(wanted.ca, wanted.ca_key, wanted.ca_passphrase)] = key
        return key


def _issuer_of(path: str, certificate: Certificate) -> Issuer:
    return Issuer(
        path,
        certificate.subject,
        certificate.parsed.public_key(),  # type: ignore[arg-type]  # another kind of key verifies nothing
        certificate.not_after,
        certificate.is_ca,
        certificate.pathlen,
    )
