#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates from CFSSL's own documents: the module's documentation and argument specification."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cfssl_cert
short_description: Keys and certificates from CFSSL's requests and signing profiles
version_added: 0.1.0
description:
  - Does what C(cfssl gencert) and C(cfssljson -bare) do, from the same documents, without either program.
  - Writes C(NAME.pem), C(NAME-key.pem) and C(NAME.csr) into a directory, all of them or none.
  - Issues again when, and only when, something that matters differs, and says what. That is the subject, hosts, usages, kind of key,
    issuer, CA constraints, a remaining life below O(renew_before), a key that does not belong to its certificate, an expired
    certificate, and a CA that has been replaced. A changed C(expiry) alone counts from the next issue on.
  - Many certificates, the CAs that sign them included, can be made in one call through O(certificates).
  - Files that CFSSL has made are taken over as they are. A CA that is issued again keeps its key and the encoding of its name, so that
    what it has signed stays valid, whichever program made it.
author:
  - The k8sgu authors (@k8sgu)
requirements:
  - cryptography >= 42
attributes:
  check_mode:
    description: Predicts what would be issued, with the reasons; keys, serials and fingerprints exist only afterwards.
    support: full
  diff_mode:
    description: Shows the properties of certificates, never a key.
    support: full
  idempotent:
    description: A second run finds nothing to do until a certificate comes near its end.
    support: full
