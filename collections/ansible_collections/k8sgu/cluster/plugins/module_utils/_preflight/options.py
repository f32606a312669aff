# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of the modules of this package."""

from __future__ import annotations

from typing import Any

ARGUMENT_SPECS: dict[str, dict[str, Any]] = {
    "preflight_description": {
        "values": {"type": "dict", "required": True},
        "seen": {"type": "list", "elements": "str", "required": True},
        "nodes": {"type": "list", "elements": "dict", "default": []},
        "port_table": {"type": "list", "elements": "dict", "default": []},
        "roles_dir": {"type": "path", "required": True},
        "described": {"type": "bool", "default": False},
        "living": {"type": "dict"},
    },
    "preflight_node": {
        "reach": {"type": "list", "elements": "str", "default": []},
        "volume": {"type": "str", "default": ""},
    },
}
