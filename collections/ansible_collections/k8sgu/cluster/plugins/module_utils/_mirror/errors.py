# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The errors of the mirror."""

from __future__ import annotations

import contextlib
import errno
import shutil
from typing import Iterator


class MirrorError(Exception):
    """The message says in one or two sentences what is wrong, where, and what the user can do."""


class Unavailable(MirrorError):
    """A publisher does not serve what it should. (Wrong content is a plain MirrorError.)"""


@contextlib.contextmanager
def storage_errors(path: str) -> Iterator[None]:
    """Turn an OSError about `path` into a MirrorError that names the path."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise MirrorError(
                f"{path}: no space left ({_free(path)} free); free some, or point mirror_dir and cache_dir at a larger "
                "file system, and run again: finished items are kept"
            ) from error
        raise MirrorError(f"{path}: {error.strerror or error}") from error


def _free(path: str) -> str:
    while path:
        with contextlib.suppress(OSError):
            return f"{shutil.disk_usage(path).free // 2**20} MiB"
        parent = path.rpartition("/")[0]
        path = parent if parent != path else ""
    return "unknown"
