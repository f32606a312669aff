# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Turns instances into hosts, groups and variables: a pure function of the API's answer and the options."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Container, Iterable, Mapping, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.names import ETCD_DEVICE
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.tags import (
    BASTION,
    CLUSTER_PREFIX,
    CONTROL_PLANE,
    NAME,
    POD_CIDR,
    POOL,
    ROLE,
    WORKER,
    as_mapping,
    clusters_of,
)

# The groups of each role. They exist when they are empty too, so that a play's `hosts` always matches a group.
GROUPS_OF_ROLE = {CONTROL_PLANE: ("control_plane", "etcd"), WORKER: ("worker",)}
CLUSTER_GROUP = "cluster_"
POOL_GROUP = "pool_"
STANDING_GROUPS = ("control_plane", "etcd", "worker")

# Where the address and the name of a host come from, by the values of the options.
ADDRESSES = {
    "public_ip": "PublicIpAddress",
    "private_ip": "PrivateIpAddress",
    "public_dns": "PublicDnsName",
    "private_dns": "PrivateDnsName",
}
HOSTNAME_FIELDS = {**ADDRESSES, "instance_id": "InstanceId"}
TAG_PREFIX = "tag:"

# A name becomes part of file names and host patterns: no slash, no comma, no colon, no brackets, no leading dash.
USABLE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")
# Groups that Ansible itself makes.
ANSIBLES_GROUPS = ("all", "ungrouped")
# A host of such a name would replace the machine that Ansible runs on.
THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})

_VARIABLES = (
    ("ec2_instance_id", "InstanceId"),
    ("ec2_instance_type", "InstanceType"),
    ("ec2_architecture", "Architecture"),
    ("ec2_account", "OwnerId"),
    ("ec2_region", "Region"),
    ("ec2_vpc_id", "VpcId"),
    ("ec2_private_ip", "PrivateIpAddress"),
    ("ec2_public_ip", "PublicIpAddress"),
)
# What most nodes of a cluster or a pool have in common is kept once, on the group. The last two are kept on clusters or
# on pools, whichever saves more, and never on both, since the order of groups is not ours to decide.
_OF_CLUSTER = ("ec2_cluster", "ec2_account", "ec2_region", "ec2_vpc_id")
_OF_POOL = ("ec2_role", "ec2_pool", "ec2_instance_type", "ec2_architecture")
_OF_EITHER = ("ec2_zone", "ec2_tags")
_VARIABLES_OF_TAGS = (("ec2_role", ROLE), ("ec2_pool", POOL), ("ec2_pod_cidr", POD_CIDR))
# Tags that have a variable of their own are not repeated in ec2_tags.
_OWN_TAGS = frozenset({NAME, ROLE, POOL, POD_CIDR})


class InventoryError(Exception):
    """Instances that cannot be told apart or must not be listed. The message names them and what to do."""


@dataclass(frozen=True)
class Layout:
    """How instances become hosts: the options that are not part of the question to the API."""

    clusters: tuple[str, ...]
    hostnames: tuple[str, ...] = (TAG_PREFIX + NAME,)
    addresses: tuple[str, ...] = ("public_ip", "private_ip", "private_dns")
    full: bool = False


@dataclass
class Host:
    name: str
    variables: dict[str, Any]
    groups: list[str]
    clusters: list[str]


@dataclass
class Hosts:
    hosts: list[Host] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass
class Placement:
    """Where variables are kept: those of the groups, and those of each host, in the order of the hosts."""

    groups: dict[str, dict[str, Any]]
    hosts: list[dict[str, Any]]


def placed(hosts: Sequence[Host], merging: bool = False) -> Placement:
    """The variables of `hosts`, with what they have in common moved to their groups. Ansible merges them again.

    A host's own value wins over its groups', so a host that differs keeps its value. A host of several clusters keeps
    all of its variables. With `merging` (hash_behaviour = merge) dictionaries of groups and hosts are merged, so a
    dictionary moves to a group only if all members have it.
    """
    members: dict[str, list[Host]] = {}
    for host in hosts:
        for group in host.groups:
            if group.startswith((CLUSTER_GROUP, POOL_GROUP)):
                members.setdefault(group, []).append(host)
    groups: dict[str, dict[str, Any]] = {}
    for name in (*_OF_CLUSTER, *_OF_POOL, *_OF_EITHER):
        kinds = [CLUSTER_GROUP] * (name not in _OF_POOL) + [POOL_GROUP] * (name not in _OF_CLUSTER)
        shared = [
            {
                group: value
                for group in members
                if group.startswith(kind)
                for value in _common(members[group], name, merging)
            }
            for kind in kinds
        ]
        best = max(shared, key=lambda found: sum(_has(host, name, found) for host in hosts))
        for group, value in best.items():
            groups.setdefault(group, {})[name] = value
    own = [
        {
            name: value
            for name, value in host.variables.items()
            if len(host.clusters) > 1
            or not any(name in groups.get(group, ()) and groups[group][name] == value for group in host.groups)
        }
        for host in hosts
    ]
    return Placement(groups, own)


