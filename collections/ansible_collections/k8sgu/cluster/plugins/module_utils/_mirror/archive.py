# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Extracts programs from a publisher's archive."""

# Paths come and go as text here.
# ruff: noqa: PTH118, PTH119
from __future__ import annotations

import os
import tarfile
from typing import Iterable

from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.errors import MirrorError
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.files import PROGRAM_MODE, copy_stream, replacing


def extract(archive: str, members: Iterable[str], directory: str) -> dict[str, str]:
    """Extract `members` of a tar archive, each as a program under its base name; returns {base name: path}.

    A member may be below one directory of any name, as in etcd-v3.6.14-linux-amd64/etcd, or after `./`.
    """
    placed = {}
    try:
        with tarfile.open(archive) as tar:
            regular = {
                info.name[2:] if info.name.startswith("./") else info.name: info for info in tar if info.isfile()
            }
            for member in members:
                info = regular.get(member) or _below_one(regular, member)
                stream = tar.extractfile(info) if info else None
                if stream is None:
                    raise MirrorError(f"{archive}: has no file {member}; it has {', '.join(sorted(regular)) or 'none'}")
                name = os.path.basename(member)
                path = os.path.join(directory, name)
                with stream, replacing(path, PROGRAM_MODE) as target:
                    copy_stream(stream, target)
                placed[name] = path
    except (tarfile.TarError, EOFError) as error:
        raise MirrorError(f"{archive}: is not a readable tar archive: {error}") from error
    return placed


def _below_one(regular: dict[str, tarfile.TarInfo], member: str) -> tarfile.TarInfo | None:
    found = [info for name, info in regular.items() if name.partition("/")[2] == member]
    return found[0] if len(found) == 1 else None
