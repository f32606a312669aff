# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks that everything in etcd was written with the key that writes now. Standard library only: it runs on nodes."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._encryption.scan import scan
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import etcdctl

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call


class KeyStillNeeded(Exception):
    """Something in etcd was written with another key, or etcd cannot be read; the text says how to check."""


def run(call: Call) -> dict[str, Any]:
    """Raises KeyStillNeeded."""
    prefix = call.options["prefix"]
    try:
        found = scan(etcdctl.run, call.options["resources"], prefix, everything=True)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise KeyStillNeeded(f"etcd cannot be read: {error}; check with: etcdctl endpoint health --cluster") from error
    if found.others:
        raise KeyStillNeeded(
            f"not everything in etcd begins with {prefix}: {found.describe()}. No key may be dropped; "
            "check with: etcdctl get KEY | hexdump -C, and run playbooks/rotate_encryption_key.yml again"
        )
    return {"changed": False, "values": found.values}
