# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What EC2 offers: zones, instance types in them, and how many vCPUs the account may have."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Iterable

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import plan, quotas, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.access import bastion
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import (
    Description,
    DescriptionError,
    Image,
    Pool,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.grants import READ, Grant
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes import images, launch
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.reader import Reader

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current

STANDARD_VCPUS = ("ec2", "L-1216C47A")
# The families that the quota of vCPUs of standard instances covers.
STANDARD_FAMILY = re.compile(r"[acdhimrtz]\d")


def zones_of(reader: Reader, description: Description, current: Current) -> tuple[str, ...]:
    """The zones of the description, or of the cluster's subnets, or the first that offers every instance type."""
    if description.zones or description.subnet_ids:
        return description.zones
    kind = "private" if description.private_nodes else "public"
    there = {subnet.zone for subnet in current.subnets if subnet.tags.get(tags.ROLE) == kind}
    there = there or {subnet.zone for subnet in current.subnets}
    if there:
        return tuple(sorted(there))
    names = [zone["ZoneName"] for zone in _zones(reader)]
    offers = _offers(reader, {pool.instance_type for pool in description.pools})
    for name in sorted(names):
        if all(name in zones for zones in offers.values()):
            return (name,)
    listed = ", ".join(sorted(offers))
    raise DescriptionError(
        f"pools: no zone of {description.region} offers all of {listed}; choose other instance types"
    )


def _zones(reader: Reader) -> list[Any]:
    return [
        zone
        for zone in reader.pages("ec2", "describe_availability_zones", "AvailabilityZones")
        if zone["State"] == "available" and zone.get("ZoneType", "availability-zone") == "availability-zone"
    ]


def _offers(reader: Reader, types: Iterable[str]) -> dict[str, set[str]]:
    """For each type the zones that offer it."""
    wanted = sorted(set(types))
    offers: dict[str, set[str]] = {name: set() for name in wanted}
    for item in reader.pages(
        "ec2",
        "describe_instance_type_offerings",
        "InstanceTypeOfferings",
        LocationType="availability-zone",
        Filters=[{"Name": "instance-type", "Values": wanted}],
    ):
        offers[item["InstanceType"]].add(item["Location"])
    return offers


def types_of(reader: Reader, description: Description, current: Current, zones: tuple[str, ...]) -> dict[str, Any]:
    """The instance types of the pools as the API describes them, each offered in every zone that is used.

    Raises DescriptionError.
    """
    used = zones or tuple(
        subnet.zone for subnet in (*current.subnets, *current.foreign_subnets) if subnet.id in description.subnet_ids
    )
    there = {zone["ZoneName"] for zone in _zones(reader)}
    for zone in used:
        if zone not in there:
            raise DescriptionError(
                f"zones: there is no zone {zone} in {description.region} for this account; there are "
                f"{', '.join(sorted(there))}"
            )
    types = _types(reader, [pool for pool in description.pools if pool.count])
    offers = _offers(reader, types)
    for number, pool in enumerate(description.pools):
        if pool.count and pool.etcd_volume_size and types[pool.instance_type].get("Hypervisor") == "xen":
            raise DescriptionError(
                f"pools[{number}].etcd_volume_size: {pool.instance_type} is a Xen type, which does not tell its system "
                "the id of a volume; choose a type of the Nitro system (aws ec2 describe-instance-types --filters "
                "Name=hypervisor,Values=nitro), or 0"
            )
        for zone in used:
            if pool.count and zone not in offers[pool.instance_type]:
                others = ", ".join(sorted(offers[pool.instance_type] & there)) or "none"
                raise DescriptionError(
                    f"pools[{number}].instance_type: {zone} does not offer {pool.instance_type}; zones that do: "
                    f"{others}"
                )
    return types


def _types(reader: Reader, pools: list[Pool]) -> dict[str, Any]:
    wanted = sorted({pool.instance_type for pool in pools})
    # By filter: an unknown type is then missing from the answer, and not an error that does not say which one.
    found = {
        item["InstanceType"]: item
        for item in reader.pages(
            "ec2", "describe_instance_types", "InstanceTypes", Filters=[{"Name": "instance-type", "Values": wanted}]
        )
    }
    for pool in pools:
        if pool.instance_type not in found:
            raise DescriptionError(
                f"pools: {pool.name}: there is no instance type {pool.instance_type} in this region; "
                "`aws ec2 describe-instance-types` lists them"
            )
    return found


def images_of(
    reader: Reader, description: Description, current: Current, types: dict[str, Any], changes: plan.Plan
) -> dict[Image, images.MachineImage]:
    """The image for each description of one that is launched from, fitting its pool. Raises DescriptionError.

    What the others stand for makes no difference: an image may be gone while nodes from it run.
    """
    launched = {step.tags[tags.POOL] for kind in (launch.Launch, launch.Replace) for step in changes.of(kind)}
    if changes.of(bastion.LaunchBastion):
        launched.add(tags.CONTROL_PLANE)
    pools = [pool for pool in description.pools if pool.name in launched]
    images.read(reader, {pool.image for pool in pools if pool.image not in current.images}, current)
    return {pool.image: images.fitting(description, current, pool, types[pool.instance_type]) for pool in pools}


def check_quota(reader: Reader, description: Description, changes: plan.Plan, types: dict[str, Any]) -> None:
    """The vCPUs of the nodes to launch, beside those that are in use. Raises DescriptionError."""
    vcpus = sum(types[step.instance_type]["VCpuInfo"]["DefaultVCpus"] for step in changes.of(launch.Launch))
    if not vcpus or not all(STANDARD_FAMILY.match(pool.instance_type) for pool in description.pools):
        return
    allowed = quotas.quota(reader, STANDARD_VCPUS)
    if allowed is None:
        return
    used = 0
    running = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
    for reservation in reader.pages("ec2", "describe_instances", "Reservations", Filters=running):
        for item in reservation["Instances"]:
            options = item.get("CpuOptions", {})
            if STANDARD_FAMILY.match(item["InstanceType"]) and item.get("InstanceLifecycle") != "spot":
                used += options.get("CoreCount", 1) * options.get("ThreadsPerCore", 1)
    if used + vcpus > allowed:
        raise DescriptionError(
            f"pools: the new nodes have {vcpus} vCPUs, {used} are in use and the quota is {allowed}; choose fewer or "
            f"smaller nodes, or have the quota {STANDARD_VCPUS[1]} raised"
        )


PERMISSIONS = (
    Grant(
        READ,
        (
            "ec2:DescribeAvailabilityZones",
            "ec2:DescribeInstanceTypeOfferings",
            "ec2:DescribeInstanceTypes",
        ),
    ),
)
