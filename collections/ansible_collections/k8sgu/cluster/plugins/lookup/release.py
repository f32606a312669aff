# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A release file for playbooks and templates."""

from __future__ import annotations

DOCUMENTATION = r"""
name: release
short_description: The release file of a Kubernetes version
version_added: 0.1.0
author:
  - The k8sgu authors (@k8sgu)
description:
  - Returns the content of the release file of a Kubernetes version, C(releases/1.36.yml) for 1.36.4.
  - The file is parsed once per process, however often variables made from it are used.
options:
  _terms:
    description: One Kubernetes version, such as V(1.36.4).
    type: list
    elements: str
    required: true
  directory:
    description: Directory of the release files.
    type: path
    required: true
"""

EXAMPLES = r"""
- name: The etcd of this release
  ansible.builtin.debug:
    msg: "{{ lookup('k8sgu.cluster.release', '1.36.4', directory='releases').components.etcd.version }}"
"""

RETURN = r"""
_raw:
  description: The release file as a dictionary; the comment at its top says where the fields are documented.
  type: list
  elements: dict
"""

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster.versions import is_release, three
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.errors import MirrorError
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.release import read_release


class LookupModule(LookupBase):  # type: ignore[misc]
    def run(self, terms: list[Any], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[Any]:
        self.set_options(var_options=variables, direct=kwargs)
        if len(terms) != 1 or not is_release(str(terms[0])):
            raise AnsibleError(f"release: {terms!r} is not one Kubernetes version of the form 1.36.4")
        major, minor, _patch = three(str(terms[0]))
        try:
            return [read_release(str(Path(self.get_option("directory")) / f"{major}.{minor}.yml"))]
        except MirrorError as error:
            raise AnsibleError(f"release: {error}") from error
