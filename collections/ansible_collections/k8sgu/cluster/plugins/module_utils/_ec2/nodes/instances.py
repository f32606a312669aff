# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The instances that there are, and their end. `launch` makes them and `changes` changes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Iterable, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import plan, session, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import DescriptionError
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.grants import CHANGE, READ, Grant
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.reader import Reader

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.context import Context
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.needs import Found, Place

# An instance in another state is gone or going, and its name is free again.
ALIVE = frozenset({"pending", "running", "stopping", "stopped"})
# DescribeInstances takes up to 1,000 ids; fewer keep the answers small.
BATCH = 200
TYPES = {"instance": "instance", "i": "instance"}


@dataclass(frozen=True)
class Instance:
    id: str
    name: str
    state: str
    instance_type: str
    image_id: str
    key_name: str
    subnet_id: str
    vpc_id: str
    zone: str
    private_ip: str
    public_ip: str
    private_dns: str
    groups: frozenset[str]
    profile_arn: str
    source_dest_check: bool
    imds_tokens_required: bool
    imds_hop_limit: int
    root_device: str
    volumes: Mapping[str, str]  # device -> volume id
    launched: str
    tags: Mapping[str, str]

    @property
    def alive(self) -> bool:
        return self.state in ALIVE


def read(reader: Reader, current: Current) -> None:
    for reservation in reader.owned("describe_instances", "Reservations"):
        current.instances += [instance(item) for item in reservation["Instances"]]
    current.instances.sort(key=lambda found: (found.launched, found.id))


def instance(item: Mapping[str, Any]) -> Instance:
    """An instance as DescribeInstances and RunInstances answer it."""
    interfaces = sorted(
        item.get("NetworkInterfaces", ()), key=lambda entry: entry.get("Attachment", {}).get("DeviceIndex", 0)
    )
    interface: Mapping[str, Any] = interfaces[0] if interfaces else {}
    metadata = item.get("MetadataOptions") or {}
    item_tags = tags.as_mapping(item.get("Tags"))
    return Instance(
        id=item["InstanceId"],
        name=item_tags.get(tags.NAME, ""),
        state=item["State"]["Name"],
        instance_type=item["InstanceType"],
        image_id=item["ImageId"],
        key_name=item.get("KeyName", ""),
        subnet_id=item.get("SubnetId", ""),
        vpc_id=item.get("VpcId", ""),
        zone=item.get("Placement", {}).get("AvailabilityZone", ""),
        private_ip=item.get("PrivateIpAddress", ""),
        public_ip=item.get("PublicIpAddress", ""),
        private_dns=item.get("PrivateDnsName", ""),
        groups=frozenset(group["GroupId"] for group in interface.get("Groups") or item.get("SecurityGroups", ())),
        profile_arn=(item.get("IamInstanceProfile") or {}).get("Arn", ""),
        source_dest_check=bool(item.get("SourceDestCheck", True)),
        imds_tokens_required=metadata.get("HttpTokens") == "required",
        imds_hop_limit=int(metadata.get("HttpPutResponseHopLimit", 0)),
        root_device=item.get("RootDeviceName", ""),
        volumes={
            entry["DeviceName"]: entry["Ebs"]["VolumeId"]
            for entry in item.get("BlockDeviceMappings", ())
            if entry.get("Ebs")
        },
        launched=str(item.get("LaunchTime", "")),
        tags=item_tags,
    )


def described(context: Context, ids: list[str]) -> list[Any]:
    """What EC2 shows of these instances; those that it does not know yet are left out."""
    items = []
    for start in range(0, len(ids), BATCH):
        pages = context.ec2.get_paginator("describe_instances").paginate(
            Filters=[{"Name": "instance-id", "Values": ids[start : start + BATCH]}]
        )
        items += [item for page in pages for entry in page["Reservations"] for item in entry["Instances"]]
    return items


def check_twins(current: Current) -> None:
    """Of two instances of one name neither is taken for the node. Raises DescriptionError."""
    seen: dict[str, str] = {}
    for there in current.instances:
        if not there.alive:
            continue
        if not there.name:
            raise DescriptionError(
                f"name: instance {there.id} has the cluster's tag and no Name; give it back its Name, take the "
                "tag off it, or end it"
            )
        if there.name in seen:
            raise DescriptionError(
                f"name: instances {seen[there.name]} and {there.id} are both named {there.name} and have "
                "the cluster's tag; end one of them or take the tag off it"
            )
        seen[there.name] = there.id


def surplus(draft: plan.Draft, names_wanted: set[str], routes: list[str]) -> list[str]:
    """Ends the instances that are no nodes any more, after the routes to them and their place in the load balancer.

    Returns the keys of the removals.
    """
    keys, ids = [], []
    for there in draft.current.instances:
        if there.state == "terminated" or (there.alive and there.name in names_wanted):
            continue
        ids.append(there.id)
        if there.alive:
            keys.append(
                draft.add(
                    Terminate(f"instance/{there.name or there.id}", plan.SURPLUS, there.id),
                    [*routes, "detach targets", "delete load-balancer"],
                )
            )
    if keys or (ids and draft.removing):
        # An instance that is shutting down still holds its subnet and its groups.
        keys.append(draft.add(WaitForEnd("wait/ended", "nodes must have ended", ids), keys, quiet=True))
    return keys


@dataclass
class Terminate(plan.Asked):
    id: str
    action = plan.DELETE

    def apply(self, context: Context) -> None:
        terminate(context, self.id)

    def needs(self, place: Place) -> Iterable[Found]:
        return place.changes("TerminateInstances", self.id)

    def request(self, ids: plan.Ids) -> plan.Request:
        return termination(self.id)


@dataclass
class WaitForEnd(plan.Step):
    ids: list[str]
    action = plan.UPDATE

    def apply(self, context: Context) -> None:
        wait_terminated(context, self.ids)

    def needs(self, place: Place) -> Iterable[Found]:
        return ()


def termination(id: str) -> plan.Request:
    return "terminate_instances", {"InstanceIds": [id]}


def terminate(context: Context, id: str) -> None:
    context.ended.add(id)
    try:
        context.gone(lambda: plan.sent(context, termination(id)), ["InvalidInstanceID.NotFound"])
    except Exception as error:
        # What EC2 answers with an error was not done; without an answer nobody knows.
        if session.error_code(error):
            context.ended.discard(id)
        raise


def wait_terminated(context: Context, ids: list[str]) -> None:
    left = list(ids)

    def probe() -> bool | None:
        left[:] = [item["InstanceId"] for item in described(context, left) if item["State"]["Name"] != "terminated"]
        return True if not left else None

    try:
        context.until("instances to be terminated", probe)
    except session.AwsError as error:
        raise type(error)(f"{error}; still there: {', '.join(left[:10])}") from error


PERMISSIONS = (
    Grant(READ, ("ec2:DescribeInstances",)),
    Grant(CHANGE, ("ec2:TerminateInstances",)),
)
