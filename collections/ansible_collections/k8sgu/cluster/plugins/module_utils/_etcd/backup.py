# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that each member of etcd starts by a timer: one snapshot of the series `backup`, as the module takes it.

What it did is in a snapshot's name and in the journal, and for Prometheus in a file of metrics.
"""

# Paths are text here, as in the options.
# ruff: noqa: PTH119
from __future__ import annotations

import argparse
import os
import sys
import time
from typing import Any, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import etcd_snapshot, etcdctl, snapshots
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.etcdctl import EtcdError
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.options import with_defaults
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import FileError, metrics
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call

# What others may have of the disk stays larger than all backups together: etcd itself, and the snapshots of upgrades.
DISK_PERCENT = 50
# A member that is restarted or joins has a quorum and its vote within that time.
PATIENCE_S = 120
RETRY_S = 5
PROGRAM = "etcd-snapshot"
TAKEN = "k8sgu_etcd_snapshot_timestamp_seconds"
TAKEN_HELP = "When this member took its newest snapshot of etcd, in seconds since 1970."


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if a verified snapshot was taken, with one line about it. Otherwise 1, with one line that says why."""
    given = _parser().parse_args(arguments)
    options = with_defaults(
        "etcd_snapshot",
        directory=given.directory,
        series=snapshots.BACKUP,
        keep=given.keep,
        disk_percent=DISK_PERCENT,
        etcdctl=given.etcdctl,
        etcdutl=given.etcdutl,
        environment=given.environment,
    )
    deadline = time.monotonic() + given.patience
    while True:
        try:
            result = etcd_snapshot.run(Call(options))
            break
        except (EtcdError, FileError, OSError) as error:
            if time.monotonic() + RETRY_S > deadline:
                sys.stderr.write(f"{error}\n")
                return 1
        time.sleep(RETRY_S)
    sys.stdout.write(f"{_told(result)}\n")
    taken = snapshots.listed([os.path.basename(result["path"])])
    metrics.publish(given.metrics, PROGRAM, [metrics.Gauge(TAKEN, TAKEN_HELP, one.taken.timestamp()) for one in taken])
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Takes a verified snapshot of etcd, of the series backup, on a member of it."
    )
    parser.add_argument("--keep", type=int, required=True, help="how many snapshots of the series stay")
    parser.add_argument("--directory", default=snapshots.DIRECTORY, help="where they are (default: %(default)s)")
    parser.add_argument(
        "--patience",
        type=int,
        default=PATIENCE_S,
        help="seconds in which it tries again when none can be taken (default: %(default)s)",
    )
    parser.add_argument("--etcdctl", default=etcdctl.PROGRAM, help="(default: %(default)s)")
    parser.add_argument("--etcdutl", default=etcdctl.UTILITY, help="(default: %(default)s)")
    parser.add_argument("--metrics", default=metrics.DIRECTORY, help="for Prometheus (default: %(default)s)")
    parser.add_argument("--environment", default=etcdctl.ENVIRONMENT, help="etcdctl's settings (default: %(default)s)")
    return parser


def _told(result: dict[str, Any]) -> str:
    """One line about a snapshot that was taken."""
    removed = len(result["plan"]) - 1
    return (
        f"{os.path.basename(result['path'])}: revision {result['revision']}, {result['keys']} keys, "
        f"{result['bytes']} bytes, {result['seconds']} s" + (f"; {removed} older removed" if removed else "")
    )
