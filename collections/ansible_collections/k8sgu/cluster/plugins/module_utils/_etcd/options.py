# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of etcd_member."""

from __future__ import annotations

from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import etcdctl

ARGUMENT_SPEC: dict[str, Any] = {
    "name": {"type": "str"},
    "state": {"type": "str", "choices": ["learner", "voter", "absent"], "required": True},
    "leaving": {"type": "dict"},
    "nodes": {"type": "dict", "required": True},
    "without_data": {"type": "list", "elements": "str", "default": []},
    "peer_port": {"type": "int", "default": 2380},
    "timeout": {"type": "int", "default": 120},
    "etcdctl": {"type": "path", "default": etcdctl.PROGRAM},
    "environment": {"type": "path", "default": etcdctl.ENVIRONMENT},
}
RULES: dict[str, Any] = {
    "required_if": [("state", "learner", ["name"]), ("state", "voter", ["name"]), ("state", "absent", ["leaving"])]
}
