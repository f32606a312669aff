# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What cfssl_cert takes, for the module and for the action plugin that stands in for it."""

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

# Named as AnsibleModule and ArgumentSpecValidator name them.
SPECIFICATION: dict[str, Any] = {
    "argument_spec": {
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
