# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's part of _compiled: it is sent unchanged, and needs only Python (3.8 or newer) there."""

# Every execution pays for each import; pathlib and shutil cost more than what they would replace.
# ruff: noqa: PTH101, PTH103, PTH104, PTH112, PTH118, PTH120, PTH123

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from typing import Any

DIRECTORY = "/var/lib/k8sgu/python"
# Directories of other versions of the collection, which may be in use on the node right now.
KEPT = 3


def main(job: str, mark: str) -> None:
    """Prints the function's answer after the mark."""
    given = json.loads(job)
    try:
        answer = _answer(given)
    except Exception as error:
        import traceback

        message = f"{given['name']}: {type(error).__name__}: {error}"
        answer = {"failed": True, "msg": message, "exception": traceback.format_exc()}
    print(mark + json.dumps(answer))


def _answer(given: dict[str, Any]) -> Any:
    if os.geteuid() != 0:
        return {"failed": True, "msg": f"{given['name']}: needs root on the node; set become: true"}
    path = os.path.join(DIRECTORY, given["digest"])
    borrowed = not given["keep"] and not os.path.isdir(path)
    if borrowed:
        path = unpack(given["archive"], None)
    elif not os.path.isdir(path):
        keep(given["archive"], path)
    try:
        sys.path.insert(0, path)
        module, _colon, function = given["function"].partition(":")
        return getattr(import_module(module), function)(**given["arguments"])
    finally:
        if borrowed:
            remove(path)


def keep(archive: str, path: str) -> None:
    """Places the sources atomically, even if others do the same meanwhile, and removes what is long unused."""
    directory = os.path.dirname(path)
    os.makedirs(directory, 0o700, exist_ok=True)
    os.chmod(directory, 0o700)
    work = unpack(archive, directory)
    try:
        os.rename(work, path)
    except OSError:
        remove(work)
        if not os.path.isdir(path):
            raise
    others = [entry for entry in os.scandir(directory) if entry.path != path]
    others.sort(key=lambda entry: entry.stat().st_mtime, reverse=True)
    for entry in others[KEPT:]:
        remove(entry.path)


def unpack(archive: str, directory: str | None) -> str:
    """A new directory, which only its owner can enter, with the content of the archive (in Base64)."""
    import base64
    import io
    import tempfile
    import zipfile

    work = tempfile.mkdtemp(prefix=".", dir=directory)
    try:
        with zipfile.ZipFile(io.BytesIO(base64.b64decode(archive))) as sources:
            sources.extractall(work)
        for folder, _folders, names in os.walk(work):
            for name in names:
                # Otherwise a node that loses power may later find empty files under the final name.
                with open(os.path.join(folder, name), "rb") as stream:
                    os.fsync(stream.fileno())
    except BaseException:
        remove(work)
        raise
    return work


def remove(path: str) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)
