# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The nodes' EBS volumes: made with the instance, changed in place, and removed where one outlived its instance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Iterable, Iterator, Mapping

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import kms, names, plan, session, tags
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import Description, Pool
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.grants import CHANGE, READ, Case, Grant, Statement
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.reader import Reader

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.cluster import Current
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.context import Context
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.needs import Found, Place
    from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.nodes.instances import Instance

KIND = "gp3"
ETCD_DEVICE = names.ETCD_DEVICE
# From here on a larger size counts:
# https://docs.aws.amazon.com/ebs/latest/userguide/monitoring-volume-modifications.html
LARGER = ("optimizing", "completed")
TYPES = {"vol": "volume"}


@dataclass(frozen=True)
class Volume:
    id: str
    size: int
    encrypted: bool
    kind: str
    state: str
    tags: Mapping[str, str]


def read(reader: Reader, current: Current) -> None:
    for item in reader.owned("describe_volumes", "Volumes"):
        current.volumes[item["VolumeId"]] = Volume(
            item["VolumeId"],
            int(item["Size"]),
            bool(item.get("Encrypted")),
            item.get("VolumeType", ""),
            item["State"],
            tags.as_mapping(item.get("Tags")),
        )


def billed(description: Description, zones: int) -> Iterator[tuple[str, int]]:
    sizes = [pool.count * (pool.root_volume_size + pool.etcd_volume_size) for pool in description.pools]
    yield f"GiB of {KIND}", sum(sizes)


def mappings(root_device: str, root_size: int, etcd_size: int, kms_key_id: str) -> list[dict[str, Any]]:
    """The BlockDeviceMappings of a launch."""
    ebs: dict[str, Any] = {"VolumeType": KIND, "Encrypted": True, "DeleteOnTermination": True}
    if kms_key_id:
        ebs["KmsKeyId"] = kms_key_id
    sizes = [(root_device, root_size), (ETCD_DEVICE, etcd_size)]
    return [{"DeviceName": device, "Ebs": {**ebs, "VolumeSize": size}} for device, size in sizes if size]


def differences(current: Current, pool: Pool, instance: Instance) -> list[str]:
    """What is different about an instance's volumes and cannot be changed in place."""
    found = []
    for what, device, size in (
        ("root volume", instance.root_device, pool.root_volume_size),
        ("etcd volume", ETCD_DEVICE, pool.etcd_volume_size),
    ):
        volume = current.volumes.get(instance.volumes.get(device, ""))
        if not size and device in instance.volumes:
            found.append(f"{what} there -> none")
        elif size and device == ETCD_DEVICE and device not in instance.volumes:
            found.append(f"{what} none -> {size} GiB")
        elif size and volume and volume.size > size:
            found.append(f"{what} {volume.size} GiB -> {size} GiB")
        if volume and not volume.encrypted:
            found.append(f"{what} not encrypted -> encrypted")
    return found


def living_problems(description: Description, current: Current) -> list[str]:
    """Why the volumes for etcd of a living cluster cannot become what the description says."""
    alive, found = current.nodes(), []
    for pool in description.pools:
        wanted = pool.etcd_volume_size
        for number in range(pool.count):
            instance = alive.get(pool.node_name(description.name, number))
            if instance is None or pool.role != tags.CONTROL_PLANE:
                continue
            volume = current.volumes.get(instance.volumes.get(ETCD_DEVICE, ""))
            if wanted and ETCD_DEVICE not in instance.volumes:
                found.append(f"{instance.name} has etcd on its root disk, and its data cannot move; put back 0")
            elif not wanted and ETCD_DEVICE in instance.volumes:
                there = instance.volumes[ETCD_DEVICE]
                size = f" {volume.size}" if volume else " its size"
                found.append(f"{instance.name} has etcd on {there}, and its data cannot move; put back{size}")
            elif volume and volume.size > wanted > 0:
                has = f"{instance.name} has etcd on {volume.id} of {volume.size} GiB"
                found.append(f"{has}, and a volume cannot shrink; put back {volume.size}")
    return found


