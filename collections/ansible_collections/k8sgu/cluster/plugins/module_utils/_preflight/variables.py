# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Variables that nobody reads: a misspelt or retired one would silently leave its default in force."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Iterable, Mapping

from ansible.module_utils.common.yaml import yaml_load

PREFIX = "k8sgu_"
# Set by the module node_facts.
FACTS = frozenset({"k8sgu_node"})
# What a variable of an earlier version became.
RETIRED: dict[str, str] = {
    "k8sgu_audit_log_max_age_days": "use k8sgu_apiserver_extra_flags: {audit-log-maxage: ...}",
    "k8sgu_audit_log_max_backups": "use k8sgu_apiserver_extra_flags: {audit-log-maxbackup: ...}",
    "k8sgu_audit_log_max_size_mb": "use k8sgu_apiserver_extra_flags: {audit-log-maxsize: ...}",
    "k8sgu_certificates_paths": "the report looks where the roles place certificates; remove the variable",
    "k8sgu_dns_cache_seconds": "answers are kept for 30 s; remove the variable",
    "k8sgu_etcd_compaction_retention": "the history of an hour is kept; remove the variable",
    "k8sgu_etcd_data_dir": "the database is in /var/lib/etcd; mount a volume there",
    "k8sgu_etcd_election_ms": "it is ten times k8sgu_etcd_heartbeat_ms",
    "k8sgu_event_record_qps": "use k8sgu_kubelet_extra_config: {eventRecordQPS: ...}",
    "k8sgu_infrastructure_timeout": "each thing may take AWS 600 s; remove the variable",
    "k8sgu_max_concurrent_downloads": "five layers are fetched at a time; remove the variable",
    "k8sgu_node_eviction_seconds": "use k8sgu_apiserver_extra_flags: {default-not-ready-toleration-seconds: ...}",
    "k8sgu_pod_pids_limit": "use k8sgu_kubelet_extra_config: {podPidsLimit: ...}",
    "k8sgu_service_node_ports": "NodePorts are 30000-32767, as in docs/ports.md; remove the variable",
    "k8sgu_shutdown_grace_seconds": "use k8sgu_kubelet_extra_config: {shutdownGracePeriod: ...}",
    "k8sgu_ssh_timeout": "a node has 300 s to answer over SSH; remove the variable",
    "k8sgu_verify_exposure_limits": "every unit of ours has its limit; remove the variable",
    "k8sgu_vxlan_id": "the overlay's identifier is 1; remove the variable",
    "k8sgu_vxlan_port": "the overlay's port is 8472, as in docs/ports.md; remove the variable",
}


def options(roles: Path) -> dict[str, dict[str, Any]]:
    """Every variable of every role by name, from the argument specs."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(roles.glob("*/meta/argument_specs.yml")):
        for spec in (yaml_load(path.read_text()) or {}).get("argument_specs", {}).values():
            found.update(spec.get("options") or {})
    return found


def derived(roles: Path) -> set[str]:
    """Names with the prefix that roles make of others."""
    names = set(FACTS)
    for path in sorted(roles.glob("*/vars/main.yml")):
        # Top-level keys alone: some of these files are long, and no value counts here.
        lines = (line.partition(":") for line in path.read_text().splitlines() if line.startswith(PREFIX))
        names |= {name for name, colon, _value in lines if colon}
    return names


def check_names(seen: Iterable[str], known: Iterable[str], retired: Mapping[str, str] | None = None) -> list[str]:
    """A problem for each of the names with our prefix that no role knows."""
    there, gone = sorted(known), RETIRED if retired is None else retired
    problems = []
    for name in sorted({name for name in seen if name.startswith(PREFIX)} - set(there)):
        if name in gone:
            problems.append(f"{name}: is retired: {gone[name]}")
            continue
        near = difflib.get_close_matches(name, there, n=1)
        hint = f"did you mean {near[0]}?" if near else "remove it"
        problems.append(f"{name}: there is no such variable; {hint} docs/variables.md lists all")
    return problems
