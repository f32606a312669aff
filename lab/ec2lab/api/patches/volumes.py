"""EBS volumes: EC2's checks, and states that follow the files and devices which the controller makes.

https://docs.aws.amazon.com/ebs/latest/userguide/ebs-describing-volumes.html (states of a volume)
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_AttachVolume.html
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DetachVolume.html
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyVolume.html
https://docs.aws.amazon.com/ebs/latest/userguide/monitoring-volume-modifications.html
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html

moto answers each of these calls at once with the final state, attaches a volume twice, under a device name that is
taken and in another zone, makes volumes smaller, and gives a snapshot the present size of its volume.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.core.utils import utcnow
from moto.ec2.models.elastic_block_store import EBSBackend, Snapshot, Volume, VolumeModification
from moto.ec2.models.instances import Instance
from moto.ec2.responses.elastic_block_store import ElasticBlockStore

from ec2lab.api.errors import error

LARGEST_GIB = 16384
ROOT_GIB = 8
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/device_naming.html
DEVICE = re.compile(r"(/dev/)?(sd|xvd)[a-z]{1,2}([1-9]|1[0-5])?")
COOLDOWN = timedelta(hours=6)
# The states of an instance to which a volume can be attached.
TAKES_VOLUMES = ("running", "stopped")


# What the controller reads and changes


def state(volume: Any) -> str:
    """`creating`, `available`, `in-use` or `deleting`."""
    if volume.attachment is not None:
        return "in-use"
    return str(volume.__dict__.get("lab_state", "available"))


def is_root(volume: Any) -> bool:
    """Whether it is the root volume of its instance: the machine's own disk, which has no file of its own."""
    return volume.attachment is not None and volume.attachment.device == volume.attachment.instance.root_device_name


def attached(instance: Any) -> list[Any]:
    """The volumes of an instance but the root volume, in the order of their ids."""
    volumes = instance.ec2_backend.volumes
    found = [volumes[block.volume_id] for block in instance.block_device_mapping.values() if block.volume_id in volumes]
    return sorted((volume for volume in found if not is_root(volume)), key=lambda volume: str(volume.id))


def modification(volume: Any) -> Any:
    """The modification that is not completed yet, or None."""
    last = volume.modifications[-1] if volume.modifications else None
    return last if last is not None and last.modification_state != "completed" else None


def set_attached(volume: Any) -> None:
    """Called when the machine has the disk."""
    volume.attachment.status = "attached"


def finish_detach(volume: Any) -> None:
    """Called when the machine has the disk no more."""
    attachment = volume.attachment
    attachment.instance.block_device_mapping.pop(attachment.device, None)
    attachment.status, volume.attachment = "detached", None


def step_modification(volume: Any) -> None:
    """The next state; with `optimizing` the new size counts."""
    last = modification(volume)
    if last is None:
        return
    if last.modification_state == "modifying":
        last.lab_state = "optimizing"
        volume.size = last.target_size or volume.size
    else:
        last.lab_state, last.end_time = "completed", utcnow()


def all_snapshots(backend: Any) -> Iterator[Any]:
    """The snapshots that are of a volume's making; the image's own have no file."""
    yield from (each for each in backend.snapshots.values() if "frozen_size" in each.__dict__)


# The checks


def _whole(value: Any, name: str) -> int | None:
    if value is None or value == "":
        return None
    try:
        return int(value)
    except ValueError:
        raise error("InvalidParameterValue", f"Value ({value}) for parameter {name} is invalid.") from None


def check_size(gib: int | None, snapshot: Any) -> None:
    """A size in GiB as CreateVolume and RunInstances take it."""
    if gib is None:
        return
    if not 1 <= gib <= LARGEST_GIB:
        raise error(
            "InvalidParameterValue",
            f"Value ({gib}) for parameter size is invalid. A volume has 1 to {LARGEST_GIB} GiB.",
        )
    if snapshot is not None and gib < snapshot.volume_size:
        raise error(
            "InvalidParameterValue",
            f"Volume of size {gib}GB is smaller than snapshot '{snapshot.id}', expect size >= {snapshot.volume_size}GB",
        )


