# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Instances into hosts, groups and variables: a pure function of what the API said and what the options ask for."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Iterable, Mapping, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.tags import (
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

# The groups of each role; they are there when they are empty too, so that a play's `hosts` always matches a group.
GROUPS_OF_ROLE = {CONTROL_PLANE: ("control_plane", "etcd"), WORKER: ("worker",)}
CLUSTER_GROUP = "cluster_"
POOL_GROUP = "pool_"
STANDING_GROUPS = ("control_plane", "etcd", "worker")

# Where Ansible finds the address and the name of a host, by the words of the options.
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
# A host of one of these names would take the place of the machine that Ansible runs on.
THIS_MACHINE = frozenset({"localhost", "127.0.0.1", "::1"})

_VARIABLES = (
    ("ec2_instance_id", "InstanceId"),
    ("ec2_instance_type", "InstanceType"),
    ("ec2_architecture", "Architecture"),
    ("ec2_region", "Region"),
    ("ec2_vpc_id", "VpcId"),
    ("ec2_private_ip", "PrivateIpAddress"),
    ("ec2_public_ip", "PublicIpAddress"),
)
# What is one value throughout a cluster or a pool is kept once, on the group, unless instances differ after all.
_OF_CLUSTER = ("ec2_cluster", "ec2_region", "ec2_vpc_id")
_OF_POOL = ("ec2_role", "ec2_pool", "ec2_instance_type", "ec2_architecture")
_VARIABLES_OF_TAGS = (("ec2_role", ROLE), ("ec2_pool", POOL), ("ec2_pod_cidr", POD_CIDR))
# Tags that have a variable of their own are not repeated in ec2_tags.
_OWN_TAGS = frozenset({NAME, ROLE, POOL, POD_CIDR})


class InventoryError(Exception):
    """Instances that cannot be told apart or must not be listed; the message names them and the way out."""


@dataclass(frozen=True)
class Layout:
    """How instances become hosts: the options that are no question to the API."""

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


def shared_variables(hosts: Sequence[Host]) -> dict[str, dict[str, Any]]:
    """For each group of a cluster or a pool, the variables in which all its hosts agree.

    Nothing is shared by hosts that are in several clusters: which group's value would win is nobody's decision.
    """
    members: dict[str, list[Host]] = {}
    for host in hosts:
        if len(host.clusters) < 2:
            for group in host.groups:
                members.setdefault(group, []).append(host)
    shared: dict[str, dict[str, Any]] = {}
    for group, group_hosts in members.items():
        names = _OF_CLUSTER if group.startswith(CLUSTER_GROUP) else _OF_POOL if group.startswith(POOL_GROUP) else ()
        for name in names:
            values = {host.variables.get(name) for host in group_hosts}
            if len(values) == 1 and None not in values:
                shared.setdefault(group, {})[name] = values.pop()
    return shared


def safe_group_name(text: str) -> str:
    """`text` as Ansible wants a group's name: word characters alone."""
    return re.sub(r"\W", "_", text, flags=re.ASCII)


def hosts_from(instances: Iterable[Mapping[str, Any]], layout: Layout) -> Hosts:
    """One host for each instance, in the order of their names.

    An instance without a usable name is left out with a warning that names it. Raises InventoryError where two have
    one name, or one name is this machine's: a play would run on the wrong one.
    """
    result = Hosts()
    seen: dict[str, Mapping[str, Any]] = {}
    nameless: list[str] = []
    for instance in instances:
        tags = as_mapping(instance.get("Tags"))
        name, refused = _name(instance, tags, layout.hostnames)
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
        result.hosts.append(_host(name, instance, tags, layout, result.warnings))
    if nameless:
        result.warnings.append(
            f"left out, having no name by hostnames ({', '.join(layout.hostnames)}): {'; '.join(sorted(nameless))}; "
            "give them a Name tag of letters, digits, dots and dashes, or add instance_id to hostnames"
        )
    result.hosts.sort(key=lambda host: host.name)
    return result


def _name(
    instance: Mapping[str, Any], tags: Mapping[str, str], preference: Sequence[str]
) -> tuple[str | None, list[str]]:
    """The first usable name, and the values that were met before it and cannot be one."""
    refused: list[str] = []
    for wanted in preference:
        if wanted.startswith(TAG_PREFIX):
            value = tags.get(wanted[len(TAG_PREFIX) :], "")
        else:
            value = instance.get(HOSTNAME_FIELDS[wanted]) or ""
        if USABLE_NAME.fullmatch(value):
            return value, refused
        if value:
            refused.append(f"{wanted} {value!r}")
    return None, refused


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
    meant = [owner for owner in owners if owner in layout.clusters] if layout.clusters else owners
    if len(owners) > 1:
        warnings.append(
            f"{name} ({_where(instance)}) is tagged as owned by several clusters: {', '.join(owners)}; "
            "remove the tags that are wrong"
        )
    groups = []
    if meant:
        variables["ec2_cluster"] = meant[0]
    groups += [CLUSTER_GROUP + safe_group_name(cluster) for cluster in meant]
    for variable, tag in _VARIABLES_OF_TAGS:
        if tags.get(tag):
            variables[variable] = tags[tag]
    role = tags.get(ROLE)
    if role in GROUPS_OF_ROLE:
        groups += GROUPS_OF_ROLE[role]
    elif role:
        warnings.append(
            f"{name} ({_where(instance)}) has the tag {ROLE}={role!r}, which is none of "
            f"{', '.join(GROUPS_OF_ROLE)}, and is in no group of nodes"
        )
    pool = tags.get(POOL)
    if pool:
        groups.append(POOL_GROUP + safe_group_name(pool))
    variables["ec2_tags"] = {
        key: value for key, value in tags.items() if key not in _OWN_TAGS and not key.startswith(CLUSTER_PREFIX)
    }
    if layout.full:
        variables["ec2_instance"] = _snake_case({key: value for key, value in instance.items() if key != "Tags"})
        variables["ec2_instance"]["tags"] = dict(tags)
    return Host(name, variables, groups, meant)


def _where(instance: Mapping[str, Any]) -> str:
    zone = instance.get("Placement", {}).get("AvailabilityZone") or instance.get("Region", "")
    return f"{instance.get('InstanceId')} in {zone}"


_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def _snake_case(value: Any) -> Any:
    """The keys of the API ("PrivateIpAddress") as Ansible's users write them ("private_ip_address")."""
    if isinstance(value, dict):
        return {_WORD.sub("_", key).lower(): _snake_case(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_snake_case(item) for item in value]
    return value
