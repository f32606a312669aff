# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The bucket of a cluster's backups: what it may be called, how long it keeps snapshots, and where in it they are.

Several clusters can share a bucket, so everything of one is below its name.
"""

from __future__ import annotations

import re
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster import names

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
NAME = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
RESERVED_BEGINNINGS = ("xn--", "sthree-", "amzn-s3-demo-")
RESERVED_ENDS = ("-s3alias", "--ol-s3", "--x-s3", "--table-s3")
# A hundred years, so that a number with a digit too many is noticed.
MOST_DAYS = 36500


def name_fault(name: Any) -> str:
    """Why `name` cannot be the name of a bucket of backups; empty if it can."""
    given = names.shown(name)
    if isinstance(name, str) and "." in name:
        # S3's certificate is for *.s3.<region>.amazonaws.com, and its star stands for one label.
        # https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html
        return (
            f"{given} has a dot, and S3's certificate does not cover the host name of such a bucket, so that no "
            "backup would get there by TLS; choose a name without dots"
        )
    if not isinstance(name, str) or not NAME.fullmatch(name):
        return (
            f"{given} cannot be a bucket's name: give 3 to 63 lower-case letters, digits and dashes, with neither "
            "end a dash"
        )
    for word in RESERVED_BEGINNINGS:
        if name.startswith(word):
            return f"{given} cannot be a bucket's name: AWS reserves names that begin with {word}; choose another"
    for word in RESERVED_ENDS:
        if name.endswith(word):
            return f"{given} cannot be a bucket's name: AWS reserves names that end in {word}; choose another"
    return ""


def days_fault(days: int) -> str:
    """Why snapshots of etcd cannot expire after so many days; empty if they can."""
    if 0 <= days <= MOST_DAYS:
        return ""
    return f"{days} days; choose after how many days snapshots expire, from 1 to {MOST_DAYS}, or 0 for never"


def prefix(cluster: str) -> str:
    """What the keys of a cluster's objects begin with."""
    return f"{cluster}/"


def etcd_prefix(cluster: str) -> str:
    """The same of its snapshots of etcd, which its nodes put there."""
    return f"{prefix(cluster)}etcd/"


def state_prefix(cluster: str) -> str:
    """The same of the backups of its state directory."""
    return f"{prefix(cluster)}state/"
