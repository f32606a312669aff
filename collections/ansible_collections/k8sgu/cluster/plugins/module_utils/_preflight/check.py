# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All problems of a description and its nodes, in the order in which a user would correct them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Mapping, Sequence

from ansible.module_utils.parsing.convert_bool import boolean

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster import buckets
from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster import names as name_rules
from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster import proxy as proxies
from ansible_collections.k8sgu.cluster.plugins.module_utils._encryption import choice
from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import quota, schedule
from ansible_collections.k8sgu.cluster.plugins.module_utils._preflight import (
    flags,
    living,
    members,
    names,
    node,
    ranges,
    releases,
    variables,
)

# Seconds that an API server may go on serving after it was told to stop: more than the load balancer's two failed
# checks, five seconds apart, and no more than a restart is waited for.
SHUTDOWN_DELAY = (15, 130)
# 32 bytes in Bech32: https://age-encryption.org/v1
RECIPIENT = re.compile(r"age1[02-9ac-hj-np-z]{58}")


def with_defaults(values: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The variables, with defaults for those that are not set."""
    return {name: options.get(name, {}).get("default") if value is None else value for name, value in values.items()}


def check_encryption(values: Mapping[str, Any]) -> list[str]:
    """Choices that are wrong for any cluster; the role control_plane compares them with what etcd already has."""
    resources = [str(name) for name in values["k8sgu_encryption_resources"]]
    endpoint = str(values["k8sgu_encryption_kms_endpoint"])
    wanted = choice.wanted(str(values["k8sgu_encryption_provider"]), "", resources, endpoint)
    return choice.problems(wanted, endpoint, None, 1)


def check_shutdown_delay(values: Mapping[str, Any]) -> list[str]:
    name = "k8sgu_apiserver_shutdown_delay_seconds"
    least, most = SHUTDOWN_DELAY
    if least <= int(values[name]) <= most:
        return []
    return [
        f"{name}: {values[name]} s; an API server that stops has to serve until the load balancer has noticed, so "
        f"choose {least} to {most}"
    ]


def check_snapshots(values: Mapping[str, Any]) -> list[str]:
    """How often members of etcd take snapshots by themselves, and how many they keep."""
    problems = []
    fault = schedule.problem(int(values["k8sgu_etcd_snapshot_minutes"]))
    if fault:
        problems.append(f"k8sgu_etcd_snapshot_minutes: {fault}")
    keep = int(values["k8sgu_etcd_snapshot_keep"])
    if keep < 1:
        problems.append(
            f"k8sgu_etcd_snapshot_keep: {keep}, and the newest snapshot always stays; choose 1 or more, or set "
            "k8sgu_etcd_snapshot_minutes to 0 for none"
        )
    if boolean(values["k8sgu_drill_daily"], strict=False) and int(values["k8sgu_etcd_snapshot_minutes"]) == 0:
        problems.append(
            "k8sgu_drill_daily: without snapshots (k8sgu_etcd_snapshot_minutes is 0) there is nothing to restore; "
            "leave one of the two out"
        )
    return problems


def check_backup_bucket(values: Mapping[str, Any]) -> list[str]:
    """Faults that can be seen without S3; ec2_cluster looks whose bucket it is."""
    name = values["k8sgu_backup_bucket"]
    faults = {
        "k8sgu_backup_bucket": buckets.name_fault(name) if name else "",
        "k8sgu_backup_bucket_days": buckets.days_fault(int(values["k8sgu_backup_bucket_days"])),
    }
    return [f"{option}: {fault}" for option, fault in faults.items() if fault]


def check_defragmentation(values: Mapping[str, Any]) -> list[str]:
    name = "k8sgu_etcd_defragment_percent"
    if 0 <= int(values[name]) <= 99:
        return []
    return [f"{name}: {values[name]}; choose how much of a member's file has to be free, from 1 to 99, or 0 for never"]


def check_autoscaling(values: Mapping[str, Any]) -> list[str]:
    """What verify is asked for and cannot do."""
    if not boolean(values["k8sgu_verify_autoscaling"], strict=False) or boolean(
        values["k8sgu_metrics_server"], strict=False
    ):
        return []
    return [
        "k8sgu_verify_autoscaling: nothing is scaled without metrics-server; leave it out, or set "
        "k8sgu_metrics_server to true"
    ]


def check_recipients(values: Mapping[str, Any]) -> list[str]:
    """Public keys that age would refuse on a node, with each snapshot."""
    name = "k8sgu_backup_recipients"
    # What somebody has put there by mistake may be the private one.
    wrong = [
        "a private key" if one.upper().startswith("AGE-") else one
        for one in map(str, values[name])
        if not RECIPIENT.fullmatch(one)
    ]
    return [
        f"{name}: {one} is no public key of age; give what age-keygen calls the public key, age1 and 58 characters"
        for one in wrong
    ]


def check_quota(values: Mapping[str, Any], described: bool) -> list[str]:
    """etcd's quota, and where the infrastructure is `described`, whether the volumes hold a database that fills it."""
    given = values[quota.OPTION]
    fault = quota.fault(given)
    sizes = {name: quota.number(values[name]) for name in (quota.VOLUME, quota.ROOT)} if described else {}
    problems = [fault] if fault else []
    problems += [
        f"{name}: {values[name]!r} is no whole number of GiB; give one such as 20"
        for name, size in sizes.items()
        if size is None
    ]
    if problems or not described:
        return problems
    return quota.disk_faults(quota.number(given) or 0, sizes[quota.VOLUME] or 0, sizes[quota.ROOT] or 0)


def check(
    values: Mapping[str, Any],
    seen: Sequence[str],
    nodes: Sequence[Mapping[str, Any]],
    port_table: Sequence[Mapping[str, Any]],
    roles: Path,
    described: bool,
    found: Mapping[str, Any] | None = None,
) -> list[str]:
    """Every problem, with the option or the node, what was found and what to do.

    values: {variable: value}, None for one that is not set. seen: names of all variables. described: whether the
    infrastructure is made from the counts in `values`; otherwise it is the inventory's. A node without a `probe` is
    checked by the inventory only. found: what is known about the existing cluster, in the form of the filter
    living_problems. A node may have `flags`, the variables of flags.VARIABLES that it has beside those in `values`.
    """
    options = variables.options(roles)
    # A null name does not get its default: the inventory and ec2_cluster would not know that name.
    cluster = values["k8sgu_cluster_name"]
    count = values["k8sgu_control_plane_count"]
    values = {**with_defaults(values, options), "k8sgu_cluster_name": cluster}
    problems = variables.check_names(seen, {*options, *variables.derived(roles)})
    versions = releases.released(Path(values["k8sgu_releases_dir"]))
    problems += releases.check_version(
        str(values["k8sgu_kubernetes_version"]), versions, str(values["k8sgu_releases_dir"])
    )
    problems += check_encryption(values)
    problems += check_shutdown_delay(values)
    problems += check_snapshots(values)
    problems += check_defragmentation(values)
    problems += check_recipients(values)
    problems += check_backup_bucket(values)
    problems += check_autoscaling(values)
    problems += check_quota(values, described)
    problems += flags.check_flags([values, *(one.get("flags") or {} for one in nodes)])
    problems += proxies.problems(values["k8sgu_proxy"] or {})
    expected = names.described_count(values) if described else 0
    problems += ranges.check_ranges(values, nodes, max(expected, len(nodes)))
    problems += [f"k8sgu_cluster_name: {fault}" for fault in [name_rules.cluster_fault(cluster)] if fault]
    problems += names.check_hosts(nodes)
    if described:
        problems += names.check_described(values)
        problems += names.check_members(int(values["k8sgu_control_plane_count"]), "k8sgu_control_plane_count")
    # A living cluster that changes from one description to another may have any number.
    elif not (found and living.lives(found["record"], found["nodes"])):
        problems += names.check_members(sum(bool(one["etcd"]) for one in nodes), "the inventory's group etcd")
    if found:
        if described:
            # There are no probed nodes yet.
            problems += living.check_cluster(str(values["k8sgu_cluster_name"]), found["nodes"])
            count = values["k8sgu_control_plane_count"]
        wanted = None if count is None else int(count)
        problems += living.check_living(
            found["values"], wanted, found["record"], found["nodes"], bool(found.get("upgrading"))
        )
        problems += [] if described else members.check_members(found["record"], found["nodes"], found["record_file"])
    for one in nodes:
        if one.get("probe") is not None:
            problems += node.check_node(one, values, port_table)
    return problems
