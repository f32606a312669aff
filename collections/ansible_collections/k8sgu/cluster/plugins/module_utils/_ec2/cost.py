# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a description costs in a month."""

from __future__ import annotations

from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import prices
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description


def estimate(description: Description, zones: int) -> dict[str, Any]:
    """The sum, its parts, and what the price table has no price for. Dollars, on demand, without traffic."""
    region, hours = description.region, prices.HOURS_PER_MONTH
    items: list[dict[str, Any]] = []
    unpriced: list[str] = []

    def item(what: str, number: float, unit: float | None) -> None:
        if not number:
            return
        if unit is None:
            unpriced.append(what)
        else:
            items.append({"what": what, "count": number, "unit_usd": round(unit, 4), "usd": round(number * unit, 2)})

    def hourly(price: float | None) -> float | None:
        return None if price is None else price * hours

    for pool in description.pools:
        price = prices.instance_hour(region, pool.instance_type)
        item(f"{pool.instance_type} ({pool.name})", pool.count, hourly(price))
    storage = sum(pool.count * (pool.root_volume_size + pool.etcd_volume_size) for pool in description.pools)
    item("GiB of gp3", storage, prices.GP3_MONTH.get(region))
    addresses = 0 if description.private_nodes or description.subnet_ids else description.node_count
    if description.balanced:
        item("network load balancer", 1, hourly(prices.BALANCER_HOUR.get(region)))
        addresses += zones if description.load_balancer_scheme == "internet-facing" else 0
    if description.private_nodes and description.nat_gateways != "none":
        number = zones if description.nat_gateways == "per_zone" else 1
        item("NAT gateway", number, hourly(prices.NAT_HOUR.get(region)))
        addresses += number
    item("public IPv4 address", addresses, hourly(prices.PUBLIC_IP_HOUR))
    return {
        "monthly_usd": round(sum(entry["usd"] for entry in items), 2),
        "price_date": prices.PRICE_DATE,
        "region": region,
        "items": items,
        "unpriced": unpriced,
    }
