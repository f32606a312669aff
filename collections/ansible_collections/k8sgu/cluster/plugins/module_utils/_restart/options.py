# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of workload_restart."""

from __future__ import annotations

from typing import Any

ARGUMENT_SPEC: dict[str, Any] = {
    "kubeconfig": {"type": "path", "required": True},
    "mark": {"type": "str", "required": True},
    "ignore": {"type": "list", "elements": "str", "default": []},
    "batch": {"type": "int", "default": 5},
    "timeout": {"type": "int", "default": 300},
    "request_timeout": {"type": "int", "default": 30},
}