def check_snapshot(backend: Any, snapshot_id: str | None) -> Any:
    if not snapshot_id:
        return None
    snapshot = backend.snapshots.get(snapshot_id)
    if snapshot is None:
        raise error("InvalidSnapshot.NotFound", f"The snapshot '{snapshot_id}' does not exist.")
    if snapshot.status != "completed":
        raise error("IncorrectState", f"Snapshot is in invalid state - {snapshot.status}")
    return snapshot


def check_device(name: str) -> None:
    if not DEVICE.fullmatch(name):
        raise error(
            "InvalidParameterValue",
            f"Value ({name}) for parameter device is invalid. {name} is not a valid EBS device name.",
        )


def check_mappings(backend: Any, mappings: list[dict[str, Any]], root: str) -> None:
    """A launch's BlockDeviceMappings."""
    seen: set[str] = set()
    for mapping in mappings:
        name = str(mapping.get("DeviceName") or "")
        if name != root:
            check_device(name)
        if name in seen:
            raise error(
                "InvalidBlockDeviceMapping", f"The device '{name}' is used in more than one block-device mapping"
            )
        seen.add(name)
        ebs = mapping.get("Ebs") or {}
        snapshot = check_snapshot(backend, ebs.get("SnapshotId"))
        size = _whole(ebs.get("VolumeSize"), "volumeSize")
        if size is None and snapshot is None and name != root:
            raise error("MissingParameter", "The request must contain the parameter size or snapshotId")
        try:
            check_size(size, snapshot)
        except Exception as problem:
            raise error("InvalidBlockDeviceMapping", str(getattr(problem, "message", problem))) from None


def check_attach(volume: Any, instance: Any, device: str) -> None:
    check_device(device)
    if volume.attachment is not None:
        raise error("VolumeInUse", f"{volume.id} is already attached to an instance")
    if state(volume) != "available":
        raise error("IncorrectState", f"Volume '{volume.id}' is in the '{state(volume)}' state.")
    if instance.state not in TAKES_VOLUMES:
        raise error("IncorrectState", f"Instance '{instance.id}' is not 'running'.")
    if volume.availability_zone != instance._placement.zone:
        raise error(
            "InvalidVolume.ZoneMismatch",
            f"The volume '{volume.id}' is not in the same availability zone as instance '{instance.id}'",
        )
    if device in instance.block_device_mapping:
        raise error(
            "InvalidParameterValue",
            f"Invalid value '{device}' for unixDevice. Attachment point {device} is already in use",
        )


def check_detach(volume: Any, instance_id: str | None, device: str | None) -> None:
    attachment = volume.attachment
    if attachment is None:
        raise error("IncorrectState", f"Volume '{volume.id}' is in the '{state(volume)}' state.")
    if instance_id and instance_id != attachment.instance.id:
        raise error(
            "InvalidAttachment.NotFound", f"The volume '{volume.id}' is not attached to instance '{instance_id}'."
        )
    if device and device != attachment.device:
        raise error(
            "InvalidAttachment.NotFound",
            f"The volume '{volume.id}' is not attached to instance '{attachment.instance.id}' as device '{device}'.",
        )
    if is_root(volume) and attachment.instance.state != "stopped":
        raise error(
            "OperationNotPermitted",
            f"Unable to detach root volume '{volume.id}' from instance '{attachment.instance.id}'",
        )


