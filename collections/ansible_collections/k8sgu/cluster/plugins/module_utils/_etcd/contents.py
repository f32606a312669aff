# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a database of etcd tells of the cluster that wrote it, without an etcd that serves it.

Each value is stored under its revision as a message of Protocol Buffers (KeyValue in
https://github.com/etcd-io/etcd/blob/main/api/mvccpb/kv.proto); of a key that was deleted, the last one has no value.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Iterable

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import bolt, pages
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.bolt import BoltError
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.snapshot_file import MEMBERS

VALUES = b"key"
# The controller manager keeps the cluster's CA there in every namespace: https://kubernetes.io/docs/concepts/security/service-accounts/
_ROOT_CA = b"/registry/configmaps/kube-system/kube-root-ca.crt"
# Provider and name of the key come first: https://kubernetes.io/docs/tasks/administer-cluster/encrypt-data/
_ENCRYPTED = re.compile(rb"k8s:enc:[a-z]+:v\d+:[^:]{1,253}:")
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")
# Of a revision, which has two numbers of eight bytes. One by which a key was deleted has a mark behind it.
_REVISION_BYTES = 17
_KEY, _VALUE = 1, 5
_BYTES, _NUMBER = 2, 0


@dataclass(frozen=True)
class Contents:
    """`members`: names of the members. `encrypted`: {prefix of the value, with provider and key's name: how many}.

    `authority`: the certificates of the cluster's CA, each as PEM in one line; empty if not there, or encrypted.
    `bytes`: what the values that are current take in a database without history and free pages, as computed.
    """

    members: tuple[str, ...]
    encrypted: dict[str, int]
    authority: frozenset[str]
    bytes: int = 0


def read(path: str) -> Contents:
    """Raises BoltError, OSError, ValueError."""
    members = [json.loads(content) for content in bolt.bucket(path, MEMBERS).values()]
    return Contents(
        tuple(sorted(str(member.get("name") or "") for member in members)),
        *_values(bolt.items(path, VALUES)),
    )


def _values(items: Iterable[tuple[bytes, bytes]]) -> tuple[dict[str, int], frozenset[str], int]:
    """Of the values that are current; `items` in the order of their revisions."""
    encrypted: dict[bytes, bytes] = {}
    authority = b""
    sizes: dict[bytes, int] = {}
    for revision, content in items:
        key, value = _parsed(content)
        # In the order of their last revisions, in which a database has them.
        sizes.pop(key, None)
        if len(revision) == _REVISION_BYTES:
            sizes[key] = len(content)
        found = _ENCRYPTED.match(value)
        if found:
            encrypted[key] = found[0]
        else:
            encrypted.pop(key, None)
        if key == _ROOT_CA:
            authority = value
    counts: dict[str, int] = {}
    for prefix in encrypted.values():
        counts[prefix.decode()] = counts.get(prefix.decode(), 0) + 1
    return dict(sorted(counts.items())), frozenset(certificates(authority)), pages.packed(sizes.values())


def certificates(text: bytes) -> list[str]:
    """The certificates in a text of any kind, each as PEM in one line."""
    return [b"".join(found.split(b"\n")).decode() for found in _CERTIFICATE.findall(text)]


def _parsed(content: bytes) -> tuple[bytes, bytes]:
    """Key and value of a KeyValue. Raises BoltError."""
    key = value = b""
    place = 0
    while place < len(content):
        tag, place = _number(content, place)
        size, place = _number(content, place)
        field, kind = tag >> 3, tag & 7
        if kind == _NUMBER:
            continue
        if kind != _BYTES or place + size > len(content):
            raise BoltError("a value is no KeyValue")
        if field == _KEY:
            key = content[place : place + size]
        elif field == _VALUE:
            value = content[place : place + size]
        place += size
    return key, value


def _number(content: bytes, place: int) -> tuple[int, int]:
    """A number of variable length, and the place after it: https://protobuf.dev/programming-guides/encoding/#varints"""
    total = shift = 0
    while place < len(content):
        byte = content[place]
        place += 1
        total |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return total, place
        shift += 7
    raise BoltError("a value is no KeyValue")
