#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates from CFSSL's own documents: the module's documentation and argument specification."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cfssl_cert
short_description: Makes keys and certificates from CFSSL's requests and signing profiles
version_added: 0.1.0
description:
  - Does what C(cfssl gencert) and C(cfssljson -bare) do, from the same documents, without either program.
  - Writes C(NAME.pem), C(NAME-key.pem) and C(NAME.csr) into a directory, all of them or none.
  - Issues a certificate again only if something relevant differs, and says what. That is the subject, hosts, usages, kind of key,
    issuer, CA constraints, a remaining life below O(renew_before), a key that does not belong to its certificate, an expired
    certificate, and a CA that has been replaced. A changed C(expiry) alone takes effect with the next issue.
  - Many certificates, and the CAs that sign them, can be made in one call by O(certificates).
  - Files made by CFSSL are used as they are. A CA that is issued again keeps its key and the encoding of its name, so that
    what it has signed stays valid, whichever program made it.
author:
  - The k8sgu authors (@k8sgu)
requirements:
  - cryptography >= 42
attributes:
  check_mode:
    description: Predicts what would be issued, with the reasons; keys, serial numbers and fingerprints exist only afterwards.
    support: full
  diff_mode:
    description: Shows the properties of certificates, never a key.
    support: full
  idempotent:
    description: A second run changes nothing until a certificate is due for renewal.
    support: full
