# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks every value in etcd for the key that writes. Standard library only, since it runs on a node."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Callable, Iterator

ROOT = "/registry/"
ENCRYPTED = b"k8s:enc:"
# An encrypted value can be as large as a Secret, 1 MiB; etcd's answers have at most 512 MiB.
PAGE = 200
# Resources that the API server keeps under another name.
ELSEWHERE = {
    "services": ["services/specs"],
    "endpoints": ["services/endpoints"],
    "nodes": ["minions"],
    "replicationcontrollers": ["controllers"],
    "ingresses.networking.k8s.io": ["ingress"],
}
SHOWN = 5

Etcdctl = Callable[..., bytes]


@dataclass
class Found:
    """The number of values read, and the etcd keys of those that are not encrypted with the writing key."""

    values: int = 0
    others: list[str] = field(default_factory=list)

    def describe(self) -> str:
        if not self.others:
            return f"{self.values} values, all of them"
        more = len(self.others) - SHOWN
        return f"not {', '.join(self.others[:SHOWN])}" + (f" and {more} more" if more > 0 else "")


def places(resource: str) -> list[str]:
    """The prefixes in etcd of a resource, named as in EncryptionConfiguration: "secrets" or "deployments.apps".

    Custom resources and some groups have the group in their prefix; the other prefix is then empty.
    """
    name, _dot, group = resource.partition(".")
    paths = ELSEWHERE.get(resource, [name, *([f"{group}/{name}"] if group else [])])
    return [f"{ROOT}{path}/" for path in paths]


def values(etcdctl: Etcdctl, prefix: str) -> Iterator[tuple[str, bytes]]:
    """(key, value) of everything below a prefix, read page by page."""
    start, end, last = prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1), ""
    while True:
        page = json.loads(etcdctl("get", start, end, "-w", "json", "--limit", str(PAGE)))
        for row in page.get("kvs") or []:
            key = base64.b64decode(row["key"]).decode(errors="replace")
            if key != last:
                yield key, base64.b64decode(row.get("value") or "")
            start = key
        if not page.get("more") or start == last:
            return
        # Each page starts with the last key of the one before: the next possible key would contain a zero byte.
        last = start


def scan(etcdctl: Etcdctl, resources: list[str], prefix: str, everything: bool = False) -> Found:
    """Finds values of the resources without `prefix`; with `everything` also others that another key encrypted."""
    found, mine = Found(), [place for resource in resources for place in places(resource)]
    for start in [ROOT] if everything else mine:
        for key, value in values(etcdctl, start):
            chosen = key.startswith(tuple(mine))
            found.values += chosen
            if (chosen or value.startswith(ENCRYPTED)) and not value.startswith(prefix.encode()):
                found.others.append(key)
    return found
