# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of node_drain."""

from __future__ import annotations

from typing import Any

ARGUMENT_SPEC: dict[str, Any] = {
    "kubeconfig": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["drained", "serving", "absent", "matching"], "default": "drained"},
    "nodes": {"type": "list", "elements": "str"},
    "returning": {"type": "list", "elements": "str", "default": []},
    "instances": {"type": "dict"},
    "complete": {"type": "bool", "default": False},
    "members": {"type": "list", "elements": "str", "default": []},
    "lives": {"type": "bool", "default": True},
    "reason": {"type": "str", "default": "drained by k8sgu"},
    "record": {"type": "path", "required": True},
    "timeout": {"type": "int", "default": 300},
    "batch": {"type": "int", "default": 1},
    "request_timeout": {"type": "int", "default": 30},
}

RULES: dict[str, Any] = {
    "required_if": [
        ("state", "drained", ["nodes"]),
        ("state", "absent", ["nodes"]),
        ("state", "matching", ["instances"]),
    ]
}
