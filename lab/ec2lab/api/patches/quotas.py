"""The account's quotas: AWS's defaults of today, where moto has older ones.

https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html#vpc-limits-route-tables
"""

from __future__ import annotations

from moto.servicequotas.resources.default_quotas.vpc import VPC_DEFAULT_QUOTAS

# By code; the first is that of routes in a route table.
VALUES = {"L-93826ACB": 500.0}


def install() -> None:
    for quota in VPC_DEFAULT_QUOTAS:
        quota["Value"] = VALUES.get(str(quota["QuotaCode"]), quota["Value"])
