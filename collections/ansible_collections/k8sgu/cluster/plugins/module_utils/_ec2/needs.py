# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a plan needs to be allowed: for each step the actions, the resources and the context that a policy may ask for.

Which action takes which resources and has which keys:
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html and the pages beside it for IAM,
Elastic Load Balancing and S3. Left out is what the caller's own policies alone do not decide: KMS, whose keys have
policies of their own, and CreateServiceLinkedRole, which an account needs once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, Mapping, NamedTuple, Tuple

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import names, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import TYPES, Current
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.plan import Plan

Context = Dict[str, str]
# Action, resource and context.
Found = Tuple[str, str, Context]

ANY = "*"


class Account(NamedTuple):
    partition: str
    id: str


@dataclass(frozen=True)
class Need:
    """An action on a resource with what a request for it carries; `step` is the key of the step that needs it."""

    action: str
    resource: str
    context: tuple[tuple[str, str], ...]
    step: str = field(compare=False)

    @property
    def created_by(self) -> str:
        """For tags at creation the action that makes what is tagged."""
        call = dict(self.context).get("ec2:CreateAction", "")
        return f"ec2:{call}" if call and self.action == "ec2:CreateTags" else self.action


class Place:
    """Where a plan is carried out, as policies see it: makes the ARNs and contexts of what its steps name."""

    def __init__(self, plan: Plan, description: Description, current: Current, account: Account) -> None:
        self.description = description
        self.current = current
        self.ids = plan.ids
        self.account = account
        self.own = {tags.cluster_tag(description.name): tags.OWNED, **description.tags}
        self._tags = {item.id: item.tags for item in current.tagged()}
        self.region: Context = {"aws:RequestedRegion": description.region}

    def arn(self, service: str, resource: str, account: str | None = None) -> str:
        region = "" if service in ("iam", "s3") else self.description.region
        owner = self.account.id if account is None else account
        return f"arn:{self.account.partition}:{service}:{region}:{owner}:{resource}"

    def requested(self, given: Mapping[str, str] | None = None) -> Context:
        """The tags that a request puts on: `given`, or those that everything of the cluster has."""
        return {f"aws:RequestTag/{key}": value for key, value in (self.own if given is None else given).items()}

    def tagged(self, resource_tags: Mapping[str, str] | None, *prefixes: str) -> Context:
        """The tags of what a request names; without any given, those of what is yet to be made."""
        given = self.own if resource_tags is None else resource_tags
        mark = tags.cluster_tag(self.description.name)
        shown = {
            key: value
            for key, value in given.items()
            # Tags that differ from resource to resource would make a question of each.
            if key == mark or (key != tags.NAME and not key.startswith(tags.PREFIX))
        }
        return {f"{prefix}:ResourceTag/{key}": value for prefix in ("aws", *prefixes) for key, value in shown.items()}

    def ec2(self, reference: str) -> tuple[str, Context]:
        """ARN and context of what a reference ("subnet/public/eu-central-1a") or an id stands for."""
        # References have a slash or are one word; ids have a dash.
        if "/" in reference or "-" not in reference:
            kind, id = reference.partition("/")[0], self.ids.get(reference, "")
        else:
            kind, id = reference.partition("-")[0], reference
        name = next((pair.name for pair in self.current.key_pairs if pair.id == id), id or ANY)
        # What has not been read counts as tagged as it should be.
        return self.arn("ec2", f"{TYPES[kind]}/{name}"), {**self.region, **self.tagged(self._tags.get(id), "ec2")}

    def creates(self, action: str, kind: str, *used: str, name: str = ANY) -> Iterator[Found]:
        """EC2 makes something of `kind` with our tags, from what the references or ids `used` stand for."""
        resource, context = self.arn("ec2", f"{kind}/{name}"), {**self.region, **self.requested()}
        yield f"ec2:{action}", resource, context
        yield "ec2:CreateTags", resource, {**context, "ec2:CreateAction": action}
        yield from self.changes(action, *used)

    def changes(self, action: str, *used: str) -> Iterator[Found]:
        """EC2 changes or removes what the references or ids `used` stand for."""
        for reference in used:
            yield (f"ec2:{action}", *self.ec2(reference))

    def role(self, name: str) -> str:
        role = self.current.roles.get(name)
        path = names.iam_path(self.description.name, self.description.region)
        return role.arn if role else self.arn("iam", f"role{path}{name}")

    def profile(self, name: str) -> str:
        profile = self.current.profiles.get(name)
        path = names.iam_path(self.description.name, self.description.region)
        return profile.arn if profile else self.arn("iam", f"instance-profile{path}{name}")

    def bucket(self, name: str) -> str:
        return self.arn("s3", name, account="")

    def pass_role(self, role: str) -> Iterator[Found]:
        """https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_passrole.html"""
        if role:
            yield "iam:PassRole", self.role(role), {"iam:PassedToService": "ec2.amazonaws.com"}


def of(plan: Plan, description: Description, current: Current, account: Account) -> list[Need]:
    """The needs of all steps, each once.

    Of resources of one type with one context the first stands for all: a thousand nodes are not a thousand questions.
    """
    place = Place(plan, description, current, account)
    found: dict[tuple[Any, ...], Need] = {}
    for step in plan.steps:
        for action, resource, context in step.needs(place):
            need = Need(action, resource, tuple(sorted(context.items())), step.key)
            kind = resource if action.startswith(("iam:", "s3:")) else resource.rpartition("/")[0]
            found.setdefault((action, kind, need.context), need)
    return list(found.values())
