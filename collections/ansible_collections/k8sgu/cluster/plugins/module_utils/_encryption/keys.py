# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys with which Secrets are encrypted at rest, and the four steps of their rotation.

The rule: a key may write only after every API server can read with it, and may be removed only when nothing written
with it is left. https://kubernetes.io/docs/tasks/administer-cluster/encrypt-data/#rotating-a-decryption-key
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from dataclasses import asdict, dataclass
from typing import Any, Callable

# The size that secretbox needs, and the largest for aescbc.
KEY_BYTES = 32
FIELDS = ("name", "secretbox", "aescbc")
# Where a node keeps the keys; errors name it, so that a lost file of keys can be restored from there.
ON_NODES = "/etc/kubernetes/encryption.yml"


class KeysError(Exception):
    """The key file cannot be used, or a step is out of order; the text says what to do."""


@dataclass(frozen=True)
class Key:
    """A name with a separate secret for each algorithm, so that a weakness of one does not endanger the other.

    Each value is base64 of KEY_BYTES random bytes.
    """

    name: str
    secretbox: str
    aescbc: str


def random_secret() -> str:
    return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def parse(text: str, path: str) -> list[Key]:
    """The keys of a key file, the writing one first. Raises KeysError."""
    try:
        keys = [Key(*(str(row[field]) for field in FIELDS)) for row in json.loads(text)["keys"]]
        sizes = {len(base64.b64decode(value, validate=True)) for key in keys for value in (key.secretbox, key.aescbc)}
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error):
        keys, sizes = [], set()
    if not keys or sizes != {KEY_BYTES} or len({key.name for key in keys}) != len(keys):
        raise KeysError(
            f"path: {path} is not a file of encryption keys; restore it from a backup. "
            "Without it, encrypted data in etcd can no longer be read"
        )
    return keys


def serialize(keys: list[Key]) -> str:
    document: dict[str, Any] = {"keys": [asdict(key) for key in keys]}
    return json.dumps(document, indent=2) + "\n"


def next_name(keys: list[Key]) -> str:
    """`key-N` with an unused N."""
    numbers = [int(key.name[4:]) for key in keys if key.name.startswith("key-") and key.name[4:].isdigit()]
    return f"key-{max(numbers, default=0) + 1}"


def refuse_loss(path: str, in_use: list[str]) -> None:
    """Raises KeysError if nodes have keys and the file is gone: a new key would overwrite the last copy."""
    if in_use:
        raise KeysError(
            f"path: {path} is missing, but {', '.join(in_use)} already encrypts with keys, and replacing them "
            "would make everything in etcd unreadable. Restore the file from a backup, or rebuild it from "
            f"{ON_NODES} "
            'of that node: {"keys": [{"name": ..., "secretbox": ..., "aescbc": ...}]}, each name with its two secrets, '
            f"in that order. Only if you do not need the data in etcd: remove {ON_NODES} and "
            "/etc/systemd/system/kube-apiserver.service on every control-plane node"
        )


def plan(keys: list[Key], step: str, new_secret: Callable[[], str] = random_secret) -> tuple[list[Key], list[str]]:
    """The keys after a step and what changes, each with its reason.

    present: there is a key. added: a second key can read. promoted: the added key writes.
    dropped: only the writing key is left. Each step is idempotent.
    """
    if not keys:
        if step != "present":
            raise KeysError(f"state: {step} rotates a key, and there is none yet; run with state: present first")
        return [Key("key-1", new_secret(), new_secret())], ["make key-1: there is no key"]
    if step == "present":
        return keys, []
    if step == "dropped":
        gone = [f"drop {key.name}: {keys[0].name} writes" for key in keys[1:]]
        return keys[:1], gone
    if len(keys) > 2:
        raise KeysError("path: more than two keys are in the file; finish the rotation with state: dropped")
    if step == "added":
        if len(keys) == 2:
            return keys, []
        name = next_name(keys)
        return [*keys, Key(name, new_secret(), new_secret())], [f"add {name}: a rotation was asked for"]
    # promoted: the newest key has the highest number, so a second call does not swap them back.
    if len(keys) < 2:
        raise KeysError("state: promoted needs the key that state: added makes; take that step first")
    newest = max(keys, key=lambda key: int(key.name[4:]) if key.name[4:].isdigit() else 0)
    if keys[0] == newest:
        return keys, []
    return [newest, *(key for key in keys if key != newest)], [f"promote {newest.name}: every API server can read it"]
