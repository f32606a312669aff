# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of the modules of this package."""

from __future__ import annotations

from typing import Any

_ENTRY: dict[str, dict[str, Any]] = {
    "name": {"type": "str"},
    "path": {"type": "path"},
    "state": {"type": "str", "choices": ["present", "absent"]},
    "csr": {"type": "dict"},
    "csr_file": {"type": "path"},
    "config": {"type": "dict"},
    "config_file": {"type": "path"},
    "profile": {"type": "str"},
    "initca": {"type": "bool", "default": False},
    "ca": {"type": "path"},
    "ca_key": {"type": "path", "no_log": False},
    "ca_passphrase": {"type": "str", "no_log": True},
    "passphrase": {"type": "str", "no_log": True},
    "renew_before": {"type": "str"},
    "cap_at_ca": {"type": "bool"},
    "rotate_key": {"type": "bool", "no_log": False},
    "force": {"type": "bool"},
    "backup": {"type": "bool"},
}

SERVICE_ACCOUNT = "service-account"
# What can be rotated: the CAs, and the key that signs service-account tokens.
ROTATED = ("kubernetes-ca", "etcd-ca", "front-proxy-ca", "kubelet-client-ca", SERVICE_ACCOUNT)
# In the order in which they are taken.
ROTATION_STEPS = ("added", "promoted", "dropped")

ARGUMENT_SPECS: dict[str, dict[str, Any]] = {
    "ca_rotation": {
        "path": {"type": "path", "required": True},
        "names": {"type": "list", "elements": "str", "choices": list(ROTATED), "default": []},
        "state": {"type": "str", "choices": ["planned", *ROTATION_STEPS, "finished"], "default": "planned"},
    },
    "certificate_scan": {"paths": {"type": "list", "elements": "path", "required": True}},
    "cfssl_cert": {
        **_ENTRY,
        "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        "cap_at_ca": {"type": "bool", "default": False},
        "force": {"type": "bool", "default": False},
        "backup": {"type": "bool", "default": False},
        "certificates": {
            "type": "list",
            "elements": "dict",
            "options": {**_ENTRY, "name": {"type": "str", "required": True}},
        },
    },
    "cfssl_cert_info": {
        "paths": {"type": "list", "elements": "path", "default": []},
        "contents": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {"source": {"type": "str", "required": True}, "pem": {"type": "str", "required": True}},
        },
        "addresses": {"type": "list", "elements": "str", "default": []},
        "server_name": {"type": "str"},
        "timeout": {"type": "int", "default": 10},
    },
    "signing_key": {
        "path": {"type": "path", "required": True},
        "public_path": {"type": "path", "required": True},
        "algorithm": {"type": "str", "choices": ["rsa", "ecdsa"], "default": "rsa"},
        "size": {"type": "int"},
    },
    "ssh_key": {"path": {"type": "path", "required": True}, "comment": {"type": "str", "default": ""}},
}

# Rules for combinations of cfssl_cert's options.
RULES: dict[str, Any] = {
    "mutually_exclusive": [
        ("csr", "csr_file"),
        ("config", "config_file"),
        ("certificates", "name"),
        ("certificates", "csr"),
        ("certificates", "csr_file"),
        ("certificates", "initca"),
        ("certificates", "passphrase"),
    ],
    "required_one_of": [("name", "certificates")],
}