def _has(host: Host, name: str, found: Mapping[str, Any]) -> bool:
    """Whether `host` would get its value of a variable from `found`, the values by group."""
    return len(host.clusters) < 2 and any(
        found[group] == host.variables[name] for group in host.groups if group in found
    )


def _common(hosts: Sequence[Host], name: str, merging: bool) -> list[Any]:
    """The value that more than half of `hosts` have, where each has one: a list of one value or of none.

    Of none, too, where no host would take it from the group.
    """
    if all(len(host.clusters) > 1 for host in hosts):
        return []
    counts: dict[str, int] = {}
    values: dict[str, Any] = {}
    for host in hosts:
        value = host.variables.get(name)
        if value is None:
            return []
        key = str(sorted(value.items())) if isinstance(value, dict) else str(value)
        counts[key] = counts.get(key, 0) + 1
        values[key] = value
    most = max(counts, key=lambda key: counts[key])
    enough = counts[most] == len(hosts) if merging and isinstance(values[most], dict) else 2 * counts[most] > len(hosts)
    return [values[most]] if enough else []


def safe_group_name(text: str) -> str:
    """`text` as the name of a group, for which Ansible wants word characters only."""
    return re.sub(r"\W", "_", text, flags=re.ASCII)


def hosts_from(instances: Iterable[Mapping[str, Any]], layout: Layout, groups: Iterable[str] = ()) -> Hosts:
    """One host for each instance, in the order of their names.

    An instance without a usable name is left out, with a warning that names it. The name of a group, ours or one of
    `groups`, which exist already, is not usable: Ansible would take the group for the host. Raises InventoryError where
    two instances have the same name or one has this machine's, since a play would run on the wrong one.
    """
    result = Hosts()
    seen: dict[str, Mapping[str, Any]] = {}
    nameless: list[str] = []
    everything = [(instance, as_mapping(instance.get("Tags"))) for instance in instances]
    doors = {
        owner: instance
        for instance, tags in everything
        if tags.get(ROLE) == BASTION and instance.get("PublicIpAddress")
        for owner in _owners(tags, layout)
    }
    # A bastion is no host for plays.
    tagged = [(instance, tags) for instance, tags in everything if tags.get(ROLE) != BASTION]
    taken = {*ANSIBLES_GROUPS, *STANDING_GROUPS, *groups}
    taken.update(group for _instance, tags in tagged for group in _groups(tags, layout))
    for instance, tags in tagged:
        name, refused = _name(instance, tags, layout.hostnames, taken)
        if name is None:
            nameless.append(_where(instance) + (f" (not usable: {', '.join(refused)})" if refused else ""))
            continue
        if name.lower() in THIS_MACHINE:
            raise InventoryError(
                f"{_where(instance)} is named {name!r}, which is this machine's name in Ansible: plays meant for "
                "this machine would run there; give the instance another Name tag, or put instance_id into hostnames"
            )
        if name in seen:
            raise InventoryError(
                f"two instances are named {name!r}: {_where(seen[name])} and {_where(instance)}; rename or end one, "
                "or narrow clusters, regions or filters, or put instance_id into hostnames"
            )
        seen[name] = instance
        host = _host(name, instance, tags, layout, result.warnings)
        door = doors.get(host.variables.get("ec2_cluster", ""))
        if door and not instance.get("PublicIpAddress"):
            host.variables["ec2_bastion"] = door["PublicIpAddress"]
            host.variables["ec2_bastion_id"] = door["InstanceId"]
        result.hosts.append(host)
    if nameless:
        result.warnings.append(
            f"left out, since hostnames ({', '.join(layout.hostnames)}) gives them no name: "
            f"{'; '.join(sorted(nameless))}; give them a Name tag of letters, digits, dots and dashes that is not a "
            "group's name, or add instance_id to hostnames"
        )
    result.hosts.sort(key=lambda host: host.name)
    return result


