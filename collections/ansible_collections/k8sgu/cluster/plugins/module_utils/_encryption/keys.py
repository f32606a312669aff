# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys with which Secrets are encrypted at rest, and the four steps of their rotation.

The rule behind the steps: a key may write only after every API server can read with it, and may go only when nothing
written with it is left. https://kubernetes.io/docs/tasks/administer-cluster/encrypt-data/#rotating-a-decryption-key
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from dataclasses import dataclass
from typing import Any, Callable

# What secretbox wants, and the largest that aescbc takes.
KEY_BYTES = 32


class KeysError(Exception):
    """A key file that cannot be used, or a step taken out of turn; the text says the way out."""


@dataclass(frozen=True)
class Key:
    name: str
    secret: str  # base64 of KEY_BYTES random bytes


def random_secret() -> str:
    return base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def parse(text: str, path: str) -> list[Key]:
    """The keys of a key file, the writing one first. Raises KeysError."""
    try:
        keys = [Key(str(entry["name"]), str(entry["secret"])) for entry in json.loads(text)["keys"]]
        sizes = {len(base64.b64decode(key.secret, validate=True)) for key in keys}
    except (ValueError, KeyError, TypeError, binascii.Error):
        keys, sizes = [], set()
    if not keys or sizes != {KEY_BYTES} or len({key.name for key in keys}) != len(keys):
        raise KeysError(
            f"path: {path} is not a file of encryption keys; restore it from a backup. "
            "Without it, what is encrypted in etcd cannot be read any more"
        )
    return keys


def serialize(keys: list[Key]) -> str:
    document: dict[str, Any] = {"keys": [{"name": key.name, "secret": key.secret} for key in keys]}
    return json.dumps(document, indent=2) + "\n"


def next_name(keys: list[Key]) -> str:
    """`key-N` with an N that none of the keys has."""
    numbers = [int(key.name[4:]) for key in keys if key.name.startswith("key-") and key.name[4:].isdigit()]
    return f"key-{max(numbers, default=0) + 1}"


def plan(keys: list[Key], step: str, new_secret: Callable[[], str] = random_secret) -> tuple[list[Key], list[str]]:
    """The keys after a step and what changes, each with its reason.

    present: there is a key. added: a second key can be read with. promoted: the added key writes.
    dropped: only the writing key is left. Each is the same state when taken twice.
    """
    if not keys:
        if step != "present":
            raise KeysError(f"state: {step} rotates a key, and there is none yet; run with state: present first")
        return [Key("key-1", new_secret())], ["make key-1: there is no key"]
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
        return [*keys, Key(name, new_secret())], [f"add {name}: a rotation was asked for"]
    # promoted: the newest key has the highest number, so a second call does not swap them back.
    if len(keys) < 2:
        raise KeysError("state: promoted needs the key that state: added makes; take that step first")
    newest = max(keys, key=lambda key: int(key.name[4:]) if key.name[4:].isdigit() else 0)
    if keys[0] == newest:
        return keys, []
    return [newest, *(key for key in keys if key != newest)], [f"promote {newest.name}: every API server can read it"]
