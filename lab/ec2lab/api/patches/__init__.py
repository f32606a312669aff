"""Where moto differs from EC2: each module corrects one subject, by replacing methods of moto's classes.

`install` is called once, before the first request.
"""

from __future__ import annotations

from ec2lab.api import remembered
from ec2lab.api.patches import (
    addresses,
    balancers,
    bucket_requests,
    buckets,
    dependencies,
    images,
    instances,
    interfaces,
    quotas,
    roles,
    routes,
    volumes,
    vpcs,
)


def install(public_range: str) -> None:
    remembered.install()
    addresses.install(public_range)
    interfaces.install()
    instances.install()
    images.install()
    volumes.install()
    vpcs.install()
    routes.install()
    dependencies.install()
    balancers.install()
    roles.install()
    quotas.install()
    bucket_requests.install()
    buckets.install()
