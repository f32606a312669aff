# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Instances that are not as described: what is changed in place, and what only another launch changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Iterable

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import names, plan, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.access import key_pair, profiles
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Pool
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.grants import CHANGE, Grant
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes import volumes

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.context import Context
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.needs import Found, Place
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.instances import Instance
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.launch import Node


def replacements(draft: plan.Draft, nodes: list[Node]) -> dict[str, list[str]]:
    """The nodes that have to be launched again, each with its grounds."""
    alive = draft.current.nodes()
    pools = {pool.name: pool for pool in draft.description.pools}
    found = {
        node.name: _grounds(draft, node, pools[node.pool], alive[node.name])
        for node in nodes
        if node.name in alive and node.name not in draft.held
    }
    _warn_of_images(draft, [(pools[node.pool], alive[node.name]) for node in nodes if node.name in found])
    return {name: grounds for name, grounds in found.items() if grounds}


def _fits(draft: plan.Draft, pool: Pool, instance: Instance) -> bool:
    """Whether the pattern of a pool's image fits that of an instance."""
    return instance.image_id in {image.id for image in draft.current.images.get(pool.image, ())}


def _warn_of_images(draft: plan.Draft, nodes: list[tuple[Pool, Instance]]) -> None:
    """Of images that are gone nobody can tell whether a pattern fits them, so that their nodes are left alone."""
    gone: dict[tuple[str, str], list[str]] = {}
    for pool, instance in nodes:
        known = pool.image.id or instance.image_id in draft.current.images_there or _fits(draft, pool, instance)
        if not known:
            pattern = f"{pool.image.name} of {pool.image.owner}"
            gone.setdefault((instance.image_id, pattern), []).append(instance.name)
    for (id, pattern), names_of_nodes in gone.items():
        draft.plan.warnings.append(
            f"image: {id} of {', '.join(sorted(names_of_nodes))} is not to be had any more (deregistered, or not "
            f"shared with this account), and nobody can tell whether it is {pattern}; the nodes stay as they are"
        )


def _grounds(draft: plan.Draft, node: Node, pool: Pool, instance: Instance) -> list[str]:
    """Why an instance cannot become what the description says without being launched again."""
    grounds = []

    def differs(what: str, there: object, wanted: object) -> None:
        grounds.append(f"{what} {there} -> {wanted}")

    if instance.instance_type != pool.instance_type:
        differs("instance_type", instance.instance_type, pool.instance_type)
    if pool.image.id:
        if instance.image_id != pool.image.id:
            differs("image", instance.image_id, pool.image.id)
    elif instance.image_id in draft.current.images_there and not _fits(draft, pool, instance):
        differs("image", instance.image_id, f"{pool.image.name} of {pool.image.owner}")
    if draft.known(node.subnet) != instance.subnet_id:
        differs("subnet", f"{instance.subnet_id} in {instance.zone}", node.subnet.partition("/")[2])
    if instance.key_name != key_pair.used(draft):
        differs("key pair", instance.key_name or "none", key_pair.used(draft))
    pod_cidr = instance.tags.get(tags.POD_CIDR, "")
    if pod_cidr and pod_cidr != node.pod_cidr:
        differs("pod range", pod_cidr, node.pod_cidr)
    return grounds + volumes.differences(draft.current, pool, instance)


def in_place(draft: plan.Draft, node: Node, pool: Pool, instance: Instance) -> list[str]:
    """What is changed on an instance that stays. Returns the keys of the steps after which it has to be waited for."""
    resource = f"instance/{node.name}"
    started: list[str] = []
    if instance.state in ("stopped", "stopping"):
        started.append(draft.add(Start(resource, f"it is {instance.state}", instance.id)))
    if instance.source_dest_check:
        reason = "its source/destination check would drop the traffic of pods"
        draft.add(NoSourceDestCheck(f"source-dest-check/{node.name}", reason, instance.id))
    if not instance.imds_tokens_required or instance.imds_hop_limit != 1:
        reason = "its metadata service must ask for tokens and not answer pods (IMDSv2, hop limit 1)"
        draft.add(RequireImdsV2(f"metadata-options/{node.name}", reason, instance.id))
    group = f"security-group/{node.role}"
    if instance.groups != {draft.known(group)}:
        reason = f"its groups are {', '.join(sorted(instance.groups)) or 'none'} and not the role's alone"
        draft.add(SetGroup(f"groups/{node.name}", reason, instance.id, group), [f"create {group}"])
    _profile(draft, node, instance)
    volumes.change(draft, pool, instance)
    marks = draft.tags(node.name, role=node.role, pool=node.pool, pod_cidr=node.pod_cidr)
    draft.keep_tags(resource, instance.id, instance.tags, marks)
    return started