options:
  name:
    description:
      - The base name of the files, as given to C(cfssljson -bare).
      - Needed unless O(certificates) is given.
    type: str
  path:
    description:
      - The directory of the files. It and its missing parents are created with mode 0700.
    type: path
  state:
    description:
      - V(present) makes or updates the certificate.
      - V(absent) removes its three files.
    type: str
    choices: [present, absent]
    default: present
  csr:
    description:
      - The request in CFSSL's JSON form. Keys are V(CN), V(names) (a list of V(C), V(ST), V(L), V(O), V(OU), V(E)), V(hosts),
        V(key) (V(algo) V(ecdsa), V(rsa) or V(ed25519), and V(size)), V(serialnumber), V(crl_url) and, for a CA, V(ca)
        (V(expiry), V(pathlen), V(pathlenzero), V(backdate)). All but lengths, sizes and booleans are text; put a number in quotes.
      - Sizes are 256, 384 and 521 for V(ecdsa) and 2048 to 8192 for V(rsa). The default for V(key) is an ECDSA P-256 key.
      - A host is an IP address, an email address (also as C(Name <me@example.com>)), a URI with its scheme (C(spiffe://...), C(urn:uuid:...))
        or a DNS name, distinguished as CFSSL does. A DNS name can contain underscores and start with V(*.).
      - With hosts, no subject is needed. The hosts are then marked as critical, as RFC 5280 requires.
      - As with CFSSL, a CA certificate can have only IP addresses as hosts.
    type: dict
  csr_file:
    description:
      - A file with such a document, or with a PEM certificate request made elsewhere, which is signed without writing a key.
    type: path
  config:
    description:
      - CFSSL's signing configuration, a V(signing) section with V(default) and V(profiles).
      - A profile has V(usages) and V(expiry) and may have V(ca_constraint), V(backdate), V(not_before), V(not_after), V(issuer_urls),
        V(ocsp_url), V(crl_url), V(ocsp_no_check), V(name_whitelist) and V(CSRWhitelist).
      - The default is CFSSL's own, which is V(signing), V(key encipherment), V(server auth) and V(client auth) for a year.
      - Not used with O(initca).
    type: dict
  config_file:
    description: A file with such a configuration.
    type: path
  profile:
    description:
      - The profile to sign with; without one, the configuration's default.
      - Unlike in CFSSL, a profile that does not exist is an error.
    type: str
  initca:
    description:
      - Make a self-signed CA. Its life is V(ca.expiry) of the request, by default five years.
    type: bool
    default: false
  ca:
    description: The certificate file of the CA that signs. The same call may make it.
    type: path
  ca_key:
    description:
      - The CA's key file.
      - The default is the file beside O(ca) whose name ends in C(-key.pem) instead of C(.pem).
    type: path
  ca_passphrase:
    description:
      - Decrypts O(ca_key).
      - Not needed if the same call makes the CA with its O(passphrase).
    type: str
  passphrase:
    description:
      - Encrypts the key in C(NAME-key.pem); meant for CAs.
      - An existing unencrypted key is encrypted, not replaced.
    type: str
  renew_before:
    description:
      - Issue again when less than this remains, as a duration such as V(1440h) or V(60d).
      - Must be shorter than the certificate's life, or every run would issue it again.
      - The default is 720 hours, or a third of the certificate's life if that is shorter.
    type: str
  cap_at_ca:
    description:
      - Let a certificate that would outlive its CA end with the CA instead of refusing it. Takes effect when a certificate is issued.
      - A certificate is not issued again because it ends earlier than requested, but by O(renew_before), once the CA is renewed.
      - A CA with no more than O(renew_before) left cannot sign such a certificate, and the task fails until the CA is renewed. To prevent
        that, keep a CA's own O(renew_before) longer than the lives of what it signs.
    type: bool
    default: false
  rotate_key:
    description:
      - Whether a certificate that is issued again also gets a new key.
      - By default a CA keeps its key, so that what it has signed stays valid, and any other certificate gets a new one.
      - A key that does not fit the request, or cannot be used, is always replaced.
    type: bool
  force:
    description:
      - Replace files that cannot be read, such as truncated PEM. Otherwise they are left unchanged and the task fails.
    type: bool
    default: false
  backup:
    description: Keep a copy of each file that is replaced or removed.
    type: bool
    default: false
  certificates:
    description:
      - Several certificates in one call, in any order. All are checked before any is made; CAs are made before what they sign.
      - The options beside O(certificates) are defaults for its entries, except for O(name), O(csr), O(csr_file),
        O(initca) and O(passphrase).
    type: list
    elements: dict
    suboptions:
      name:
        description: As O(name).
        type: str
        required: true
      path:
        description: As O(path).
        type: path
      state:
        description: As O(state), which is its default.
        type: str
        choices: [present, absent]
      csr:
        description: As O(csr).
        type: dict
      csr_file:
        description: As O(csr_file).
        type: path
      config:
        description: As O(config).
        type: dict
      config_file:
        description: As O(config_file).
        type: path
      profile:
        description: As O(profile).
        type: str
      initca:
        description: As O(initca).
        type: bool
        default: false
      ca:
        description: As O(ca).
        type: path
      ca_key:
        description: As O(ca_key).
        type: path
      ca_passphrase:
        description: As O(ca_passphrase).
        type: str
      passphrase:
        description: As O(passphrase).
        type: str
      renew_before:
        description: As O(renew_before).
        type: str
      cap_at_ca:
        description: As O(cap_at_ca), which is not a default for self-signed CAs.
        type: bool
      rotate_key:
        description: As O(rotate_key).
        type: bool
      force:
        description: As O(force).
        type: bool
      backup:
        description: As O(backup).
        type: bool
notes:
  - Keys have mode 0600, certificates and requests 0644.
  - A killed run leaves the old files, or new ones that the next run completes first.
  - The following is accepted by CFSSL 1.6 and refused by this module, with the reason in the error.
  - In documents, unknown keys, which CFSSL ignores; V(OID) and V(SerialNumber) of V(names), V(extensions), V(delegation_enabled),
    and V(remote), V(auth_remote), V(policies), V(ct_log_servers), V(copy_extensions), V(lint_error_level) and V(ClientProvidesSerialNumbers)
    of a profile, unless they are false or empty; a misspelt usage, which CFSSL leaves out of the certificate.
  - In hosts, a DNS name that ends in a dot (RFC 5280 has none, and for OpenSSL and Go it does not match the name without the dot), one that is
    invalid by RFC 1123 or longer than DNS allows, and a wildcard other than V(*.) before a name, on which verifiers differ; an address with
    a prefix length, port, zone or brackets, or an invalid one, all of which CFSSL takes for names; a URI without a scheme or
    host, with V(#), a space or a letter beyond ASCII; an email address with quotes; several hosts joined by commas; an empty one.
  - In subjects, parts that are longer than RFC 5280 allows, countries that do not have two letters, and control characters. A blank part
    is left out. A certificate without subject and hosts.
  - In profiles, V(cert sign) without a CA and a CA without it, V(encipher only) and V(decipher only) without V(key agreement), a name
    or host that V(CSRWhitelist) does not allow, which CFSSL leaves out, a path length that the CA's does not allow, and
    any life that is over at once or longer than the CA's (see O(cap_at_ca)).
  - There are other differences. Duplicate hosts, usages and values in V(names) are written once. An intermediate CA may request
    less than its profile grants, in V(ca) of its request, which C(cfssl gencert) refuses and C(cfssl sign) ignores.
    The V(content committment) of CFSSL before 1.3 is still understood. V(name_whitelist) is read as a regular expression of Python, with
    Go's C(\z) and classes such as C([[:alpha:]]).
seealso:
  - module: k8sgu.cluster.cfssl_cert_info
  - name: CFSSL
    description: CloudFlare's PKI toolkit, whose documents these are.
    link: https://github.com/cloudflare/cfssl
"""

EXAMPLES = r"""
- name: Make a CA and two certificates under it
  k8sgu.cluster.cfssl_cert:
    path: /etc/demo/pki
    ca: /etc/demo/pki/ca.pem
    config:
      signing:
        default: {expiry: 8760h, usages: [signing]}
        profiles:
          server: {expiry: 8760h, usages: [signing, key encipherment, server auth]}
          client: {expiry: 8760h, usages: [signing, key encipherment, client auth]}
    renew_before: 60d
    certificates:
      - name: ca
        initca: true
        csr: {CN: demo, key: {algo: ecdsa, size: 384}, ca: {expiry: 87600h, pathlen: 1}}
      - name: web
        profile: server
        csr: {CN: web, hosts: [web.example.com, 192.0.2.10]}
      - name: admin
        profile: client
        csr: {CN: admin, names: [{O: administrators}]}

- name: Sign one certificate with documents that CFSSL also reads
  k8sgu.cluster.cfssl_cert:
    name: kubernetes
    path: pki
    csr_file: kubernetes-csr.json
    config_file: ca-config.json
    profile: kubernetes
    ca: pki/ca.pem
    ca_key: pki/ca-key.pem

- name: Remove a certificate, its key and its request
  k8sgu.cluster.cfssl_cert:
    name: old
    path: pki
    state: absent
"""

RETURN = r"""
certificates:
  description: One entry for each certificate, in the order given.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The base name of the files.
      type: str
    state:
      description: V(present) or V(absent).
      type: str
    changed:
      description: Whether a file of this certificate was, or in check mode would be, written or removed.
      type: bool
    issued:
      description: Whether a certificate was, or in check mode would be, signed.
      type: bool
    reasons:
      description: The differences, in words.
      type: list
      elements: str
      sample: ["hosts: to add 192.0.2.11"]
    certificate_path:
      description: Path of C(NAME.pem).
      type: str
    key_path:
      description: Path of C(NAME-key.pem); none for a request made elsewhere.
      type: str
    csr_path:
      description: Path of C(NAME.csr).
      type: str
    serial:
      description: Serial number in decimal, as C(cfssl certinfo) prints it; none before it exists.
      type: str
    fingerprint_sha256:
      description: SHA-256 of the certificate, lower-case hexadecimal; none before it exists.
      type: str
    not_before:
      description: Start of validity, UTC, ISO 8601; in check mode an estimate for what is not issued yet.
      type: str
      sample: "2026-01-31T12:00:00Z"
    not_after:
      description: End of validity, likewise.
      type: str
    days_left:
      description: Whole days until then, negative once it is over.
      type: int
    subject:
      description: The subject in the order of its encoding.
      type: str
      sample: "O=system:nodes, CN=system:node:worker-1"
    issuer:
      description: The issuer, likewise.
      type: str
    hosts:
      description: The subject alternative names, without their kinds.
      type: list
      elements: str
    is_ca:
      description: Whether it is a CA certificate.
      type: bool
    backup_files:
      description: Backup copies of replaced files.
      type: list
      elements: str
"""

from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import run_module
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.cfssl_cert import MODULE


def main() -> None:
    run_module(MODULE)


if __name__ == "__main__":
    main()
