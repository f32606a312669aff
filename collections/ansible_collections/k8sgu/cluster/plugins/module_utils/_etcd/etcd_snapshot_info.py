# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells which snapshots are on a node, how far its etcd is, and whether a restore was begun."""

# Paths are text here, as in the options.
# ruff: noqa: PTH112, PTH113, PTH118, PTH208
from __future__ import annotations

import contextlib
import json
import os
from typing import Any, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import etcd_restore, etcdctl, snapshots
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.members import FAULTS
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.options import ARGUMENT_SPECS
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import free_bytes
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module


def run(call: Call) -> dict[str, Any]:
    """The module's result. Raises OSError."""
    options = call.options
    directory = options["directory"]
    names = os.listdir(directory) if os.path.isdir(directory) else []
    return {
        "changed": False,
        "snapshots": [one.name for one in snapshots.listed(names)],
        "free": free_bytes(directory) + _below(options["incoming"]),
        "installed": os.path.isdir(options["data_dir"]) and os.path.isfile(options["etcdctl"]),
        "set_aside": etcd_restore.set_aside(options["data_dir"]),
        "restoring": etcd_restore.begun(options),
        **_state(options),
    }


def _below(directory: str) -> int:
    """Bytes of the files below a directory; it may go meanwhile."""
    size = 0
    for place, _directories, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size += os.lstat(os.path.join(place, name)).st_size
    return size


def _state(options: Mapping[str, Any]) -> dict[str, Any]:
    """The revision of etcd on this node and its database's sizes; 0 and nothing if it does not answer."""
    try:
        said = etcdctl.run(
            *("endpoint", "status", "--command-timeout=5s", "-w", "json"),
            program=options["etcdctl"],
            environment=options["environment"],
        )
        status = json.loads(said)[0]["Status"]
        return {
            "revision": int(status["header"]["revision"]),
            "database": {"size": int(status["dbSize"]), "used": int(status["dbSizeInUse"])},
        }
    except (*FAULTS, LookupError):
        return {"revision": 0, "database": {}}


MODULE = Module(ARGUMENT_SPECS["etcd_snapshot_info"], run, (OSError,))
