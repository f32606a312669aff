# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of the modules of this package."""

from __future__ import annotations

from typing import Any

ARGUMENT_SPECS: dict[str, dict[str, Any]] = {
    "verify_cluster": {
        "kubeconfig": {"type": "path", "required": True},
        "kubectl": {"type": "path", "default": "kubectl"},
        "nodes": {"type": "list", "elements": "str", "required": True},
        "domain": {"type": "str", "default": "cluster.local"},
        "outside_name": {"type": "str", "default": ""},
        "api_port": {"type": "int", "default": 6443},
        "metrics_server": {"type": "bool", "default": False},
        "timeout": {"type": "int", "default": 120},
        "stopped_node": {"type": "str"},
        "autoscaling": {"type": "bool", "default": False},
    },
    "verify_node": {
        "node": {"type": "str", "required": True},
        "address": {"type": "str", "required": True},
        "control_plane": {"type": "bool", "default": False},
        "api_port": {"type": "int", "default": 6443},
        "etcd_members": {"type": "int", "default": 0},
        "etcd_snapshot_minutes": {"type": "int", "default": 0},
        "etcd_uploads_to": {"type": "str", "default": ""},
        "etcd_drills": {"type": "bool", "default": False},
        "plaintext_ports": {"type": "list", "elements": "int", "default": []},
        "port_table": {"type": "list", "elements": "dict", "default": []},
        "system_listeners": {"type": "list", "elements": "dict", "default": []},
        "exposure_limits": {"type": "dict", "default": {}},
        "secret_key": {"type": "str", "default": "/registry/secrets/k8sgu-verify/at-rest", "no_log": False},
        "encryption_prefix": {"type": "str", "default": "k8s:enc:"},
        "encrypted_resources": {"type": "list", "elements": "str", "default": []},
        "plaintext": {"type": "str", "default": "k8sgu-verify-plaintext-marker"},
        "user_agent": {"type": "str", "default": ""},
        "timeout": {"type": "int", "default": 0},
    },
    "verify_policies": {
        "kubeconfig": {"type": "path", "required": True},
        "domain": {"type": "str", "default": "cluster.local"},
        "timeout": {"type": "int", "default": 60},
    },
    "verify_report": {
        "checks": {"type": "list", "elements": "dict", "required": True},
        "junit": {"type": "path", "required": True},
        "suite": {"type": "str", "default": "verify"},
    },
}
