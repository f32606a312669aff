# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that each member of etcd starts by a timer: a restore of its own newest snapshot, as the module tries it.

What it found is in a file of JSON and in the journal, and for Prometheus in a file of metrics.
"""

# Paths are text here, as in the options.
# ruff: noqa: PTH112, PTH123, PTH208
from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import sys
from typing import Any, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import drill_result, etcd_drill, etcdctl, snapshots
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.etcdctl import EtcdError
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.options import with_defaults
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import FileError, atomic_write, metrics
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call

PROGRAM = "etcd-drill"
AUTHORITY = "/etc/kubernetes/pki/ca.crt"
# What the API server of this node decrypts with, as the role control_plane writes it. The unit hands over a copy.
ENCRYPTION = "/etc/kubernetes/encryption.yml"
_KEY = re.compile(r"(?m)^\s+- name: (\S+)$")
_KMS = re.compile(r"(?m)^\s+- kms:$")
_PROVIDERS = ("secretbox", "aescbc")
_TIME, _SUCCESS = "k8sgu_etcd_drill_timestamp_seconds", "k8sgu_etcd_drill_success"
_AGE, _TOOK = "k8sgu_etcd_drill_snapshot_age_seconds", "k8sgu_etcd_drill_restore_seconds"


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if the newest snapshot could be restored as is promised, with lines about it. Otherwise 1, with why."""
    given = _parser().parse_args(arguments)
    now = datetime.datetime.now(datetime.timezone.utc)
    promised = drill_result.Promised(given.rpo_minutes, given.rto_seconds)
    found: drill_result.Measured | None = None
    try:
        found = drill_result.measured(etcd_drill.run(Call(_options(given))), promised, now)
        problems = found.problems()
        sys.stdout.write("".join(f"{line}\n" for line in [found.snapshot.name, *found.lines()]))
    except (EtcdError, FileError, OSError, ValueError) as error:
        problems = [str(error)]
    sys.stderr.write("".join(f"{problem}\n" for problem in problems))
    document = {**(found.document() if found else {"time": now.strftime(drill_result.TIME)}), "problems": problems}
    metrics.publish(given.metrics, PROGRAM, _gauges(now, found, problems))
    try:
        atomic_write(given.result, (json.dumps(document) + "\n").encode(), 0o600)
    except (FileError, OSError) as error:
        sys.stderr.write(f"the result was not written: {error}\n")
        return 1
    return 1 if problems else 0


def prefixes(encryption: str) -> list[str]:
    """How values begin that an API server with this configuration decrypts. Pure."""
    by_key = [f"k8s:enc:{provider}:v1:{name}:" for name in _KEY.findall(encryption) for provider in _PROVIDERS]
    return [*dict.fromkeys(by_key), *(["k8s:enc:kms:v2:k8sgu:"] if _KMS.search(encryption) else [])]


def _options(given: argparse.Namespace) -> dict[str, Any]:
    """The module's. Raises EtcdError, OSError."""
    names = os.listdir(given.directory) if os.path.isdir(given.directory) else []
    taken = snapshots.listed(names)
    if not taken:
        raise EtcdError(f"there is no snapshot in {given.directory}; take one: systemctl start etcd-snapshot.service")
    return with_defaults(
        "etcd_drill",
        snapshot=taken[0].name,
        nodes=given.nodes,
        authority=_read(given.authority),
        encryption_prefixes=prefixes(_read(given.encryption)),
        quota=given.quota,
        directory=given.directory,
        drill_dir=given.drill_dir,
        etcd=given.etcd,
        etcdctl=given.etcdctl,
        etcdutl=given.etcdutl,
        environment=given.environment,
    )


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as stream:
        return stream.read()


def _gauges(
    now: datetime.datetime, found: drill_result.Measured | None, problems: Sequence[str]
) -> list[metrics.Gauge]:
    gauges = [
        metrics.Gauge(_TIME, "When this member last tried a restore, in seconds since 1970.", int(now.timestamp())),
        metrics.Gauge(_SUCCESS, "Whether that restore kept what is promised.", 0 if problems else 1),
    ]
    if found:
        gauges += [
            metrics.Gauge(_AGE, "How old the newest snapshot was then, in seconds.", found.old),
            metrics.Gauge(_TOOK, "In how many seconds etcd served its data.", found.took),
        ]
    return gauges


def _parser() -> argparse.ArgumentParser:
    defaults = with_defaults("etcd_drill")
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Restores this member's newest snapshot of etcd beside the living one, and looks at it.",
    )
    parser.add_argument("nodes", nargs="+", metavar="NODE", help="the cluster's members")
    parser.add_argument("--rpo-minutes", type=float, required=True, help="how old the snapshot may be")
    parser.add_argument("--rto-seconds", type=float, required=True, help="how long the restore may take")
    parser.add_argument("--quota", type=int, default=0, help="etcd's, in bytes; 0 is not judged (default: %(default)s)")
    parser.add_argument("--directory", default=snapshots.DIRECTORY, help="of the snapshots (default: %(default)s)")
    parser.add_argument("--authority", default=AUTHORITY, help="the cluster's CA (default: %(default)s)")
    parser.add_argument("--encryption", default=ENCRYPTION, help="the API server's (default: %(default)s)")
    parser.add_argument("--result", default=snapshots.DRILLED, help="file of JSON (default: %(default)s)")
    parser.add_argument("--metrics", default=metrics.DIRECTORY, help="for Prometheus (default: %(default)s)")
    parser.add_argument("--drill-dir", default=defaults["drill_dir"], help="where it works (default: %(default)s)")
    parser.add_argument("--etcd", default=defaults["etcd"], help="(default: %(default)s)")
    parser.add_argument("--etcdctl", default=etcdctl.PROGRAM, help="(default: %(default)s)")
    parser.add_argument("--etcdutl", default=etcdctl.UTILITY, help="(default: %(default)s)")
    parser.add_argument("--environment", default=etcdctl.ENVIRONMENT, help="etcdctl's settings (default: %(default)s)")
    return parser
