# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""File locks that end with the process that holds them."""

from __future__ import annotations

import fcntl
import time

_PAUSE_S = 0.1


def lock(handle: int, timeout: float) -> bool:
    """Locks an open file; returns whether that succeeded within `timeout` seconds. Closing the file releases it."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_PAUSE_S)
        except OSError:
            return True  # the file system has no locks: go on without
        else:
            return True
