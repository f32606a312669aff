# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one error of the mirror."""

from __future__ import annotations

import contextlib
import errno
import shutil
from typing import Iterator


class MirrorError(Exception):
    """What is wrong, where, and the way out, as one sentence or two that a user can act on."""


class Unavailable(MirrorError):
    """A publisher that does not give what it should have. What it gives and is wrong is no such case."""


@contextlib.contextmanager
def storage_errors(path: str) -> Iterator[None]:
    """Turn what the file system says about `path` into a MirrorError that names it."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise MirrorError(
                f"{path}: no space left ({_free(path)} free); free some, or point mirror_dir and cache_dir at a larger "
                "file system, and run again: what is complete is kept"
            ) from error
        raise MirrorError(f"{path}: {error.strerror or error}") from error


def _free(path: str) -> str:
    while path:
        with contextlib.suppress(OSError):
            return f"{shutil.disk_usage(path).free // 2**20} MiB"
        parent = path.rpartition("/")[0]
        path = parent if parent != path else ""
    return "unknown"
