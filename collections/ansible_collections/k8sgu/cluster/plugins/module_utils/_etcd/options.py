# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of the modules of this package."""

from __future__ import annotations

from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import etcdctl, snapshots

_PROGRAM: dict[str, Any] = {
    "etcdctl": {"type": "path", "default": etcdctl.PROGRAM},
    "environment": {"type": "path", "default": etcdctl.ENVIRONMENT},
}

_SNAPSHOTS: dict[str, Any] = {"directory": {"type": "path", "default": snapshots.DIRECTORY}}
_UTILITY: dict[str, Any] = {"etcdutl": {"type": "path", "default": etcdctl.UTILITY}}
_DATA: dict[str, Any] = {"data_dir": {"type": "path", "default": "/var/lib/etcd"}}
# What a restore goes by until its end.
_RECORD: dict[str, Any] = {"record": {"type": "path", "default": "/var/lib/k8sgu/etcd-restore.json"}}

# By which a snapshot is known to be one of this cluster, which can be read.
_FIT: dict[str, Any] = {
    "nodes": {"type": "list", "elements": "str"},
    "authority": {"type": "str"},
    "encryption_prefixes": {"type": "list", "elements": "str"},
}
# By which it is known to leave room for writes.
_QUOTA: dict[str, Any] = {"quota": {"type": "int", "default": 0}}

ARGUMENT_SPECS: dict[str, dict[str, Any]] = {
    "etcd_drill": {
        "snapshot": {"type": "str", "required": True},
        **{name: {**option, "required": True} for name, option in _FIT.items()},
        **_QUOTA,
        "drill_dir": {"type": "path", "default": "/var/lib/k8sgu/drill"},
        "timeout": {"type": "int", "default": 300},
        "etcd": {"type": "path", "default": "/opt/k8sgu/etcd/current/etcd"},
        **_SNAPSHOTS,
        **_UTILITY,
        **_PROGRAM,
    },
    "etcd_member": {
        "name": {"type": "str"},
        "state": {"type": "str", "choices": ["learner", "voter", "follower", "absent"], "required": True},
        "leaving": {"type": "dict"},
        "retired": {"type": "list", "elements": "str", "default": []},
        "nodes": {"type": "dict", "required": True},
        "without_data": {"type": "list", "elements": "str", "default": []},
        "peer_port": {"type": "int", "default": 2380},
        "timeout": {"type": "int", "default": 120},
        **_PROGRAM,
    },
    "etcd_restore": {
        "id": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["prepared", "aside", "placed", "serving", "finished"], "required": True},
        "snapshot": {"type": "str"},
        "name": {"type": "str"},
        "peer_url": {"type": "str"},
        **_FIT,
        **_QUOTA,
        "bump": {"type": "int", "default": 1_000_000_000},
        **_DATA,
        "timeout": {"type": "int", "default": 300},
        **_SNAPSHOTS,
        **_RECORD,
        **_UTILITY,
        **_PROGRAM,
    },
    "etcd_snapshot": {
        **_SNAPSHOTS,
        "series": {"type": "str", "default": "manual"},
        "label": {"type": "str", "default": ""},
        "max_age": {"type": "int", "default": 86400},
        "keep": {"type": "int", "default": 3},
        "disk_percent": {"type": "int", "default": 100},
        "timeout": {"type": "int", "default": 300},
        **_UTILITY,
        **_PROGRAM,
    },
    "etcd_snapshot_info": {
        **_SNAPSHOTS,
        "incoming": {"type": "path", "default": snapshots.INCOMING},
        **_RECORD,
        **_DATA,
        **_PROGRAM,
    },
    "etcd_space": {
        "state": {"type": "str", "choices": ["defragmented", "writable"], "required": True},
        "percent": {"type": "int", "default": 45},
        "nodes": {"type": "dict", "default": {}},
        "timeout": {"type": "int", "default": 300},
        **_PROGRAM,
    },
    "etcd_version": {
        "version": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["ready", "settled"], "required": True},
        "nodes": {"type": "dict", "required": True},
        "timeout": {"type": "int", "default": 120},
        **_PROGRAM,
    },
}
RULES: dict[str, Any] = {
    "required_if": [
        ("state", "learner", ["name"]),
        ("state", "voter", ["name"]),
        ("state", "follower", ["leaving"]),
        ("state", "absent", ["leaving"]),
    ]
}
RESTORE_RULES: dict[str, Any] = {
    "required_if": [
        ("state", "prepared", ["snapshot", "name", "peer_url", "nodes", "authority", "encryption_prefixes"]),
    ]
}


def with_defaults(module: str, **given: Any) -> dict[str, Any]:
    """A module's options as Ansible would hand them over."""
    return {**{name: option.get("default") for name, option in ARGUMENT_SPECS[module].items()}, **given}
