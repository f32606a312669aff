# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What AWS bills a description for. What that costs differs by region, day and contract: https://calculator.aws/."""

from __future__ import annotations

from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description


def billed(description: Description, zones: int) -> list[dict[str, Any]]:
    """What is paid for by time, each with its `count`, without traffic. `zones` is the number of availability zones."""
    found = [(f"{pool.instance_type} ({pool.name})", pool.count) for pool in description.pools]
    storage = sum(pool.count * (pool.root_volume_size + pool.etcd_volume_size) for pool in description.pools)
    found.append(("GiB of gp3", storage))
    addresses = 0 if description.private_nodes or description.subnet_ids else description.node_count
    if description.balanced:
        found.append(("network load balancer", 1))
        addresses += zones if description.load_balancer_scheme == "internet-facing" else 0
    if description.private_nodes and description.nat_gateways != "none":
        number = zones if description.nat_gateways == "per_zone" else 1
        found.append(("NAT gateway", number))
        addresses += number
    found.append(("public IPv4 address", addresses))
    return [{"what": what, "count": count} for what, count in found if count]
