# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The price table: on-demand prices in US dollars of Linux instances and what else a cluster is made of.

From the public price lists (https://aws.amazon.com/ec2/pricing/on-demand/, https://aws.amazon.com/ebs/pricing/,
https://aws.amazon.com/vpc/pricing/, https://aws.amazon.com/elasticloadbalancing/pricing/), as of PRICE_DATE. It is the
base of an estimate and no offer: prices change, and contracts and savings plans lower them.
"""

from __future__ import annotations

PRICE_DATE = "2025-06-01"
HOURS_PER_MONTH = 730

# By size, as multiples of "large": https://aws.amazon.com/ec2/instance-types/ doubles price with size within a family.
SIZES = {
    "nano": 1 / 16,
    "micro": 1 / 8,
    "small": 1 / 4,
    "medium": 1 / 2,
    "large": 1,
    "xlarge": 2,
    "2xlarge": 4,
    "4xlarge": 8,
    "8xlarge": 16,
    "12xlarge": 24,
    "16xlarge": 32,
    "24xlarge": 48,
}

# An hour of a family's size "large", by region.
INSTANCE_HOUR: dict[str, dict[str, float]] = {
    "us-east-1": {
        "t3": 0.0832, "t3a": 0.0752, "t4g": 0.0672,
        "m5": 0.096, "m5a": 0.086, "m6i": 0.096, "m6a": 0.0864, "m6g": 0.077, "m7i": 0.1008, "m7g": 0.0816,
        "c5": 0.085, "c6i": 0.085, "c6a": 0.0765, "c6g": 0.068, "c7i": 0.08925, "c7g": 0.0725,
        "r5": 0.126, "r6i": 0.126, "r6g": 0.1008, "r7g": 0.1071,
    },
    "eu-central-1": {
        "t3": 0.096, "t3a": 0.0864, "t4g": 0.0768,
        "m5": 0.115, "m5a": 0.104, "m6i": 0.115, "m6a": 0.1035, "m6g": 0.092, "m7g": 0.0978,
        "c5": 0.097, "c6i": 0.097, "c6g": 0.0776, "c7g": 0.0825,
        "r5": 0.152, "r6i": 0.152, "r6g": 0.122,
    },
    "eu-west-1": {
        "t3": 0.0912, "t3a": 0.0816, "t4g": 0.0736,
        "m5": 0.107, "m5a": 0.096, "m6i": 0.107, "m6g": 0.086, "m7g": 0.0911,
        "c5": 0.096, "c6i": 0.0912, "c6g": 0.073, "c7g": 0.0776,
        "r5": 0.141, "r6i": 0.141, "r6g": 0.113,
    },
}  # fmt: skip
INSTANCE_HOUR["us-east-2"] = INSTANCE_HOUR["us-west-2"] = INSTANCE_HOUR["us-east-1"]

# A GiB of gp3 in a month.
GP3_MONTH = {"us-east-1": 0.08, "us-east-2": 0.08, "us-west-2": 0.08, "eu-central-1": 0.0952, "eu-west-1": 0.088}
# An hour of a network load balancer, without its capacity units, which go by traffic.
BALANCER_HOUR = {
    "us-east-1": 0.0225,
    "us-east-2": 0.0225,
    "us-west-2": 0.0225,
    "eu-central-1": 0.027,
    "eu-west-1": 0.0252,
}
# An hour of a NAT gateway, without the data through it.
NAT_HOUR = {"us-east-1": 0.045, "us-east-2": 0.045, "us-west-2": 0.045, "eu-central-1": 0.052, "eu-west-1": 0.048}
# An hour of a public IPv4 address, in use or not, the same in all regions.
PUBLIC_IP_HOUR = 0.005


def instance_hour(region: str, instance_type: str) -> float | None:
    """Dollars for an hour; None where the table has none."""
    family, _dot, size = instance_type.partition(".")
    large = INSTANCE_HOUR.get(region, {}).get(family)
    return None if large is None or size not in SIZES else large * SIZES[size]
