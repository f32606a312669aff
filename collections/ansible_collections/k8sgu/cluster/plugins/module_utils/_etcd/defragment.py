# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that each member of etcd starts by a timer. On the leader it does what the module etcd_space does."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import etcd_space, etcdctl, space
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.etcdctl import EtcdError
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.members import Members
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.options import with_defaults
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if every member is as it should be, with a line for each step taken. Otherwise 1, with one that says why."""
    given = _parser().parse_args(arguments)
    options = with_defaults(
        "etcd_space",
        state="defragmented",
        percent=given.percent,
        etcdctl=given.etcdctl,
        environment=given.environment,
    )
    try:
        # One of them is enough. Who takes over while it works finds nothing left to do.
        if not Members(options).leads():
            sys.stdout.write("another member leads, and sees to it\n")
            return 0
        sys.stdout.write(_told(etcd_space.run(Call(options))))
        return 0
    except EtcdError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="etcd-defragment",
        description="Defragments etcd's members one after another, the leader last, if it runs on the leader.",
    )
    parser.add_argument("--percent", type=int, required=True, help="members with that much of their file free, or more")
    parser.add_argument("--etcdctl", default=etcdctl.PROGRAM, help="(default: %(default)s)")
    parser.add_argument("--environment", default=etcdctl.ENVIRONMENT, help="etcdctl's settings (default: %(default)s)")
    return parser


def _told(result: dict[str, Any]) -> str:
    told = [*result["plan"], f"{space.mib(result['freed'])} MiB freed" if result["plan"] else "nothing to defragment"]
    return "".join(f"{line}\n" for line in told)
