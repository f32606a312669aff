# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Atomic writes for the whole collection, so that no file is ever half-written.

    from ansible_collections.k8sgu.cluster.plugins.module_utils._files import atomic_write

Standard library only, Python 3.8. Helpers raise FileError; only a module's main turns it into fail_json.
"""

from __future__ import annotations

from ansible_collections.k8sgu.cluster.plugins.module_utils._files.atomic import (
    FileError,
    atomic_write,
    backup_file,
    ensure_directory,
    finish_replace,
    is_alive,
    pending_files,
    remove_file,
    replace_together,
    resolve_destination,
    stray_temporaries,
    sync_directory,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._files.hashes import sha256_of
from ansible_collections.k8sgu.cluster.plugins.module_utils._files.locks import lock
from ansible_collections.k8sgu.cluster.plugins.module_utils._files.room import free_bytes
from ansible_collections.k8sgu.cluster.plugins.module_utils._files.whole import whole_file

__all__ = [
    "FileError",
    "atomic_write",
    "backup_file",
    "ensure_directory",
    "finish_replace",
    "free_bytes",
    "is_alive",
    "lock",
    "pending_files",
    "remove_file",
    "replace_together",
    "resolve_destination",
    "sha256_of",
    "stray_temporaries",
    "sync_directory",
    "whole_file",
]