def _profile(draft: plan.Draft, node: Node, instance: Instance) -> None:
    there = instance.profile_arn.rpartition("/")[2]
    wanted = profiles.of_node(draft.description, node.role)
    ours = {names.role(draft.cluster, draft.description.region, role) for role in profiles.NODE_ROLES}
    if there == wanted or (not wanted and there not in ours):
        return
    reason = f"its instance profile is {there or 'none'} and not {wanted or 'none'}"
    draft.add(SetProfile(f"profile/{node.name}", reason, instance.id, wanted), profiles.before_launch(node.role))


@dataclass
class _Change(plan.Step):
    id: str
    action = plan.UPDATE


@dataclass
class Start(plan.Asked):
    id: str
    action = plan.UPDATE

    def apply(self, context: Context) -> None:
        # One that is stopping can be started when it has stopped.
        context.retry(
            f"{self.id} to stop before it starts",
            lambda: self.send(context),
            ["IncorrectInstanceState"],
        )

    def needs(self, place: Place) -> Iterable[Found]:
        return place.changes("StartInstances", self.id)

    def request(self, ids: plan.Ids) -> plan.Request:
        return "start_instances", {"InstanceIds": [self.id]}


def _attribute(context: Context, id: str, call: Callable[[], Any]) -> None:
    context.when_known(id, call, ["InvalidInstanceID.NotFound", "IncorrectInstanceState", "IncorrectState"])


def switch_off_source_dest_check(context: Context, id: str) -> None:
    _attribute(
        context, id, lambda: context.ec2.modify_instance_attribute(InstanceId=id, SourceDestCheck={"Value": False})
    )


@dataclass
class NoSourceDestCheck(_Change):
    def apply(self, context: Context) -> None:
        switch_off_source_dest_check(context, self.id)

    def needs(self, place: Place) -> Iterable[Found]:
        return place.changes("ModifyInstanceAttribute", self.id)


@dataclass
class RequireImdsV2(_Change):
    def apply(self, context: Context) -> None:
        _attribute(
            context,
            self.id,
            lambda: context.ec2.modify_instance_metadata_options(
                InstanceId=self.id, HttpEndpoint="enabled", HttpTokens="required", HttpPutResponseHopLimit=1
            ),
        )

    def needs(self, place: Place) -> Iterable[Found]:
        return place.changes("ModifyInstanceMetadataOptions", self.id)


@dataclass
class SetGroup(_Change):
    group: str  # a reference

    def apply(self, context: Context) -> None:
        _attribute(
            context,
            self.id,
            lambda: context.ec2.modify_instance_attribute(InstanceId=self.id, Groups=[context.id(self.group)]),
        )

    def needs(self, place: Place) -> Iterable[Found]:
        return place.changes("ModifyInstanceAttribute", self.id)


@dataclass
class SetProfile(_Change):
    profile: str  # empty for none

    def apply(self, context: Context) -> None:
        there = [
            item["AssociationId"]
            for page in context.ec2.get_paginator("describe_iam_instance_profile_associations").paginate(
                Filters=[{"Name": "instance-id", "Values": [self.id]}]
            )
            for item in page["IamInstanceProfileAssociations"]
            if item["State"] in ("associating", "associated")
        ]
        profile = {"Name": self.profile}

        def call() -> None:
            if not self.profile:
                for association in there:
                    context.ec2.disassociate_iam_instance_profile(AssociationId=association)
            elif there:
                context.ec2.replace_iam_instance_profile_association(AssociationId=there[0], IamInstanceProfile=profile)
            else:
                context.ec2.associate_iam_instance_profile(InstanceId=self.id, IamInstanceProfile=profile)

        context.when_known("the instance profile", call, ["InvalidInstanceID.NotFound"], profiles.unknown_to_ec2)

    def needs(self, place: Place) -> Iterable[Found]:
        instance = next((item for item in place.current.instances if item.id == self.id), None)
        yield "ec2:DescribeIamInstanceProfileAssociations", "*", place.region
        if not self.profile:
            action = "DisassociateIamInstanceProfile"
        elif instance and instance.profile_arn:
            action = "ReplaceIamInstanceProfileAssociation"
        else:
            action = "AssociateIamInstanceProfile"
        yield from place.changes(action, self.id)
        yield from place.pass_role(self.profile)


PERMISSIONS = (
    Grant(CHANGE, ("ec2:ModifyInstanceAttribute",)),
    Grant(CHANGE, ("ec2:StartInstances", "ec2:ModifyInstanceMetadataOptions")),
)
