# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ec2_cluster and caller_identity take."""

from __future__ import annotations

from typing import Any

# What every module that calls AWS takes; the doc fragment k8sgu.cluster.aws documents them.
CONNECTION_OPTIONS: dict[str, Any] = {
    "region": {"type": "str"},
    "profile": {"type": "str"},
    "endpoint_url": {"type": "str"},
    "access_key": {"type": "str", "no_log": False},
    "secret_key": {"type": "str", "no_log": True},
    "session_token": {"type": "str", "no_log": True},
    "assume_role_arn": {"type": "str"},
    "assume_role_external_id": {"type": "str"},
    "retry_mode": {"type": "str", "choices": ["legacy", "standard", "adaptive"], "default": "standard"},
    "max_attempts": {"type": "int", "default": 8},
    "connect_timeout": {"type": "int", "default": 10},
    "read_timeout": {"type": "int", "default": 60},
}

# By module.
ARGUMENT_SPECS: dict[str, dict[str, Any]] = {
    "ec2_cluster": {
        "name": {"type": "str", "required": True},
        "state": {"type": "str", "choices": ["present", "absent", "compared"], "default": "present"},
        "vpc_id": {"type": "str"},
        "vpc_cidr": {"type": "str", "default": "10.240.0.0/16"},
        "zones": {"type": "list", "elements": "str", "default": []},
        "subnet_ids": {"type": "list", "elements": "str", "default": []},
        "subnet_prefix": {"type": "int", "default": 24},
        "private_nodes": {"type": "bool", "default": False},
        "nat_gateways": {"type": "str", "choices": ["one", "per_zone", "none"], "default": "one"},
        "pod_cidr": {"type": "str", "default": "10.200.0.0/16"},
        "pod_cidr_node_prefix": {"type": "int", "default": 24},
        "service_cidr": {"type": "str", "default": "10.32.0.0/16"},
        "pod_network": {"type": "str", "choices": ["routed", "vxlan"], "default": "routed"},
        "pod_route_tables": {"type": "list", "elements": "str", "default": []},
        "admin_cidrs": {"type": "list", "elements": "str", "default": []},
        "node_port_cidrs": {"type": "list", "elements": "str", "default": []},
        "key_name": {"type": "str", "no_log": False},
        "public_key": {"type": "str", "no_log": False},
        "public_key_file": {"type": "path", "no_log": False},
        "image": {"type": "raw"},
        "pools": {
            "type": "list",
            "elements": "dict",
            "options": {
                "name": {"type": "str", "required": True},
                "count": {"type": "int", "required": True},
                "instance_type": {"type": "str", "default": "m5.large"},
                "image": {"type": "raw"},
                "root_volume_size": {"type": "int", "default": 20},
                "etcd_volume_size": {"type": "int", "default": 0},
            },
        },
        "kms_key_id": {"type": "str", "no_log": False},
        "backup_bucket": {"type": "str", "default": ""},
        "backup_days": {"type": "int", "default": 30},
        "instance_profiles": {"type": "bool", "default": True},
        "control_plane_policy": {"type": "dict"},
        "worker_policy": {"type": "dict"},
        "load_balancer_scheme": {
            "type": "str",
            "choices": ["auto", "internal", "internet-facing"],
            "default": "auto",
        },
        "bastion": {"type": "bool", "default": True},
        "tags": {"type": "dict", "default": {}},
        "allow_replace": {"type": "bool", "default": False},
        "nodes_leave": {"type": "str", "choices": ["at_once", "ask", "drained"], "default": "at_once"},
        "drained": {"type": "list", "elements": "str", "default": []},
        "lives": {"type": "bool", "default": False},
        "check_permissions": {"type": "bool", "default": True},
        "wait_timeout": {"type": "int", "default": 600},
        **CONNECTION_OPTIONS,
    },
    "caller_identity": {
        "max_key_age_days": {"type": "int", "default": 90, "no_log": False},
        "allow_root": {"type": "bool", "default": False},
        **CONNECTION_OPTIONS,
    },
}
# Of ec2_cluster.
RULES: dict[str, Any] = {"mutually_exclusive": [("key_name", "public_key", "public_key_file")]}
