"""Access to moto's backends: the services that the lab offers, and their objects."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from ec2lab.lab import REGION

# moto reads these when it is imported: the account's only image is the lab's own; types and key pairs are checked.
os.environ.setdefault("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")

from moto.backends import get_backend
from moto.core import DEFAULT_ACCOUNT_ID

# Each lab sets its own account here; moto reads this variable with every request.
ACCOUNT = os.environ.get("MOTO_ACCOUNT_ID", DEFAULT_ACCOUNT_ID)
SERVICES = ("ec2", "elbv2", "autoscaling", "iam", "sts", "ssm", "s3")
# The same by the names of AWS's endpoints.
ENDPOINTS = ("ec2", "elasticloadbalancing", "autoscaling", "iam", "sts", "ssm", "s3")

__all__ = ["ACCOUNT", "ENDPOINTS", "REGION", "SERVICES", "all_ec2", "ec2", "elbv2", "get_backend", "iam", "sts"]


def ec2(region: str = REGION) -> Any:
    return get_backend("ec2")[ACCOUNT][region]


def elbv2(region: str = REGION) -> Any:
    return get_backend("elbv2")[ACCOUNT][region]


def iam() -> Any:
    return get_backend("iam")[ACCOUNT]["aws"]


def sts() -> Any:
    return get_backend("sts")[ACCOUNT]["aws"]


def all_ec2() -> Iterator[tuple[str, Any]]:
    """(region, EC2 backend) of each region that has been used."""
    yield from list(get_backend("ec2")[ACCOUNT].items())
