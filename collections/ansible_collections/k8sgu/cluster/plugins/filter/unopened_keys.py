# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter unopened_keys."""

from __future__ import annotations

from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ansible_collections.k8sgu.cluster.plugins.module_utils._options import libraries
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import keys, store

DOCUMENTATION = r"""
name: unopened_keys
short_description: Finds the encrypted keys that a passphrase does not decrypt
version_added: 0.1.0
description:
  - Checks before a run whether M(k8sgu.cluster.cfssl_cert) can use these keys.
  - Ignores keys that are missing, not encrypted or broken, which the module reports. Ignores all keys if Ansible's own
    Python does not have the library cryptography.
author:
  - The k8sgu authors (@k8sgu)
options:
  _input:
    description: Files on the controller.
    type: list
    elements: path
    required: true
  passphrase:
    description: The passphrase; empty for none, which decrypts no key.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Require the right passphrase
  ansible.builtin.assert:
    that: keys | k8sgu.cluster.unopened_keys(passphrase) | length == 0
  vars:
    keys: [/srv/pki/ca-key.pem]
"""

RETURN = r"""
_value:
  description: Those of O(_input) that are encrypted with another passphrase.
  type: list
  elements: str
"""


def unopened_keys(paths: Any, passphrase: Any) -> list[str]:
    if not isinstance(paths, (list, tuple)):
        raise AnsibleFilterError("unopened_keys needs a list of files")
    if not libraries.usable(libraries.CRYPTOGRAPHY):
        return []
    disk = store.Disk()
    return [str(path) for path in paths if _is_unopened(disk, str(path), str(passphrase))]


def _is_unopened(disk: store.Disk, path: str, passphrase: str) -> bool:
    try:
        found = disk.read(path)
        if found is not None:
            keys.load(found[0], passphrase or None)
    except (keys.PassphraseNeeded, keys.PassphraseWrong):
        return True
    except (OSError, keys.KeyUnreadable):
        pass
    return False


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"unopened_keys": unopened_keys}
