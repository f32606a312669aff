# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of the modules of this package."""

from __future__ import annotations

from typing import Any

_CHOICE: dict[str, Any] = {
    "provider": {"type": "str", "choices": ["secretbox", "aescbc", "kms"], "required": True},
    "resources": {"type": "list", "elements": "str", "required": True},
    "kms_endpoint": {"type": "str", "default": ""},
    "keys_file": {"type": "path", "required": True, "no_log": False},
    "record": {"type": "path", "required": True},
    "servers": {"type": "int", "default": 1},
}

ARGUMENT_SPECS: dict[str, dict[str, Any]] = {
    "encryption_keys": {
        "path": {"type": "path", "required": True},
        "state": {"type": "str", "choices": ["present", "added", "promoted", "dropped"], "default": "present"},
        "in_use": {"type": "list", "elements": "str", "default": []},
        "choice": {"type": "dict", "options": _CHOICE},
    },
    "encryption_rewrite": {
        "kubeconfig": {"type": "path", "required": True},
        "choice": {"type": "dict", "required": True, "options": _CHOICE},
        "patience": {"type": "int", "default": 60},
    },
    "encryption_scan": {
        "resources": {"type": "list", "elements": "str", "required": True},
        "prefix": {"type": "str", "required": True},
    },
}
