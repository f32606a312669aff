# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Handlers of the steps about nodes: launch, change, replace, end."""

from __future__ import annotations

import time
from typing import Any, Callable

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import names, reading, session, state
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.apply_network import NOT_YET, tagged
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.execution import CONSISTENCY_S, Context, Handler

# DescribeInstances takes up to 1,000 ids; fewer keep the answers small.
BATCH = 200
# How often a client token may turn out to belong to an instance that has ended.
GENERATIONS = 8


def launch(context: Context, **node: Any) -> None:
    """Launches a node and switches its source/destination check off. Its running is waited for by a step for all."""
    found = _run(context, node)
    context.know(node["reference"], found.id)
    if found.source_dest_check:
        no_source_dest_check(context, found.id)


def _run(context: Context, node: dict[str, Any]) -> state.Instance:
    ended = list(node["ended"])
    for generation in range(GENERATIONS):
        token = names.launch_token(context.cluster, context.id("vpc"), node["name"], ended)
        try:
            answer = _accepted(context, {**_request(context, node), "ClientToken": token})
            found = reading.instance(answer["Instances"][0])
        except Exception as error:
            # The token has launched something before: something that is gone, or with another description.
            if session.error_code(error) == "IdempotentInstanceTerminated":
                # EC2 shows what has ended for an hour and knows its token for longer. Without its id the generation's
                # number stands for it, so that every run comes to the same token.
                gone = _by_token(context, token)
                ended.append(gone.id if gone else f"forgotten-{generation}")
                continue
            if session.error_code(error) != "IdempotentParameterMismatch":
                raise
            found = context.until(
                f"the instance that was launched as {node['name']} to be shown",
                lambda token=token: _by_token(context, token),  # type: ignore[misc]
                CONSISTENCY_S,
            )
        if found.alive:
            return found
        ended.append(found.id)
    raise session.AwsError(
        f"cannot launch {node['name']}: {', '.join(ended)} were launched for it and have ended; wait until EC2 "
        "has forgotten them"
    )


def _accepted(context: Context, request: dict[str, Any]) -> Any:
    """RunInstances, repeated while EC2 does not know the new instance profile, key pair, subnet or group yet."""
    deadline = time.monotonic() + min(CONSISTENCY_S, context.timeout_s)

    def call() -> Any:
        try:
            return context.ec2.run_instances(**request)
        except Exception as error:
            # One code for many errors; only this one passes with time.
            profile = session.error_code(error) == "InvalidParameterValue" and "instance profile" in str(error).lower()
            if profile and time.monotonic() < deadline:
                return None
            raise

    return context.until(
        "EC2 to know the instance profile",
        lambda: context.retry(
            "EC2 to know the key pair, the subnet and the group",
            call,
            [*NOT_YET, "InvalidKeyPair.NotFound"],
            CONSISTENCY_S,
        ),
    )


def _by_token(context: Context, token: str) -> state.Instance | None:
    answer = context.ec2.describe_instances(Filters=[{"Name": "client-token", "Values": [token]}])
    found = [reading.instance(item) for entry in answer["Reservations"] for item in entry["Instances"]]
    return found[0] if found else None


