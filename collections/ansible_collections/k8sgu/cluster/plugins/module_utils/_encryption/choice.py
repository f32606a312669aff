# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks the choice of what is encrypted at rest, and how, against what etcd already has.

A record on the controller says with what everything in etcd was last written. The module encryption_rewrite writes it
once every API server has its configuration and everything was rewritten, so the next run notices an interrupted one.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._encryption import keys

KMS = "kms"
LOCAL = ("secretbox", "aescbc")
# As EncryptionConfiguration names resources; wildcards would also take in what nobody has thought of.
_RESOURCE = re.compile(r"[a-z][a-z0-9]*(\.[a-z0-9][a-z0-9.-]*)?")
_ENDPOINT = re.compile(r"unix:///\S+")


class RecordError(Exception):
    """The record cannot be read; the text says what to do."""


@dataclass(frozen=True)
class Written:
    """With what everything is written: `key` is a key's name, empty with kms; `reads` is what all servers can read."""

    provider: str
    key: str
    resources: tuple[str, ...]
    reads: tuple[str, ...]


def wanted(provider: str, key: str, resources: list[str], endpoint: str) -> Written:
    """The result of a choice. `key` is the writing key's name, empty if there are no keys on the controller."""
    reads = [*(LOCAL if key else ()), *([KMS] if endpoint else [])]
    return Written(provider, "" if provider == KMS else key, tuple(sorted(set(resources))), tuple(sorted(reads)))


def from_options(options: dict[str, Any]) -> Written:
    """The choice in a module's option `choice`. Raises KeysError if the file of keys is damaged."""
    path = Path(options["keys_file"])
    key = keys.parse(path.read_text(), str(path))[0].name if path.exists() else ""
    return wanted(options["provider"], key, options["resources"], options["kms_endpoint"])


def read(path: Path) -> Written | None:
    """The record; None if nothing was written yet. Raises RecordError."""
    if not path.exists():
        return None
    try:
        fields = json.loads(path.read_text())
        return Written(
            str(fields["provider"]), str(fields["key"]), tuple(fields["resources"]), tuple(sorted(fields["reads"]))
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(
            f"record: {path} cannot be read ({error}); remove it, then everything is rewritten"
        ) from error


def serialize(written: Written) -> str:
    document: dict[str, Any] = asdict(written)
    return json.dumps(document, indent=2) + "\n"


def problems(choice: Written, endpoint: str, before: Written | None, servers: int) -> list[str]:
    """Why a choice cannot be carried out, with what to do instead. `servers` is the number of API servers.

    The rule: every API server must be able to read what another writes, and nothing in etcd may become unreadable.
    """
    found = [
        f"k8sgu_encryption_resources: {name!r} is not a resource; name each one, as secrets or deployments.apps"
        for name in choice.resources
        if not _RESOURCE.fullmatch(name)
    ]
    if endpoint and not _ENDPOINT.fullmatch(endpoint):
        found.append(f"k8sgu_encryption_kms_endpoint: {endpoint!r} is not a socket on the node; give unix:///path")
    if choice.provider == KMS and not endpoint:
        found.append("k8sgu_encryption_kms_endpoint: is empty, and k8sgu_encryption_provider is kms; give unix:///path")
    if before is None:
        return found
    if before.provider == KMS and not endpoint:
        found.append(
            "k8sgu_encryption_kms_endpoint: is empty, but etcd's content was encrypted through it; keep it until a run "
            "with another k8sgu_encryption_provider has rewritten everything"
        )
    if choice.provider not in before.reads and servers > 1:
        first = (
            "set k8sgu_encryption_kms_endpoint"
            if choice.provider == KMS
            else "make a key with the module k8sgu.cluster.encryption_keys"
        )
        found.append(
            f"k8sgu_encryption_provider: {choice.provider} would write what the other API servers cannot read yet; "
            f"first {first} and run playbooks/control_plane.yml with the former provider"
        )
    if KMS in before.reads and endpoint and choice.resources != before.resources:
        # A KMS v2 provider can be in only one list of resources, so it cannot also read what left the list.
        found.append(
            f"k8sgu_encryption_resources: cannot change from {', '.join(before.resources)} with a KMS provider; "
            "first run playbooks/control_plane.yml with another k8sgu_encryption_provider, then again without "
            "k8sgu_encryption_kms_endpoint, and then change them"
        )
    return found
