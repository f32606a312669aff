# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of k8sgu.cluster.manifest."""

from __future__ import annotations

from typing import Any

ARGUMENT_SPEC: dict[str, Any] = {
    "kubeconfig": {"type": "path", "required": True},
    "context": {"type": "str"},
    "name": {"type": "str", "required": True},
    "template": {"type": "list", "elements": "path"},
    "src": {"type": "list", "elements": "path"},
    "definition": {"type": "list", "elements": "raw"},
    "vars": {"type": "dict", "default": {}},
    "namespace": {"type": "str", "default": "default"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "prune": {"type": "bool", "default": True},
    "wait": {"type": "bool", "default": True},
    "wait_timeout": {"type": "int", "default": 120},
    "request_timeout": {"type": "int", "default": 30},
    "force_conflicts": {"type": "bool", "default": False},
    "take_over": {"type": "bool", "default": False},
}
