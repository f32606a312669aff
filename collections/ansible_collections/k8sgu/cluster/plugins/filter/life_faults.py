# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter life_faults."""

from __future__ import annotations

from typing import Any, Callable, Mapping

from ansible.errors import AnsibleFilterError

from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.durations import parse_duration
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki.errors import PkiError

DOCUMENTATION = r"""
name: life_faults
short_description: Finds lives of CAs and certificates that do not fit together
version_added: 0.1.0
description:
  - Checks before a run whether the durations of a PKI fit together permanently, not only on the day on which its CA
    is new.
  - A CA cannot sign a certificate that lives longer than the CA, so it must be renewed before that.
author:
  - The k8sgu authors (@k8sgu)
options:
  _input:
    description: Durations by the names of their variables; each must be longer than the next.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Require lives that fit together
  ansible.builtin.assert:
    that: lives | k8sgu.cluster.life_faults | length == 0
  vars:
    lives: {ca_expiry: 87600h, ca_renew_before: 10200h, expiry: 8760h, renew_before: 60d}
"""

RETURN = r"""
_value:
  description: One sentence for each fault.
  type: list
  elements: str
"""


def life_faults(lives: Any) -> list[str]:
    if not isinstance(lives, Mapping):
        raise AnsibleFilterError("life_faults needs a dictionary of durations")
    faults, read = [], []
    for name, value in lives.items():
        try:
            read.append((str(name), value, parse_duration(value, str(name), days="renew_before" in str(name))))
        except PkiError as error:
            faults.append(str(error))
    for (longer, more, long), (shorter, less, short) in zip(read, read[1:]):
        if long <= short:
            faults.append(f"{longer} ({more}) must be longer than {shorter} ({less})")
    return faults


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"life_faults": life_faults}