def check_modify(volume: Any, size: int | None) -> None:
    if state(volume) not in ("available", "in-use"):
        raise error("IncorrectState", f"Volume '{volume.id}' is in the '{state(volume)}' state.")
    if size is not None and size < volume.size:
        raise error("InvalidParameterValue", "New size cannot be smaller than existing size")
    check_size(size, None)
    under_way = modification(volume)
    if under_way is not None:
        raise error(
            "IncorrectModificationState",
            f"Volume {volume.id} cannot be modified in modification state {under_way.modification_state.upper()}",
        )
    if volume.modifications and utcnow() - volume.modifications[-1].start_time < COOLDOWN:
        raise error(
            "VolumeModificationRateExceeded",
            "You've reached the maximum modification rate per volume limit. Wait at least 6 hours between "
            "modifications per EBS volume.",
        )


# moto's classes


def install() -> None:
    _install_objects()
    _install_launch()
    _install_responses()


def _install_objects() -> None:
    def frozen_size(self: Any) -> int:
        return int(self.__dict__.get("frozen_size", self.volume.size))

    def progress(self: Any) -> str:
        return "100%" if self.status == "completed" else "0%"

    def modification_state(self: Any) -> str:
        return str(self.__dict__.get("lab_state", "completed"))

    def percent(self: Any) -> int:
        return {"modifying": 0, "optimizing": 50}.get(self.modification_state, 100)

    def block_device_mappings(self: Any) -> list[dict[str, Any]]:
        found = []
        for device, block in self.get_block_device_mapping:
            shown = copy.copy(block)
            volume = self.ec2_backend.volumes.get(block.volume_id)
            shown.status = volume.attachment.status if volume is not None and volume.attachment else "attached"
            found.append({"DeviceName": device, "Ebs": shown})
        return found

    Volume.status = property(state)
    Snapshot.volume_size = property(frozen_size)
    Snapshot.progress = property(progress)
    VolumeModification.modification_state = property(modification_state)
    VolumeModification.progress = property(percent)
    Instance.block_device_mappings = property(block_device_mappings)


def _install_launch() -> None:
    add = Instance.add_block_device

    def add_block_device(self: Any, size: Any, device_path: str, snapshot_id: Any, *args: Any, **kwargs: Any) -> None:
        """With a mapping's attachment under way until the machine has booted with it."""
        snapshot = self.ec2_backend.snapshots.get(snapshot_id) if snapshot_id else None
        if size is None and snapshot is not None:
            size = snapshot.volume_size
        add(self, size, device_path, snapshot_id, *args, **kwargs)
        volume = self.ec2_backend.volumes[self.block_device_mapping[device_path].volume_id]
        volume.size = int(volume.size)
        if not is_root(volume):
            volume.attachment.status = "attaching"

    def setup_defaults(self: Any) -> None:
        volume = self.ec2_backend.create_volume(size=ROOT_GIB, zone_name=self._placement.zone)
        self.ec2_backend.attach_volume(volume.id, self.id, self.root_device_name, True)

    Instance.add_block_device = add_block_device
    Instance.setup_defaults = setup_defaults


def complete_mappings(backend: Any, image_id: str | None, kwargs: dict[str, Any]) -> None:
    """Checks a launch's mappings, and adds the image's root volume, which EC2 makes whatever else is mapped."""
    template = backend._get_template_from_args(kwargs["launch_template"]).data if kwargs.get("launch_template") else {}
    mappings = kwargs.get("block_device_mappings") or template.get("BlockDeviceMappings")
    if not mappings:
        return
    root = backend.describe_images(ami_ids=[image_id or template.get("ImageId")])[0].root_device_name
    check_mappings(backend, mappings, root)
    if root not in {mapping.get("DeviceName") for mapping in mappings}:
        own = {"DeviceName": root, "Ebs": {"VolumeSize": ROOT_GIB, "DeleteOnTermination": True}}
        kwargs["block_device_mappings"] = [own, *mappings]


def _required(response: Any, name: str) -> str:
    value = response._get_param(name)
    if not value:
        raise error("MissingParameter", f"The request must contain the parameter {name}")
    return str(value)


