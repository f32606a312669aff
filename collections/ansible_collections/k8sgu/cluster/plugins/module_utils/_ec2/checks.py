# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Checks of the description against the account, before the first change, and the decisions that need it."""

from __future__ import annotations

from typing import Any, Iterable

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import plan, quotas, ranges, session, state, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import (
    Description,
    DescriptionError,
    Image,
    Pool,
    check_subnet_room,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.reading import Reader, read_images


def check_place(description: Description, current: state.Current) -> None:
    """The cluster is in one VPC, and that is the one meant. Raises DescriptionError."""
    if description.vpc_id and not current.given_vpc:
        raise DescriptionError(
            f"vpc_id: there is no VPC {description.vpc_id} in {description.region}; check id, region and account"
        )
    if len(current.vpcs) - len(current.empty_twins()) > 1:
        found = ", ".join(vpc.id for vpc in current.vpcs)
        raise DescriptionError(
            f"name: the VPCs {found} all carry the tag of cluster {description.name}; remove those that are not the "
            "cluster's, or take the tag off them"
        )
    here = current.vpc.id if current.vpc else ""
    twins = current.empty_twins()
    places = {vpc.id: f"VPC {vpc.id}" for vpc in current.vpcs if description.vpc_id or vpc not in twins}
    places.update({group.vpc_id: f"security group {group.id}" for group in current.groups})
    places.update({item.vpc_id: f"instance {item.id}" for item in current.instances if item.alive and item.vpc_id})
    for place, what in sorted(places.items()):
        if place != here:
            raise DescriptionError(
                f"name: there is a cluster {description.name} in another VPC ({place}: {what}); choose another name, "
                f"or give vpc_id: {place}, or remove that cluster first"
            )
    if current.vpc:
        _check_ranges_of(description, current.vpc)
    if current.given_vpc and not description.subnet_ids:
        check_subnet_room(description, ranges.network(current.given_vpc.cidr))


def _check_ranges_of(description: Description, vpc: state.Vpc) -> None:
    for net in map(ranges.network, (vpc.cidr, *vpc.further_cidrs)):
        for option in ("pod_cidr", "service_cidr"):
            other = ranges.network(getattr(description, option))
            if net.overlaps(other):
                raise DescriptionError(f"{option}: {other} overlaps the range {net} of {vpc.id}; choose another")


def check_subnets(description: Description, current: state.Current) -> None:
    """Subnets that were brought: there, in the VPC, of different zones, with room. Raises DescriptionError."""
    found = {subnet.id: subnet for subnet in (*current.subnets, *current.foreign_subnets)}
    zones: dict[str, str] = {}
    for id in description.subnet_ids:
        if id not in found:
            raise DescriptionError(
                f"subnet_ids: there is no subnet {id} in {description.vpc_id}; check the id and vpc_id"
            )
        other = zones.setdefault(found[id].zone, id)
        if other != id:
            raise DescriptionError(f"subnet_ids: {other} and {id} are both in {found[id].zone}; give one for each zone")
        net = ranges.network(found[id].cidr)
        per_zone = -(-description.node_count // len(description.subnet_ids))
        if net.num_addresses - ranges.RESERVED_IN_SUBNET < per_zone + 1:
            raise DescriptionError(
                f"subnet_ids: {id} ({net}) has no room for {per_zone} nodes; give a larger one or more of them"
            )
        if net.overlaps(ranges.network(description.pod_cidr)):
            raise DescriptionError(f"pod_cidr: {description.pod_cidr} overlaps {net} of {id}; choose another")


def zones_of(reader: Reader, description: Description, current: state.Current) -> tuple[str, ...]:
    """The zones that are asked for; or those of the cluster's subnets; or the first that offers every instance type."""
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


def launches(plan_: plan.Plan) -> bool:
    return any(step.call in ("launch", "replace", "create_subnet") for step in plan_.steps)


def check_launches(
    reader: Reader, description: Description, current: state.Current, zones: tuple[str, ...], changes: plan.Plan
) -> dict[Image, state.MachineImage]:
    """Everything that a launch can fail at and that can be known before.

    Gives the image for each description of one.
    """
    pools = [pool for pool in description.pools if pool.count]
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
    types = _types(reader, pools)
    offers = _offers(reader, types)
    for number, pool in enumerate(description.pools):
        for zone in used:
            if pool.count and zone not in offers[pool.instance_type]:
                others = ", ".join(sorted(offers[pool.instance_type] & there)) or "none"
                raise DescriptionError(
                    f"pools[{number}].instance_type: {zone} does not offer {pool.instance_type}; zones that do: "
                    f"{others}"
                )
    read_images(reader, {pool.image for pool in pools if pool.image not in current.images}, current)
    images = {}
    for pool in pools:
        images[pool.image] = _image(description, current, pool, types[pool.instance_type])
    if description.key_name:
        _key(reader, description)
    new = [step for step in changes.steps if step.call == "launch"]
    cpus = sum(types[step.arguments["instance_type"]]["VCpuInfo"]["DefaultVCpus"] for step in new)
    quotas.check(reader, description, current, changes, cpus)
    return images


def _types(reader: Reader, pools: list[Pool]) -> dict[str, Any]:
    wanted = sorted({pool.instance_type for pool in pools})
    # By filter: an unknown type is then missing from the answer, and not an error that hides which one.
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


def _image(description: Description, current: state.Current, pool: Pool, kind: Any) -> state.MachineImage:
    wanted = pool.image
    found = current.images.get(wanted, [])
    option = f"image: {wanted.id}" if wanted.id else f"image: {wanted.name} of {wanted.owner}"
    if not found:
        raise DescriptionError(
            f"{option}: there is no such AMI in {description.region} that this account may use; "
            "check id, owner and name, and that it is of this region"
        )
    architectures = kind["ProcessorInfo"]["SupportedArchitectures"]
    fitting = [image for image in found if image.architecture in architectures]
    if not fitting:
        raise DescriptionError(
            f"{option}: {found[0].id} is {found[0].architecture}, and {pool.instance_type} of pool {pool.name} takes "
            f"{' or '.join(architectures)}; choose an AMI or a type of the other's architecture"
        )
    if fitting[0].smallest_root > pool.root_volume_size:
        raise DescriptionError(
            f"pools: {pool.name}: root_volume_size {pool.root_volume_size} GiB is smaller than {fitting[0].id}, which "
            f"has {fitting[0].smallest_root} GiB; give at least that"
        )
    return fitting[0]


def check_names(reader: Reader, changes: plan.Plan) -> None:
    """Names that the plan is to make and that somebody else has. Raises DescriptionError."""
    wanted = {call: [step for step in changes.steps if step.call == call] for call in _NAMED}
    for step in wanted["import_key"]:
        name = step.arguments["name"]
        filters = [{"Name": "key-name", "Values": [name]}]
        found = reader.pages("ec2", "describe_key_pairs", "KeyPairs", Filters=filters)
        if any(not reader.mine(tags.as_mapping(item.get("Tags"))) for item in found):
            raise DescriptionError(
                f"name: there is a key pair {name} that is not the cluster's; choose another name for the cluster, "
                f"remove that, or give key_name: {name} to use it"
            )
    for call in ("create_role", "create_profile"):
        if not wanted[call]:
            continue
        # By the whole list, since GetRole would need a permission for roles that are not ours.
        operation, key, name_of, what = _NAMED[call]
        paths = {item[name_of]: item["Path"] for item in reader.pages("iam", operation, key)}
        for step in wanted[call]:
            name, path = step.arguments["name"], step.arguments["path"]
            if paths.get(name, path) != path:
                raise DescriptionError(
                    f"name: there is an {what} {name} that is not the cluster's (its path is {paths[name]}); choose "
                    "another name for the cluster, remove that, or give instance_profiles: false"
                )


# For each handler that makes something under a name of its own: how to list what there is.
_NAMED = {
    "import_key": ("describe_key_pairs", "KeyPairs", "KeyName", "key pair"),
    "create_role": ("list_roles", "Roles", "RoleName", "IAM role"),
    "create_profile": ("list_instance_profiles", "InstanceProfiles", "InstanceProfileName", "instance profile"),
}


def _key(reader: Reader, description: Description) -> None:
    try:
        reader.pages("ec2", "describe_key_pairs", "KeyPairs", KeyNames=[description.key_name])
    except session.AwsError as error:
        if error.__cause__ is None or session.error_code(error.__cause__) != "InvalidKeyPair.NotFound":
            raise
        raise DescriptionError(
            f"key_name: there is no key pair {description.key_name} in {description.region}; import it, or give "
            "public_key"
        ) from None
