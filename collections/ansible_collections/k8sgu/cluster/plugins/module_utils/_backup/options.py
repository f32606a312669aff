# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of the modules cluster_backup and backup_key."""

from __future__ import annotations

from typing import Any

ARGUMENT_SPECS: dict[str, dict[str, dict[str, Any]]] = {
    "cluster_backup": {
        "state": {"type": "str", "choices": ["made", "opened"], "required": True},
        "cluster": {"type": "str", "required": True},
        "state_dir": {"type": "path", "required": True},
        "path": {"type": "path", "required": True},
        "snapshots": {"type": "list", "elements": "path", "default": []},
        "passphrase": {"type": "str", "no_log": True},
        "recipients": {"type": "list", "elements": "str", "default": []},
        "identity_file": {"type": "path"},
        "fixed": {"type": "dict", "default": {}},
        "keep": {"type": "int", "default": 0},
    },
    "backup_key": {
        "path": {"type": "path", "required": True},
        "public_path": {"type": "path", "required": True},
    },
}