def _attachment(attachment: Any, status: str) -> ActionResult:
    return ActionResult(
        {
            "VolumeId": attachment.volume.id,
            "InstanceId": attachment.instance.id,
            "Device": attachment.device,
            "State": status,
            "AttachTime": attachment.attach_time,
        }
    )


def _install_responses() -> None:
    create, snapshot_one, modify = (
        ElasticBlockStore.create_volume,
        EBSBackend.create_snapshot,
        ElasticBlockStore.modify_volume,
    )

    def create_volume(self: Any) -> Any:
        backend = self.ec2_backend
        zone = _required(self, "AvailabilityZone")
        if zone not in {each.name for each in backend.describe_availability_zones()}:
            raise error("InvalidZone.NotFound", f"The zone '{zone}' does not exist.")
        snapshot = check_snapshot(backend, self._get_param("SnapshotId"))
        size = _whole(self._get_param("Size"), "size")
        check_size(size, snapshot)
        before = set(backend.volumes)
        result = create(self)
        for volume_id in backend.volumes.keys() - before:
            volume = backend.volumes[volume_id]
            volume.lab_state = "creating"
            volume.size = size or snapshot.volume_size
        return result

    def attach_volume(self: Any) -> Any:
        backend = self.ec2_backend
        volume = backend.get_volume(_required(self, "VolumeId"))
        instance = backend.get_instance(_required(self, "InstanceId"))
        device = _required(self, "Device")
        check_attach(volume, instance, device)
        attachment = backend.attach_volume(volume.id, instance.id, device)
        attachment.status = "attaching"
        return _attachment(attachment, "attaching")

    def detach_volume(self: Any) -> Any:
        volume = self.ec2_backend.get_volume(_required(self, "VolumeId"))
        check_detach(volume, self._get_param("InstanceId"), self._get_param("Device"))
        attachment = volume.attachment
        attachment.force = self._get_bool_param("Force", False)
        if is_root(volume):
            finish_detach(volume)
        else:
            attachment.status = "detaching"
        return _attachment(attachment, "detaching")

    def delete_volume(self: Any) -> Any:
        volume = self.ec2_backend.get_volume(_required(self, "VolumeId"))
        if volume.attachment is not None:
            raise error("VolumeInUse", f"Volume {volume.id} is currently attached to {volume.attachment.instance.id}")
        if state(volume) == "creating":
            raise error("IncorrectState", f"The volume '{volume.id}' is 'creating'")
        volume.lab_state = "deleting"
        return EmptyResult()

    def modify_volume(self: Any) -> Any:
        volume = self.ec2_backend.get_volume(_required(self, "VolumeId"))
        size = _whole(self._get_param("Size"), "size")
        check_modify(volume, size)
        before = volume.size
        result = modify(self)
        made = volume.modifications[-1]
        made.lab_state, made.end_time = "modifying", None
        made.original_size, made.target_size = before, size or before
        volume.size = before
        return result

    def create_snapshot(self: Any, volume_id: str, description: str, *args: Any, **kwargs: Any) -> Any:
        volume = self.get_volume(volume_id)
        made = snapshot_one(self, volume_id, description, *args, **kwargs)
        if kwargs.get("from_ami") is None:
            if state(volume) not in ("available", "in-use"):
                raise error("IncorrectState", f"Volume '{volume_id}' is in the '{state(volume)}' state.")
            if is_root(volume):
                raise error(
                    "UnsupportedOperation",
                    f"The lab makes no snapshot of a root volume: the disk of {volume.attachment.instance.id} belongs "
                    "to its machine",
                )
            made.status, made.frozen_size = "pending", volume.size
        return made

    ElasticBlockStore.create_volume, ElasticBlockStore.attach_volume = create_volume, attach_volume
    ElasticBlockStore.detach_volume, ElasticBlockStore.delete_volume = detach_volume, delete_volume
    ElasticBlockStore.modify_volume = modify_volume
    EBSBackend.create_snapshot = create_snapshot
