# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of the modules of this package."""

from __future__ import annotations

from typing import Any

ARGUMENT_SPECS: dict[str, dict[str, Any]] = {
    "upgrade_facts": {
        "kubernetes_version": {"type": "str", "required": True},
        "releases_dir": {"type": "path", "required": True},
        "mirror_dir": {"type": "path", "required": True},
        "architecture": {"type": "str", "required": True},
        "prepared": {"type": "dict"},
        "images": {"type": "list", "elements": "str", "default": []},
        "flags": {"type": "dict", "default": {}},
        "member": {"type": "str", "default": ""},
        "back": {"type": "bool", "default": False},
        "ask_programs": {"type": "bool", "default": False},
        "image_directory": {"type": "path", "default": "/var/lib/containerd"},
        "snapshot_directory": {"type": "path"},
    },
    "upgrade_gates": {
        "kubeconfig": {"type": "path", "required": True},
        "runs": {"type": "str", "required": True},
        "target": {"type": "str", "required": True},
        "direction": {"type": "str", "choices": ["forward", "back"], "default": "forward"},
        "staged": {"type": "bool", "default": False},
        "releases_dir": {"type": "path", "required": True},
        "nodes": {"type": "dict", "required": True},
        "drained": {"type": "list", "elements": "str"},
        "flags": {"type": "dict", "default": {}},
        "description": {"type": "list", "elements": "str", "default": []},
        "infrastructure": {"type": "dict", "default": {}},
        "state_dir": {"type": "path"},
        "verify": {"type": "list", "elements": "raw", "default": []},
        "patience": {"type": "int", "default": 20},
        "refuse": {"type": "bool", "default": True},
    },
}
