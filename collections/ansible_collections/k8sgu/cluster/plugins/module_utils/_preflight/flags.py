# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Refuses the user's extra flags that contradict a variable, or the cluster itself.

Other flags override those of the roles, since the user who sets them knows the program. These cannot: everything else
that uses the variable (certificates, security groups, routes, the record of a living cluster) would keep its value.
"""

from __future__ import annotations

from typing import Any, Iterable, Mapping

_TLS = {"tls-min-version": "k8sgu_tls_min_version", "tls-cipher-suites": "k8sgu_tls_cipher_suites"}
# By variable: {flag or field: the variable that sets it}.
GOVERNED: dict[str, dict[str, str]] = {
    "k8sgu_apiserver_extra_flags": {
        **_TLS,
        "service-cluster-ip-range": "k8sgu_service_cidr",
        "enable-admission-plugins": "k8sgu_admission_plugins",
        "encryption-provider-config": "k8sgu_encryption_provider",
        "shutdown-delay-duration": "k8sgu_apiserver_shutdown_delay_seconds",
    },
    "k8sgu_controller_manager_extra_flags": {
        **_TLS,
        "cluster-name": "k8sgu_cluster_name",
        "cluster-cidr": "k8sgu_pod_cidr",
        "service-cluster-ip-range": "k8sgu_service_cidr",
        "node-cidr-mask-size": "k8sgu_pod_cidr_node_prefix",
        "node-cidr-mask-size-ipv4": "k8sgu_pod_cidr_node_prefix",
        "node-monitor-grace-period": "k8sgu_node_monitor_grace_seconds",
    },
    "k8sgu_scheduler_extra_flags": dict(_TLS),
    "k8sgu_kube_proxy_extra_flags": {"cluster-cidr": "k8sgu_pod_cidr"},
    "k8sgu_kubelet_extra_config": {
        "tlsMinVersion": "k8sgu_tls_min_version",
        "tlsCipherSuites": "k8sgu_tls_cipher_suites",
        "clusterDNS": "k8sgu_cluster_dns_address",
        "clusterDomain": "k8sgu_cluster_domain",
        "containerRuntimeEndpoint": "k8sgu_container_runtime",
        "maxPods": "k8sgu_max_pods",
        "systemReserved": "k8sgu_system_reserved",
        "kubeReserved": "k8sgu_kube_reserved",
    },
}
_PORT = "security groups, health checks and kubeconfigs are made from the port table (docs/ports.md)"
_MEMBERS = "etcd's members are those of the inventory's group etcd"
_ADDRESS = "each node has its own, the inventory's ec2_private_ip"
_RANGE = "each node's range of pods is the inventory's ec2_pod_cidr"
# By variable: {flag or field: what sets it, if that is not a variable}.
OWNED: dict[str, dict[str, str]] = {
    "k8sgu_apiserver_extra_flags": {
        "secure-port": _PORT,
        "etcd-servers": _MEMBERS,
        "advertise-address": _ADDRESS,
    },
    "k8sgu_controller_manager_extra_flags": {"secure-port": _PORT, "allocate-node-cidrs": _RANGE},
    "k8sgu_scheduler_extra_flags": {"secure-port": _PORT},
    "k8sgu_kube_proxy_extra_flags": {"hostname-override": "a node's name is the inventory's"},
    "k8sgu_kubelet_extra_config": {"port": _PORT, "address": _ADDRESS, "podCIDR": _RANGE},
}
VARIABLES = tuple(GOVERNED)


def check_flags(values: Iterable[Mapping[str, Any]]) -> list[str]:
    """A problem for each flag that cannot be given. `values`: the variables above, of the description and of hosts."""
    problems: dict[str, None] = {}
    for one in values:
        for option in VARIABLES:
            problems.update(dict.fromkeys(_check(option, one.get(option))))
    return list(problems)


def _check(option: str, given: Any) -> list[str]:
    if not given:
        return []
    if not isinstance(given, Mapping):
        return [f"{option}: {given!r} is no dictionary; give names and values, such as {{v: 2}}"]
    found = []
    for name in map(str, given):
        flag = name if option.endswith("_config") else name.replace("_", "-")
        if flag.startswith("-"):
            found.append(f"{option}: {name}: names are without dashes in front; give {flag.lstrip('-')}")
        elif flag in GOVERNED[option]:
            variable = GOVERNED[option][flag]
            found.append(
                f"{option}: {name} is what {variable} says, also to other parts; leave it out and set {variable}"
            )
        elif flag in OWNED[option]:
            found.append(f"{option}: {name} cannot be chosen: {OWNED[option][flag]}; leave it out")
    return found
