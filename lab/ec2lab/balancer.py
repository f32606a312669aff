"""Network load balancers: health checks of targets, from the balancer's own addresses inside the VPC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class TargetHealth:
    """As DescribeTargetHealth has it; `reason` is one of its codes, such as Target.FailedHealthChecks, or empty."""

    state: Literal["initial", "healthy", "unhealthy", "unused"]
    reason: str = ""
    description: str = ""
