# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of the modules of this package."""

from __future__ import annotations

from typing import Any

ARGUMENT_SPECS: dict[str, dict[str, Any]] = {
    "security_facts": {},
    "security_report": {
        "kubeconfig": {"type": "path", "required": True},
        "nodes": {"type": "dict", "required": True},
        "control_plane": {"type": "list", "elements": "str", "required": True},
        "worker": {"type": "list", "elements": "str", "default": []},
        "accepted": {"type": "dict", "default": {}},
        "path": {"type": "path", "required": True},
        "patience": {"type": "int", "default": 30},
    },
}
