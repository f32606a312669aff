# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter key_ids."""

from __future__ import annotations

from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ansible_collections.k8sgu.cluster.plugins.module_utils._credentials import pem

DOCUMENTATION = r"""
name: key_ids
short_description: The ids that kube-apiserver gives to keys of service-account tokens
version_added: 0.1.0
description:
  - A token names in its header (C(kid)) the key that signed it, by a hash of the public key.
  - This makes the same of the public keys.
author:
  - The k8sgu authors (@k8sgu)
options:
  _input:
    description: PEM text with one or more blocks C(PUBLIC KEY), and no block of another kind.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show the id of the key
  ansible.builtin.debug:
    msg: "{{ lookup('ansible.builtin.file', 'service-account.pub') | k8sgu.cluster.key_ids }}"
"""

RETURN = r"""
_value:
  description: The id of each key, in the order of the text, without repetition.
  type: list
  elements: str
"""


def key_ids(text: Any) -> list[str]:
    if not isinstance(text, str):
        raise AnsibleFilterError("key_ids takes the PEM text of public keys")
    try:
        return pem.key_ids(text)
    except pem.PemError as error:
        raise AnsibleFilterError(f"key_ids: the text {error}; give the public keys") from error


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"key_ids": key_ids}
