# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of k8sgu.cluster.component, for the action plugin, which checks them, and the module."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Dict

from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import Leaves

Spec = Dict[str, Any]


def _contents() -> Spec:
    return {
        "template": {"type": "path"},
        "src": {"type": "path"},
        "content": {"type": "str"},
        "vars": {"type": "dict", "default": {}},
    }


def _access(mode: str) -> Spec:
    return {
        "owner": {"type": "str", "default": "root"},
        "group": {"type": "str", "default": "root"},
        "mode": {"type": "str", "default": mode},
    }


def _unit() -> Spec:
    return {
        "name": {"type": "str", "required": True},
        **_contents(),
        "enabled": {"type": "bool", "default": True},
        "state": {"type": "str", "choices": ["started", "on_demand", "stopped", "absent"], "default": "started"},
    }


def _component() -> Spec:
    return {
        "name": {"type": "str", "required": True},
        "binaries": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "component": {"type": "str", "required": True},
                "version": {"type": "str", "required": True},
                "files": {"type": "list", "elements": "str", "default": []},
                "links": {"type": "list", "elements": "str", "default": []},
                "restart": {"type": "bool", "default": True},
            },
        },
        "content": {
            "type": "dict",
            "options": {
                "directory": {"type": "path", "required": True},
                "index": {"type": "path", "required": True},
                "files": {"type": "list", "elements": "str", "default": []},
                "images": {"type": "list", "elements": "str", "default": []},
            },
        },
        "packages": {"type": "list", "elements": "str", "default": []},
        "user": {
            "type": "dict",
            "options": {
                "name": {"type": "str", "required": True},
                "group": {"type": "str"},
                "home": {"type": "path", "default": "/nonexistent"},
            },
        },
        "directories": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {"path": {"type": "path", "required": True}, **_access("0755")},
        },
        "files": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "dest": {"type": "path", "required": True},
                **_contents(),
                "zipapp": {"type": "str"},
                **_access("0644"),
                "secret": {"type": "bool", "default": False},
                "restart": {"type": "bool", "default": True},
                "reload": {"type": "bool", "default": False},
                "restart_on": {"type": "str"},
                "validate": {"type": "str"},
                "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            },
        },
        "unit": {"type": "dict", "options": _unit()},
        "units": {"type": "list", "elements": "dict", "default": [], "options": _unit()},
        "on_change": {"type": "list", "elements": "list", "default": []},
        "health": {
            "type": "dict",
            "options": {
                "url": {"type": "str"},
                "expect_status": {"type": "int", "default": 200},
                "expect_body": {"type": "str"},
                "ca": {"type": "path"},
                "cert": {"type": "path"},
                "key": {"type": "path"},
                "tcp": {"type": "str"},
                "unix": {"type": "path"},
                "command": {"type": "list", "elements": "str"},
                "serves": {
                    "type": "list",
                    "elements": "dict",
                    "default": [],
                    "options": {
                        "address": {"type": "str", "required": True},
                        "certificate": {"type": "path", "required": True},
                    },
                },
                "timeout": {"type": "int", "default": 60},
            },
        },
        "rollback": {"type": "bool", "default": True},
        "overlap": {"type": "bool", "default": False},
        "leaves": {
            "type": "dict",
            "options": {
                kind.name: {"type": "list", "elements": "path" if kind.name == "paths" else "str", "default": []}
                for kind in fields(Leaves)
            },
        },
    }


ARGUMENT_SPEC: Spec = {
    "mirror_dir": {"type": "path"},
    "mirror_url": {"type": "str", "default": ""},
    # May contain a password.
    "mirror_proxy": {"type": "str", "default": "", "no_log": True},
    "mirror_ca": {"type": "path"},
    "publishers": {
        "type": "dict",
        "options": {
            "use": {"type": "bool", "default": False},
            # May contain a password.
            "proxy": {"type": "str", "default": "", "no_log": True},
            "no_proxy": {"type": "str", "default": ""},
        },
    },
    "architecture": {"type": "str", "choices": ["amd64", "arm64"]},
    "state": {"type": "str", "choices": ["present", "fetched"], "default": "present"},
    "lock_timeout": {"type": "int", "default": 300},
    "components": {"type": "list", "elements": "dict", "options": _component()},
    # Contains secret files; as one opaque string it stays out of logs and of the recorded invocation.
    "prepared": {"type": "str", "no_log": True},
}