def _name(
    instance: Mapping[str, Any], tags: Mapping[str, str], preference: Sequence[str], taken: Container[str]
) -> tuple[str | None, list[str]]:
    """The first usable name, and the values before it that cannot be a name."""
    refused: list[str] = []
    for wanted in preference:
        if wanted.startswith(TAG_PREFIX):
            value = tags.get(wanted[len(TAG_PREFIX) :], "")
        else:
            value = instance.get(HOSTNAME_FIELDS[wanted]) or ""
        if value in taken:
            refused.append(f"{wanted} {value!r}, a group's name")
        elif USABLE_NAME.fullmatch(value):
            return value, refused
        elif value:
            refused.append(f"{wanted} {value!r}")
    return None, refused


def _owners(tags: Mapping[str, str], layout: Layout) -> list[str]:
    """The clusters that own an instance with these tags, among those that are asked for."""
    owners = clusters_of(tags)
    return [owner for owner in owners if owner in layout.clusters] if layout.clusters else owners


def _groups(tags: Mapping[str, str], layout: Layout) -> list[str]:
    """The groups of an instance with these tags: of its clusters, its role and its pool."""
    groups = [CLUSTER_GROUP + safe_group_name(cluster) for cluster in _owners(tags, layout)]
    groups += GROUPS_OF_ROLE.get(tags.get(ROLE, ""), ())
    if tags.get(POOL):
        groups.append(POOL_GROUP + safe_group_name(tags[POOL]))
    return groups


def _host(name: str, instance: Mapping[str, Any], tags: Mapping[str, str], layout: Layout, warnings: list[str]) -> Host:
    variables: dict[str, Any] = {}
    for wanted in layout.addresses:
        address = instance.get(ADDRESSES[wanted])
        if address:
            variables["ansible_host"] = address
            break
    else:
        warnings.append(
            f"{name} ({_where(instance)}) has no address of connect_by ({', '.join(layout.addresses)}) "
            "and cannot be reached"
        )
    for variable, key in _VARIABLES:
        value = instance.get(key)
        if value:
            variables[variable] = value
    zone = instance.get("Placement", {}).get("AvailabilityZone")
    if zone:
        variables["ec2_zone"] = zone

    owners = clusters_of(tags)
    meant = _owners(tags, layout)
    if len(owners) > 1:
        warnings.append(
            f"{name} ({_where(instance)}) is tagged as owned by several clusters: {', '.join(owners)}; "
            "remove the tags that are wrong"
        )
    if meant:
        variables["ec2_cluster"] = meant[0]
    for variable, tag in _VARIABLES_OF_TAGS:
        if tags.get(tag):
            variables[variable] = tags[tag]
    role = tags.get(ROLE)
    for mapping in instance.get("BlockDeviceMappings", ()) if role == CONTROL_PLANE else ():
        if mapping.get("DeviceName") == ETCD_DEVICE and mapping.get("Ebs", {}).get("VolumeId"):
            variables["ec2_etcd_volume_id"] = mapping["Ebs"]["VolumeId"]
    if role and role not in GROUPS_OF_ROLE:
        warnings.append(
            f"{name} ({_where(instance)}) has the tag {ROLE}={role!r}, which is none of "
            f"{', '.join(GROUPS_OF_ROLE)}, and is in no group of nodes"
        )
    variables["ec2_tags"] = {
        key: value for key, value in tags.items() if key not in _OWN_TAGS and not key.startswith(CLUSTER_PREFIX)
    }
    if layout.full:
        variables["ec2_instance"] = _snake_case({key: value for key, value in instance.items() if key != "Tags"})
        variables["ec2_instance"]["tags"] = dict(tags)
    return Host(name, variables, _groups(tags, layout), meant)


def _where(instance: Mapping[str, Any]) -> str:
    zone = instance.get("Placement", {}).get("AvailabilityZone") or instance.get("Region", "")
    return f"{instance.get('InstanceId')} in {zone}"


_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def _snake_case(value: Any) -> Any:
    """The API's keys ("PrivateIpAddress") in Ansible's style ("private_ip_address")."""
    if isinstance(value, dict):
        return {_WORD.sub("_", key).lower(): _snake_case(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_snake_case(item) for item in value]
    return value
