# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a plan is carried out, as policies see it: the ARNs and the context keys of what its steps name.

https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html#amazonec2-resources-for-iam-policies
"""

from __future__ import annotations

from typing import Any, Dict, Iterable, Iterator, Mapping, NamedTuple

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import names, state, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.plan import Plan

Context = Dict[str, str]

ANY = "*"
# Resource types as ARNs have them, by what our references begin with and by what EC2's ids begin with.
KIND_OF_REFERENCE = {
    "vpc": "vpc",
    "gateway": "internet-gateway",
    "subnet": "subnet",
    "route-table": "route-table",
    "security-group": "security-group",
    "nat-gateway": "natgateway",
    "elastic-ip": "elastic-ip",
    "instance": "instance",
}
KIND_OF_ID = {
    "vpc": "vpc",
    "igw": "internet-gateway",
    "subnet": "subnet",
    "rtb": "route-table",
    "sg": "security-group",
    "nat": "natgateway",
    "eipalloc": "elastic-ip",
    "i": "instance",
    "vol": "volume",
    "key": "key-pair",
}


class Account(NamedTuple):
    partition: str
    id: str


class Place:
    """Where a plan is carried out: makes ARNs and contexts of what its steps name."""

    def __init__(self, plan: Plan, description: Description, current: state.Current, account: Account) -> None:
        self.description = description
        self.current = current
        self.ids = plan.ids
        self.account = account
        self.own = {tags.cluster_tag(description.name): tags.OWNED, **description.tags}
        self._tags = dict(_tags_by_id(current))
        self.region: Context = {"aws:RequestedRegion": description.region}

    def arn(self, service: str, resource: str, account: str | None = None) -> str:
        region = "" if service == "iam" else self.description.region
        owner = self.account.id if account is None else account
        return f"arn:{self.account.partition}:{service}:{region}:{owner}:{resource}"

    def requested(self, given: Mapping[str, str] | None = None) -> Context:
        """The tags that a request puts on, of ours those that all that we make has."""
        return {f"aws:RequestTag/{key}": value for key, value in (self.own if given is None else given).items()}

    def tagged(self, resource_tags: Mapping[str, str] | None, *prefixes: str) -> Context:
        """The tags of what is asked for; without any given, those of what is yet to be made."""
        given = self.own if resource_tags is None else resource_tags
        mark = tags.cluster_tag(self.description.name)
        shown = {
            key: value
            for key, value in given.items()
            # Those that differ from resource to resource would make a question of each.
            if key == mark or (key != tags.NAME and not key.startswith(tags.PREFIX))
        }
        return {f"{prefix}:ResourceTag/{key}": value for prefix in ("aws", *prefixes) for key, value in shown.items()}

    def ec2(self, reference: str) -> tuple[str, Context]:
        """ARN and context of what a reference ("subnet/public/eu-central-1a") or an id stands for."""
        kind = KIND_OF_REFERENCE.get(reference.partition("/")[0])
        id = self.ids.get(reference, "") if kind else reference
        kind = kind or KIND_OF_ID[id.partition("-")[0]]
        name = next((pair.name for pair in self.current.key_pairs if pair.id == id), id or ANY)
        # Of what has not been read nothing is held against the caller.
        return self.arn("ec2", f"{kind}/{name}"), {**self.region, **self.tagged(self._tags.get(id), "ec2")}

    def role(self, name: str) -> str:
        role = self.current.roles.get(name)
        path = names.iam_path(self.description.name, self.description.region)
        return role.arn if role else self.arn("iam", f"role{path}{name}")

    def profile(self, name: str) -> str:
        profile = self.current.profiles.get(name)
        path = names.iam_path(self.description.name, self.description.region)
        return profile.arn if profile else self.arn("iam", f"instance-profile{path}{name}")


def _tags_by_id(current: state.Current) -> Iterator[tuple[str, state.Tags]]:
    groups: tuple[Iterable[Any], ...] = (
        current.vpcs,
        [current.given_vpc] if current.given_vpc else [],
        current.subnets,
        current.foreign_subnets,
        current.route_tables,
        current.foreign_route_tables,
        current.gateways,
        current.foreign_gateways,
        current.nat_gateways,
        current.addresses,
        current.groups,
        current.key_pairs,
        current.instances,
        current.volumes.values(),
    )
    for group in groups:
        for item in group:
            yield item.id, item.tags