options:
  name:
    description:
      - The base name of the files, as given to C(cfssljson -bare).
      - Needed unless O(certificates) is given.
    type: str
  path:
    description:
      - The directory of the files. It and missing ones above it are created with mode 0700.
    type: path
  state:
    description:
      - V(present) makes the certificate what is asked for.
      - V(absent) removes its three files.
    type: str
    choices: [present, absent]
    default: present
  csr:
    description:
      - The request in CFSSL's JSON form. Keys are V(CN), V(names) (a list of V(C), V(ST), V(L), V(O), V(OU), V(E)), V(hosts),
        V(key) (V(algo) V(ecdsa), V(rsa) or V(ed25519), and V(size)), V(serialnumber), V(crl_url) and, for a CA, V(ca)
        (V(expiry), V(pathlen), V(pathlenzero), V(backdate)). All but lengths, sizes and truth values are texts; put a number in quotes.
      - Sizes are 256, 384 and 521 for V(ecdsa) and 2048 to 8192 for V(rsa); without V(key) it is an ECDSA P-256 key.
      - A host is an IP address, an email address (also as C(Name <me@example.com>)), a URI with its scheme (C(spiffe://...), C(urn:uuid:...))
        or a DNS name, told apart as CFSSL does. An underscore may stand in a DNS name, and V(*.) before it.
      - With hosts there need be no subject. The hosts are then marked as critical, as RFC 5280 asks for.
      - As with CFSSL, a CA certificate carries no hosts but addresses.
    type: dict
  csr_file:
    description:
      - A file with such a document, or with a PEM certificate request made elsewhere, which is then signed; no key is written for it.
    type: path
  config:
    description:
      - CFSSL's signing configuration, a V(signing) section with V(default) and V(profiles).
      - A profile has V(usages) and V(expiry) and may have V(ca_constraint), V(backdate), V(not_before), V(not_after), V(issuer_urls),
        V(ocsp_url), V(crl_url), V(ocsp_no_check), V(name_whitelist) and V(CSRWhitelist).
      - Without one, CFSSL's own default counts, which is V(signing), V(key encipherment), V(server auth) and V(client auth) for a year.
      - Not used with O(initca).
    type: dict
  config_file:
    description: A file with such a configuration.
    type: path
  profile:
    description:
      - The profile to sign with; without one, the configuration's default.
      - Unlike with CFSSL, the name of a profile that does not exist is an error.
    type: str
  initca:
    description:
      - Make a self-signed CA. Its life is V(ca.expiry) of the request, five years without one.
    type: bool
    default: false
  ca:
    description: The certificate file of the CA that signs. It may be made in the same call.
    type: path
  ca_key:
    description:
      - The CA's key file.
      - Without it, the file beside O(ca) whose name ends in C(-key.pem) instead of C(.pem).
    type: path
  ca_passphrase:
    description:
      - Opens O(ca_key).
      - Not needed where the CA is made in the same call with its O(passphrase).
    type: str
  passphrase:
    description:
      - Encrypts the key in C(NAME-key.pem); meant for CAs.
      - A key that is there unencrypted is encrypted, not replaced.
    type: str
  renew_before:
    description:
      - Issue again when less than this remains, as a duration such as V(1440h) or V(60d).
      - Must be shorter than the certificate's life, or every run would issue anew.
      - Without it, 720 hours, or a third of the certificate's life where that is shorter.
    type: str
  cap_at_ca:
    description:
      - Let a certificate that would outlive its CA end with the CA, where without this it is refused. It counts when a certificate is issued.
      - That it ends sooner than asked for is no reason to issue it again; O(renew_before) is, once the CA has been renewed.
      - A CA with no more than O(renew_before) left signs nothing so, and the task fails until the CA is renewed. Keep a CA's own
        O(renew_before) longer than the lives of what it signs, and it never comes to that.
    type: bool
    default: false
  rotate_key:
    description:
      - Whether a certificate that is issued again also gets a new key.
      - Without it, a CA keeps its key, so that what it has signed stays valid, and any other certificate gets a new one.
      - A key that does not fit the request, or cannot be used, is always replaced.
    type: bool
  force:
    description:
      - Replace files that cannot be read as what their name says, such as truncated PEM. Otherwise they are left alone and the task fails.
    type: bool
    default: false
  backup:
    description: Keep a copy of each file that is replaced or removed.
    type: bool
    default: false
  certificates:
    description:
      - Several certificates in one call. All are checked before any is made, CAs come before what they sign, in any order given.
      - An entry takes what it does not say from the options beside O(certificates), but for O(name), O(csr), O(csr_file),
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
        description: As O(cap_at_ca). A CA that signs itself takes none from there.
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
  - A run that is killed leaves the old files, or new ones that the next run completes before it looks at anything.
  - What CFSSL 1.6 does and this module refuses, with the reason in the error, is listed below.
  - In documents, keys that CFSSL does not know and ignores; V(OID) and V(SerialNumber) of V(names), V(extensions), V(delegation_enabled),
    and V(remote), V(auth_remote), V(policies), V(ct_log_servers), V(copy_extensions), V(lint_error_level) and V(ClientProvidesSerialNumbers)
    of a profile, unless they ask for nothing; a usage that is not spelled as CFSSL spells it, which CFSSL leaves out of the certificate.
  - Of hosts, a DNS name that ends in a dot (RFC 5280 has none, and neither OpenSSL nor Go finds the name without the dot in it), one that is no
    name by RFC 1123 or longer than DNS allows, and a wildcard other than V(*.) before a name, on which verifiers differ; an address with
    a prefix length, port, zone or brackets, or one that is broken, all of which CFSSL writes down as a name; a URI without a scheme or
    host, with V(#), a space or a letter beyond ASCII; an email address with quotes; several hosts joined by commas; an empty one.
  - Of subjects, parts that are longer than RFC 5280 allows, countries of other than two letters, and control characters. A part that is
    blank is left out. A certificate without subject and hosts.
  - Of profiles, V(cert sign) for what is no CA and a CA without it, V(encipher only) and V(decipher only) without V(key agreement), a name
    or host that V(CSRWhitelist) does not let through, which CFSSL leaves out, a path length that the CA's does not allow, and
    any life that is over at once or longer than the CA's (see O(cap_at_ca)).
  - Other differences are these. What is given twice, whether a host, a usage or a value in V(names), is written once. An intermediate CA may ask
    for less than its profile grants, in V(ca) of its request, where C(cfssl gencert) refuses the section and C(cfssl sign) gives it all of the profile.
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
      description: What differed, in words.
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
      description: Copies that were made of replaced files.
      type: list
      elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.cert_module import run
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.options import SPECIFICATION


def main() -> None:
    run(AnsibleModule(**SPECIFICATION, supports_check_mode=True))


if __name__ == "__main__":
    main()
