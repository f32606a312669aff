# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter of_former_cas."""

from __future__ import annotations

from typing import Any, Callable, Mapping, Sequence

from ansible.errors import AnsibleFilterError

from ansible_collections.k8sgu.cluster.plugins.module_utils._options.libraries import (
    CRYPTOGRAPHY,
    LibraryMissing,
    require,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import issued

DOCUMENTATION = r"""
name: of_former_cas
short_description: Certificates in use that none of the present CAs has signed
version_added: 0.1.0
description:
  - Finds among what M(k8sgu.cluster.certificate_scan) found the certificates that none of the given CAs has signed.
    CAs themselves are left out, since a file of trusted CAs can hold former ones.
author:
  - The k8sgu authors (@k8sgu)
options:
  _input:
    description: The result C(certificates) of M(k8sgu.cluster.certificate_scan).
    type: list
    elements: dict
    required: true
  authorities:
    description: The certificates of the present CAs, each as PEM.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Find what is still of the CA before
  ansible.builtin.debug:
    msg: "{{ scan.certificates | k8sgu.cluster.of_former_cas([lookup('ansible.builtin.file', 'pki/etcd-ca.pem')]) }}"
"""

RETURN = r"""
_value:
  description: The place of each, and what it is.
  type: list
  elements: str
  sample: ["/etc/etcd/pki/server.crt (control-plane-0, signed by etcd-ca)"]
"""


def of_former_cas(scan: Sequence[Mapping[str, str]], authorities: Sequence[str]) -> list[str]:
    try:
        require(CRYPTOGRAPHY)
    except LibraryMissing as error:
        raise AnsibleFilterError(str(error)) from None
    known = issued.authorities(authorities)
    if len(known) != len(authorities):
        raise AnsibleFilterError(
            f"authorities: {len(authorities) - len(known)} of {len(authorities)} is not a CA's certificate"
        )
    return [
        _named(*found) for found in issued.by_none(scan, known) if found[1] is None or not issued.is_authority(found[1])
    ]


def _named(place: str, certificate: Any) -> str:
    if certificate is None:
        return f"{place} (it cannot be read)"
    return f"{place} ({issued.common_name(certificate.subject)}, signed by {issued.common_name(certificate.issuer)})"


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"of_former_cas": of_former_cas}
