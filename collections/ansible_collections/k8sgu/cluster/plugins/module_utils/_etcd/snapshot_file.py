# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a snapshot file holds, and whether it is whole."""

# Paths are text here, as in the options.
# ruff: noqa: PTH123, PTH202
from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from typing import Any, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import bolt, etcdctl
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.etcdctl import EtcdError
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.members import FAULTS

MEMBERS = b"members"
_DIGEST = hashlib.sha256().digest_size
_SECTOR = 512
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Facts:
    """What etcdutl says of a snapshot. `members`: ids of the members that it lists."""

    revision: int
    keys: int
    hash: str
    bytes: int
    members: frozenset[int]


def facts(path: str, options: Mapping[str, Any]) -> Facts:
    """Raises EtcdError if the file is not a whole snapshot, OSError."""
    size = os.path.getsize(path)
    _check_digest(path, size)
    try:
        # It walks through every page, and so finds those that are damaged.
        said = etcdctl.run(
            *("snapshot", "status", path, "-w", "json"),
            program=options["etcdutl"],
            environment=options["environment"],
            timeout=options["timeout"],
        )
        status = json.loads(said)
        members = frozenset(int(key, 16) for key in bolt.bucket(path, MEMBERS))
        return Facts(int(status["revision"]), int(status["totalKey"]), f"{int(status['hash']):08x}", size, members)
    except (*FAULTS, LookupError, bolt.BoltError) as error:
        raise EtcdError(f"{path} is no whole snapshot: etcdutl snapshot status: {etcdctl.reason(error)}") from error


def _check_digest(path: str, size: int) -> None:
    """etcd sends a SHA-256 of the database after it: etcdctl keeps it, and only a restore would look at it."""
    if size % _SECTOR != _DIGEST:
        raise EtcdError(f"{path} is no whole snapshot: of its {size} bytes no SHA-256 is at the end, so it was cut off")
    total = hashlib.sha256()
    with open(path, "rb") as stream:
        left = size - _DIGEST
        while left:
            block = stream.read(min(_BLOCK, left))
            if not block:
                raise EtcdError(f"{path} is no whole snapshot: it became shorter")
            total.update(block)
            left -= len(block)
        if stream.read(_DIGEST) != total.digest():
            raise EtcdError(f"{path} is no whole snapshot: its content is not what its SHA-256 was made of")
