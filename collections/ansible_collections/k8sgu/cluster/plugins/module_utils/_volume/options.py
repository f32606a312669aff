# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of the module data_volume."""

from __future__ import annotations

from typing import Any

# etcd's home, its data directory, and where a volume for it is mounted.
ETCD_DATA = "/var/lib/etcd"

ARGUMENT_SPEC: dict[str, Any] = {
    "volume_id": {"type": "str", "required": True},
    "size": {"type": "int", "default": 0},
    "path": {"type": "path", "default": ETCD_DATA},
    "unit": {"type": "str", "default": "etcd.service"},
    "cluster": {"type": "str", "required": True},
    "node": {"type": "str", "required": True},
    "timeout": {"type": "int", "default": 60},
}
