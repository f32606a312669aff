#!/usr/bin/python
# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What certificates say: the module's documentation and argument specification."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cfssl_cert_info
short_description: Reads certificates from files, text or servers
version_added: 0.1.0
description:
  - Reads certificates from files, from text that was fetched elsewhere, or from servers, and returns what C(cfssl certinfo) prints
    and what M(k8sgu.cluster.cfssl_cert) returns, including the days left.
  - Nothing is verified; it does not matter who signed a certificate.
author:
  - The k8sgu authors (@k8sgu)
requirements:
  - cryptography >= 42
extends_documentation_fragment:
  - k8sgu.cluster.read_only
options:
  paths:
    description:
      - Files with a certificate or a chain, and directories, in which every file with a certificate is read.
      - Key files are never returned.
    type: list
    elements: path
    default: []
  contents:
    description:
      - Certificates as text, for example fetched from machines without the cryptography library.
    type: list
    elements: dict
    default: []
    suboptions:
      source:
        description: Where the certificate comes from, returned as RV(certificates[].source).
        type: str
        required: true
      pem:
        description: The certificate or chain in PEM.
        type: str
        required: true
  addresses:
    description:
      - Servers as V(host:port), an IPv6 address in brackets, whose certificate is read in a TLS handshake.
      - The rest of a server's chain is returned if Python supports it (3.10 or newer).
    type: list
    elements: str
    default: []
  server_name:
    description:
      - The name in the handshake (SNI). The default is the host of the address if that is a name.
    type: str
  timeout:
    description: How long to wait for a server, in seconds.
    type: int
    default: 10
seealso:
  - module: k8sgu.cluster.cfssl_cert
"""

EXAMPLES = r"""
- name: Read every certificate of a directory and of the API server
  k8sgu.cluster.cfssl_cert_info:
    paths: [/etc/kubernetes/pki]
    addresses: ["192.0.2.10:6443"]
  register: pki

- name: Stop if less than 30 days are left
  ansible.builtin.assert:
    that: pki.certificates | map(attribute='days_left') | min >= 30
"""

RETURN = r"""
certificates:
  description: One entry for each certificate, in the order of the options; those of a chain follow one another.
  returned: success
  type: list
  elements: dict
  contains:
    source:
      description: The path, the source given, or the address.
      type: str
    position:
      description: Place in the chain, from 0.
      type: int
    serial:
      description: Serial number in decimal.
      type: str
    fingerprint_sha256:
      description: SHA-256 of the certificate, lower-case hexadecimal.
      type: str
    not_before:
      description: Start of validity, UTC, ISO 8601.
      type: str
    not_after:
      description: End of validity, likewise.
      type: str
      sample: "2027-01-31T12:00:00Z"
    days_left:
      description: Whole days until then, negative once it is over.
      type: int
    subject:
      description: The subject in the order of its encoding.
      type: str
    issuer:
      description: The issuer, likewise.
      type: str
    hosts:
      description: The subject alternative names.
      type: list
      elements: str
    is_ca:
      description: Whether it is a CA certificate.
      type: bool
    max_path_len:
      description: How many CAs may follow under it; none without a limit.
      type: int
    usages:
      description: Usages in CFSSL's words.
      type: list
      elements: str
    key:
      description: The key's C(algo) and C(size) as in a CFSSL request; none for kinds that CFSSL does not know.
      type: dict
    signature_algorithm:
      description: How it was signed.
      type: str
      sample: ecdsa-with-SHA256
    subject_key_id:
      description: Subject key identifier, lower-case hexadecimal, empty without one.
      type: str
    authority_key_id:
      description: Authority key identifier, likewise.
      type: str
"""

from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import run_module
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.cfssl_cert_info import MODULE


def main() -> None:
    run_module(MODULE)


if __name__ == "__main__":
    main()
