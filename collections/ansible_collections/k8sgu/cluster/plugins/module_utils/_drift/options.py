# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of the modules of this package."""

from __future__ import annotations

from typing import Any

ARGUMENT_SPECS: dict[str, dict[str, Any]] = {
    "drift_facts": {},
    "drift_report": {
        "name": {"type": "str", "required": True},
        "kubeconfig": {"type": "path", "required": True},
        "pki": {"type": "path", "required": True},
        "ec2": {"type": "dict", "required": True},
        "nodes": {"type": "dict", "required": True},
        "path": {"type": "path", "required": True},
        "patience": {"type": "int", "default": 10},
    },
}