def _request(context: Context, node: dict[str, Any]) -> dict[str, Any]:
    image: state.MachineImage = node["image"]
    ebs: dict[str, Any] = {"VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True}
    if node["kms_key_id"]:
        ebs["KmsKeyId"] = node["kms_key_id"]
    mappings = [{"DeviceName": image.root_device, "Ebs": {**ebs, "VolumeSize": node["root_volume_size"]}}]
    if node["etcd_volume_size"]:
        mappings.append({"DeviceName": names.ETCD_DEVICE, "Ebs": {**ebs, "VolumeSize": node["etcd_volume_size"]}})
    interface: dict[str, Any] = {
        "DeviceIndex": 0,
        "SubnetId": context.id(node["subnet"]),
        "Groups": [context.id(node["group"])],
        "DeleteOnTermination": True,
    }
    if node["public_ip"] is not None:
        interface["AssociatePublicIpAddress"] = node["public_ip"]
    request: dict[str, Any] = {
        "MinCount": 1,
        "MaxCount": 1,
        "ImageId": image.id,
        "InstanceType": node["instance_type"],
        "KeyName": node["key_name"],
        "NetworkInterfaces": [interface],
        "BlockDeviceMappings": mappings,
        "MetadataOptions": {"HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        "TagSpecifications": [
            *tagged("instance", node["tags"]),
            *tagged("volume", node["volume_tags"]),
            *tagged("network-interface", node["volume_tags"]),
        ],
    }
    if node["profile"]:
        request["IamInstanceProfile"] = {"Name": node["profile"]}
    return request


def wait_running(context: Context, references: list[str]) -> None:
    """Waits for all, asking for many at once."""
    pending = {context.id(reference): reference for reference in references}

    def probe() -> bool | None:
        for item in _described(context, list(pending)):
            found = reading.instance(item)
            if found.state in ("shutting-down", "terminated"):
                reason = item.get("StateReason", {}).get("Message") or "no reason given"
                raise session.AwsError(f"{found.name} ({found.id}) ended instead of running: {reason}")
            if found.state == "running":
                context.instances[found.name] = found
                del pending[found.id]
        return True if not pending else None

    try:
        context.until("nodes to be running", probe)
    except session.AwsError as error:
        left = ", ".join(f"{reference.partition('/')[2]} ({id})" for id, reference in sorted(pending.items())[:10])
        raise type(error)(f"{error}; not running: {left}") from error


def _described(context: Context, ids: list[str]) -> list[Any]:
    """What EC2 shows of these instances; those that it does not know yet are left out."""
    items = []
    for start in range(0, len(ids), BATCH):
        pages = context.ec2.get_paginator("describe_instances").paginate(
            Filters=[{"Name": "instance-id", "Values": ids[start : start + BATCH]}]
        )
        items += [item for page in pages for entry in page["Reservations"] for item in entry["Instances"]]
    return items


def replace(context: Context, id: str, **node: Any) -> None:
    terminate(context, id)
    wait_terminated(context, [id])
    launch(context, **node)


def terminate(context: Context, id: str) -> None:
    context.ended.add(id)
    try:
        context.gone(lambda: context.ec2.terminate_instances(InstanceIds=[id]), ["InvalidInstanceID.NotFound"])
    except Exception as error:
        if session.error_code(error):
            context.ended.discard(id)
        raise


def wait_terminated(context: Context, ids: list[str]) -> None:
    left = list(ids)

    def probe() -> bool | None:
        left[:] = [item["InstanceId"] for item in _described(context, left) if item["State"]["Name"] != "terminated"]
        return True if not left else None

    try:
        context.until("instances to be terminated", probe)
    except session.AwsError as error:
        raise type(error)(f"{error}; still there: {', '.join(left[:10])}") from error


def start(context: Context, id: str) -> None:
    # One that is stopping can be started when it has stopped.
    context.retry(
        f"{id} to stop before it starts",
        lambda: context.ec2.start_instances(InstanceIds=[id]),
        ["IncorrectInstanceState"],
    )


def _attribute(context: Context, id: str, call: Callable[[], Any]) -> None:
    context.retry(
        f"{id} to be known",
        call,
        ["InvalidInstanceID.NotFound", "IncorrectInstanceState", "IncorrectState"],
        CONSISTENCY_S,
    )


def no_source_dest_check(context: Context, id: str) -> None:
    _attribute(
        context, id, lambda: context.ec2.modify_instance_attribute(InstanceId=id, SourceDestCheck={"Value": False})
    )


def require_imdsv2(context: Context, id: str) -> None:
    _attribute(
        context,
        id,
        lambda: context.ec2.modify_instance_metadata_options(
            InstanceId=id, HttpEndpoint="enabled", HttpTokens="required", HttpPutResponseHopLimit=1
        ),
    )


def set_group(context: Context, id: str, group: str) -> None:
    _attribute(context, id, lambda: context.ec2.modify_instance_attribute(InstanceId=id, Groups=[context.id(group)]))


def set_profile(context: Context, id: str, profile: str) -> None:
    there = [
        item["AssociationId"]
        for page in context.ec2.get_paginator("describe_iam_instance_profile_associations").paginate(
            Filters=[{"Name": "instance-id", "Values": [id]}]
        )
        for item in page["IamInstanceProfileAssociations"]
        if item["State"] in ("associating", "associated")
    ]

    def call() -> None:
        if not profile:
            for association in there:
                context.ec2.disassociate_iam_instance_profile(AssociationId=association)
        elif there:
            context.ec2.replace_iam_instance_profile_association(
                AssociationId=there[0], IamInstanceProfile={"Name": profile}
            )
        else:
            context.ec2.associate_iam_instance_profile(InstanceId=id, IamInstanceProfile={"Name": profile})

    context.retry("EC2 to know the instance profile", call, ["InvalidParameterValue"], CONSISTENCY_S)


def modify_volume(context: Context, id: str, size: int) -> None:
    context.ec2.modify_volume(VolumeId=id, Size=size, VolumeType="gp3")


def delete_volume(context: Context, id: str) -> None:
    def call() -> None:
        context.gone(lambda: context.ec2.delete_volume(VolumeId=id), ["InvalidVolume.NotFound"])

    context.retry(f"{id} to be detached", call, ["VolumeInUse"])


HANDLERS: dict[str, Handler] = {
    handler.__name__: handler
    for handler in (
        launch,
        wait_running,
        replace,
        terminate,
        wait_terminated,
        start,
        no_source_dest_check,
        require_imdsv2,
        set_group,
        set_profile,
        modify_volume,
        delete_volume,
    )
}