def change(draft: plan.Draft, pool: Pool, instance: Instance) -> None:
    """What is changed in place."""
    for what, device, size, grows in (
        ("root", instance.root_device, pool.root_volume_size, "the file system grows at the next start"),
        ("etcd", ETCD_DEVICE, pool.etcd_volume_size, "the role etcd grows the file system"),
    ):
        volume = draft.current.volumes.get(instance.volumes.get(device, ""))
        if size and volume and (volume.size < size or volume.kind != KIND):
            reason = f"{volume.size} GiB {volume.kind} -> {size} GiB {KIND}; {grows}"
            draft.add(ModifyVolume(f"volume/{instance.name}/{what}", reason, volume.id, size))


def surplus(draft: plan.Draft, users: list[str]) -> list[str]:
    """Volumes outlive an instance only when somebody detached them or switched their deletion off.

    Returns the keys of the removals.
    """
    attached = {
        volume for instance in draft.current.instances if instance.alive for volume in instance.volumes.values()
    }
    return [
        draft.add(DeleteVolume(f"volume/{volume.id}", "no node has it", volume.id), users)
        for volume in draft.current.volumes.values()
        if volume.id not in attached and volume.state in ("available", "error")
    ]


@dataclass
class ModifyVolume(plan.Asked):
    id: str
    size: int
    action = plan.UPDATE

    def apply(self, context: Context) -> None:
        """Waits until the new size counts, so that what comes next finds the larger disk."""
        try:
            self.send(context)
        except Exception as error:
            # A run that was cut off may have asked for it.
            if session.error_code(error) != "IncorrectModificationState" or self._last(context)[1] < self.size:
                raise
        context.until(f"{self.id} to have {self.size} GiB", lambda: self._last(context)[0] in LARGER or None)

    def _last(self, context: Context) -> tuple[str, int]:
        """State and size of the volume's last modification; EC2 may not know yet of one that was just asked for."""
        answer = context.ec2.describe_volumes_modifications(Filters=[{"Name": "volume-id", "Values": [self.id]}])
        found = sorted(answer["VolumesModifications"], key=lambda each: str(each.get("StartTime", "")))
        found = [each for each in found if each.get("TargetSize") == self.size] or found[-1:]
        return (found[-1]["ModificationState"], int(found[-1].get("TargetSize", 0))) if found else ("", 0)

    def needs(self, place: Place) -> Iterable[Found]:
        yield from place.changes("ModifyVolume", self.id)
        yield "ec2:DescribeVolumesModifications", "*", place.region

    def request(self, ids: plan.Ids) -> plan.Request:
        return "modify_volume", {"VolumeId": self.id, "Size": self.size, "VolumeType": KIND}


@dataclass
class DeleteVolume(plan.Asked):
    id: str
    action = plan.DELETE

    def apply(self, context: Context) -> None:
        context.remove(
            f"{self.id} to be detached",
            lambda: self.send(context),
            gone=["InvalidVolume.NotFound"],
            busy=["VolumeInUse"],
        )

    def needs(self, place: Place) -> Iterable[Found]:
        return place.changes("DeleteVolume", self.id)

    def request(self, ids: plan.Ids) -> plan.Request:
        return "delete_volume", {"VolumeId": self.id}


def _own_key(case: Case) -> bool:
    return bool(case.description.kms_key_id)


def _key(case: Case) -> tuple[str, dict[str, Any]]:
    return kms.named(case.description.kms_key_id, case.description.region)


def _grants_of_key(case: Case) -> tuple[str, dict[str, Any]]:
    arn, alias = _key(case)
    return arn, {**alias, "Bool": {"kms:GrantIsForAWSResource": "true"}}


# What EC2 does in the caller's name with a key of the account's own:
# https://docs.aws.amazon.com/ebs/latest/userguide/ebs-encryption-requirements.html
KMS = Statement("Kms", "`kms_key_id`", "volumes encrypted with that key", _key)
KMS_GRANTS = Statement(
    "KmsGrants", "`kms_key_id`", "the grants by which EC2 uses that key for a volume", _grants_of_key
)
PERMISSIONS = (
    Grant(READ, ("ec2:DescribeVolumes", "ec2:DescribeVolumesModifications")),
    Grant(CHANGE, ("ec2:ModifyVolume", "ec2:DeleteVolume")),
    Grant(
        KMS,
        ("kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKeyWithoutPlaintext", "kms:ReEncrypt*"),
        _own_key,
    ),
    Grant(KMS_GRANTS, ("kms:CreateGrant",), _own_key),
)
