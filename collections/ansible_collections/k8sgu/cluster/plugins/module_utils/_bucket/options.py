# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of the module backup_bucket."""

from __future__ import annotations

from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.options import CONNECTION_OPTIONS

ARGUMENT_SPEC: dict[str, Any] = {
    "state": {"type": "str", "choices": ["listed", "fetched", "stored"], "required": True},
    "bucket": {"type": "str", "required": True},
    "cluster": {"type": "str", "required": True},
    "snapshot": {"type": "str"},
    "backup": {"type": "str"},
    "path": {"type": "path"},
    "identity_files": {"type": "list", "elements": "path", "default": []},
    **CONNECTION_OPTIONS,
}
RULES: dict[str, Any] = {
    "mutually_exclusive": [("snapshot", "backup")],
    "required_if": [
        ("state", "fetched", ["path"]),
        ("state", "fetched", ["snapshot", "backup"], True),
        ("state", "stored", ["path"]),
    ],
}
