# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of mirror."""

from __future__ import annotations

from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.plan import SOURCES

ARGUMENT_SPEC: dict[str, Any] = {
    "kubernetes_version": {"type": "str", "required": True},
    "releases_dir": {"type": "path", "required": True},
    "mirror_dir": {"type": "path", "required": True},
    "source": {"type": "str", "choices": list(SOURCES), "default": "auto"},
    "source_dir": {"type": "path"},
    "architectures": {"type": "list", "elements": "str", "default": ["amd64"]},
    "container_runtime": {"type": "str", "choices": ["containerd", "docker"], "default": "containerd"},
    "pod_network": {"type": "str", "choices": ["routed", "vxlan"], "default": "routed"},
    "metrics_server": {"type": "bool", "default": True},
    "observability": {"type": "bool", "default": True},
    "demo": {"type": "bool", "default": True},
    "backup_bucket": {"type": "bool", "default": False},
    "cache_dir": {"type": "path"},
    "lock_file": {"type": "path"},
    "parallel": {"type": "int", "default": 4},
    "attempts": {"type": "int", "default": 5},
    "timeout": {"type": "int", "default": 30},
    "verify": {"type": "bool", "default": False},
}
