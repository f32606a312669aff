# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of the modules of this package."""

from __future__ import annotations

from typing import Any

ARGUMENT_SPECS: dict[str, dict[str, Any]] = {
    "audit_events": {
        "path": {"type": "path", "default": "/var/log/kubernetes/audit.log"},
        "node": {"type": "str", "required": True},
        "since": {"type": "str", "default": "1h"},
        "until": {"type": "str", "default": "0s"},
        "users": {"type": "list", "elements": "str", "default": []},
        "verbs": {"type": "list", "elements": "str", "default": []},
        "resources": {"type": "list", "elements": "str", "default": []},
        "namespaces": {"type": "list", "elements": "str", "default": []},
        "names": {"type": "list", "elements": "str", "default": []},
        "limit": {"type": "int", "default": 1000},
    },
    "node_facts": {},
}
