# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of pod_credentials."""

from __future__ import annotations

from typing import Any

ARGUMENT_SPEC: dict[str, Any] = {
    "pods_dir": {"type": "path", "default": "/var/lib/kubelet/pods"},
    "authorities": {"type": "list", "elements": "str", "default": []},
    "key_ids": {"type": "list", "elements": "str", "default": [], "no_log": False},
    "ignore": {"type": "list", "elements": "str", "default": []},
    "timeout": {"type": "int", "default": 180},
    "interval": {"type": "int", "default": 2},
}
