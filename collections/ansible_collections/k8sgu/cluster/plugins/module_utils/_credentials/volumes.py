# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the volumes in which a node's pods have tokens and authorities. Standard library only: it runs on nodes.

The kubelet writes such a volume into a directory with the time in its name, and then has the link `..data` point there:
https://pkg.go.dev/k8s.io/kubernetes/pkg/volume/util#AtomicWriter. They are in memory, each a mount of its own, so that
nothing is left in the directory of a pod that has ended, or of one from before a reboot.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import stat
from pathlib import Path
from typing import Any, Iterator, Mapping, NamedTuple

# Legacy tokens of Secrets are in volumes of the second kind.
_KINDS = ("kubernetes.io~projected", "kubernetes.io~secret")
# No object of Kubernetes is larger.
_MOST_BYTES = 1 << 20
_AUTHORITIES = "ca.crt"
_TOKEN = re.compile(r"([\w-]+)\.([\w-]+)\.[\w-]*", re.ASCII)
# The volume that every pod gets, if it does not refuse.
_OF_EVERY_POD = "kube-api-access-"
_CLAIM, _LEGACY_CLAIM = "kubernetes.io", "kubernetes.io/serviceaccount/"


class Token(NamedTuple):
    """A service account's token, without the token: the id of the key that signed it, and what it says.

    `pod` is namespace/name of the pod that it is bound to, else empty. `expires` is None if it does not.
    """

    file: str
    kid: str
    pod: str
    expires: float | None
    for_api: bool


class Volume(NamedTuple):
    """A volume of a pod; `authorities` has the text of each file ca.crt by its path in the volume."""

    uid: str
    name: str
    tokens: tuple[Token, ...]
    authorities: Mapping[str, str]

    @property
    def for_api(self) -> bool:
        """Whether the API server's clients read it, as far as that can be told."""
        return self.name.startswith(_OF_EVERY_POD) or any(token.for_api for token in self.tokens)


def read(pods: Path) -> list[Volume]:
    """The volumes of all pods in which there is a token or a file ca.crt, in the order of their paths.

    Raises OSError, also if the directory is not there.
    """
    found = []
    for uid in sorted(path.name for path in pods.iterdir()):
        for kind in _KINDS:
            place = pods / uid / "volumes" / kind
            try:
                names = sorted(path.name for path in place.iterdir())
            except (FileNotFoundError, NotADirectoryError):
                continue  # the pod has none, or has just ended
            found += [volume for volume in (_volume(uid, place / name) for name in names) if volume]
    return found


def _volume(uid: str, place: Path) -> Volume | None:
    """The volume; None if it has nothing of interest, or nothing at all: not yet, or no more."""
    before = ""
    while True:
        try:
            link = os.readlink(place / "..data")
        except (FileNotFoundError, NotADirectoryError):
            return None
        if link == before:
            return None  # it points nowhere: the volume is being removed
        try:
            files = dict(_files(place / link))
        except FileNotFoundError:
            before = link  # the kubelet has written it anew meanwhile
            continue
        tokens = [token for token in (_token(file, text) for file, text in files.items()) if token]
        authorities = {file: text for file, text in files.items() if Path(file).name == _AUTHORITIES}
        return Volume(uid, place.name, tuple(tokens), authorities) if tokens or authorities else None


def _files(top: Path) -> Iterator[tuple[str, str]]:
    """The path below `top` and the text of each file. Raises OSError, FileNotFoundError if one is gone."""

    def failed(error: OSError) -> None:
        raise error

    for directory, _directories, names in os.walk(top, onerror=failed):
        for name in sorted(names):
            path = Path(directory, name)
            found = path.lstat()
            if stat.S_ISREG(found.st_mode) and found.st_size <= _MOST_BYTES:
                yield str(path.relative_to(top)), path.read_text(encoding="utf-8", errors="replace")


def _token(file: str, text: str) -> Token | None:
    """What a token says; None if the text is no token of a service account. Its signature is not looked at."""
    parts = _TOKEN.fullmatch(text.strip())
    if not parts:
        return None
    header, payload = _decoded(parts.group(1)), _decoded(parts.group(2))
    claim = payload.get(_CLAIM)
    legacy = any(str(name).startswith(_LEGACY_CLAIM) for name in payload)
    if not isinstance(claim, dict) and not legacy:
        return None
    bound = claim if isinstance(claim, dict) else {}
    of = bound.get("pod")
    pod = f"{bound.get('namespace')}/{of.get('name')}" if isinstance(of, dict) else ""
    audience, issuer, expires = payload.get("aud"), payload.get("iss"), payload.get("exp")
    # By default the API server's audience is its issuer.
    own = bool(issuer) and issuer in (audience if isinstance(audience, list) else [audience])
    until = float(expires) if isinstance(expires, (int, float)) else None
    return Token(file, str(header.get("kid") or ""), pod, until, legacy or own)


def _decoded(part: str) -> dict[str, Any]:
    """A part of a token as data; empty if it is none."""
    try:
        data = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (binascii.Error, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
