# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are too large to be written at once, and have their names when they are whole."""

# Paths are text here, as in the modules' options.
# ruff: noqa: PTH105, PTH118, PTH208
from __future__ import annotations

import contextlib
import os
import re
from typing import IO, Iterator

from ansible_collections.k8sgu.cluster.plugins.module_utils._files.atomic import is_alive, remove_file, sync_directory

_PART = re.compile(r"\..+\.(\d+)\.k8sgu-part")


@contextlib.contextmanager
def whole_file(path: str, mode: int = 0o600) -> Iterator[IO[bytes]]:
    """A stream to a file that has its name once the block ends without an error, and is on the disk.

    The directory has to be there; what killed runs left in it goes. Raises OSError.
    """
    directory, name = os.path.split(path)
    directory = directory or "."
    for left in os.listdir(directory):
        match = _PART.fullmatch(left)
        if match and not is_alive(int(match.group(1))):
            remove_file(os.path.join(directory, left))
    part = os.path.join(directory, f".{name}.{os.getpid()}.k8sgu-part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    finally:
        remove_file(part)
    sync_directory(directory)
