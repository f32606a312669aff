"""EBS volumes as EC2 documents them: what a call refuses, and the states until the controller has done its part.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from api_support import Network, RunningApi
from test_api_instances import launch, refused
from test_controller import RememberedMachines, new_controller

from ec2lab.api.patches import volumes as states
from ec2lab.controller import Controller
from ec2lab.errors import LabError
from ec2lab.volumes import GIB, NUMBERS, Volumes, VolumeSpec, free_number, link_name

ETCD = {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 2, "DeleteOnTermination": True}}


@pytest.fixture
def machines() -> RememberedMachines:
    return RememberedMachines()


@pytest.fixture
def controller(running_api: RunningApi, machines: RememberedMachines) -> Controller:
    return new_controller(running_api, machines)


@pytest.fixture
def settle(controller: Controller) -> Callable[[], None]:
    """Steps until there is nothing to do; one job after the other."""

    def all_jobs() -> None:
        for _round in range(12):
            with controller.api.lock:
                work = controller._work()
            if not work:
                return
            for name, _what, job in work:
                job(name)
        raise AssertionError(f"still to do: {work}")

    return all_jobs


def volume_of(ec2: Any, volume_id: str) -> dict[str, Any]:
    return dict(ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0])


def make(ec2: Any, settle: Callable[[], None], **changes: Any) -> str:
    made = ec2.create_volume(**{"AvailabilityZone": "us-east-1a", "Size": 1, **changes})
    assert made["State"] == "creating"
    settle()
    assert volume_of(ec2, made["VolumeId"])["State"] == "available"
    return str(made["VolumeId"])


def node(running_api: RunningApi, network: Network, settle: Callable[[], None], **changes: Any) -> str:
    instance = str(launch(running_api, network, **changes)["Instances"][0]["InstanceId"])
    settle()
    return instance


def mapped(ec2: Any, instance: str) -> dict[str, Any]:
    seen = ec2.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    return {each["DeviceName"]: each["Ebs"] for each in seen["BlockDeviceMappings"]}


def test_a_life_of_a_volume(
    running_api: RunningApi, ec2: Any, network: Network, machines: RememberedMachines, settle: Callable[[], None]
) -> None:
    files = Volumes(running_api.state_file.parent)
    instance, volume = node(running_api, network, settle), make(ec2, settle)
    assert files.path(volume).stat().st_size == GIB and files.path(volume).stat().st_blocks == 0
    answer = ec2.attach_volume(InstanceId=instance, VolumeId=volume, Device="/dev/sdg")
    assert answer["State"] == "attaching"
    seen = volume_of(ec2, volume)
    assert (seen["State"], seen["Attachments"][0]["State"]) == ("in-use", "attaching")
    assert mapped(ec2, instance)["/dev/sdg"]["Status"] == "attaching"
    settle()
    assert volume_of(ec2, volume)["Attachments"][0]["State"] == "attached"
    assert mapped(ec2, instance)["/dev/sdg"]["Status"] == "attached"
    assert machines.disks[volume] == (instance, "/dev/sdg")
    with refused("VolumeInUse"):
        ec2.delete_volume(VolumeId=volume)
    assert ec2.detach_volume(VolumeId=volume)["State"] == "detaching"
    assert volume_of(ec2, volume)["Attachments"][0]["State"] == "detaching"
    settle()
    assert (volume_of(ec2, volume)["State"], volume_of(ec2, volume)["Attachments"]) == ("available", [])
    assert machines.disks == {}
    ec2.delete_volume(VolumeId=volume)
    assert volume_of(ec2, volume)["State"] == "deleting"
    settle()
    with refused("InvalidVolume.NotFound"):
        volume_of(ec2, volume)
    assert files.known() == set()


def test_a_launch_maps_its_volumes_beside_the_images_root(
    running_api: RunningApi, ec2: Any, network: Network, machines: RememberedMachines, settle: Callable[[], None]
) -> None:
    made = launch(running_api, network, BlockDeviceMappings=[ETCD])["Instances"][0]
    instance = made["InstanceId"]
    there = mapped(ec2, instance)
    assert sorted(there) == ["/dev/sdf", "/dev/xvda"]
    assert (there["/dev/sdf"]["Status"], there["/dev/xvda"]["Status"]) == ("attaching", "attached")
    settle()
    volume = there["/dev/sdf"]["VolumeId"]
    assert machines.disks == {volume: (instance, "/dev/sdf")}
    assert volume_of(ec2, volume)["Size"] == 2
    ec2.terminate_instances(InstanceIds=[instance])
    settle()
    assert ec2.describe_volumes()["Volumes"] == []
    assert Volumes(running_api.state_file.parent).known() == set()


def test_a_volume_that_is_to_stay_outlives_its_instance(
    running_api: RunningApi, ec2: Any, network: Network, settle: Callable[[], None]
) -> None:
    kept = {"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 1, "DeleteOnTermination": False}}
    instance = node(running_api, network, settle, BlockDeviceMappings=[kept])
    volume = mapped(ec2, instance)["/dev/sdf"]["VolumeId"]
    ec2.terminate_instances(InstanceIds=[instance])
    settle()
    assert volume_of(ec2, volume)["State"] == "available"
    assert Volumes(running_api.state_file.parent).path(volume).exists()


def test_a_stopped_instance_takes_and_gives_back_volumes(
    running_api: RunningApi, ec2: Any, network: Network, machines: RememberedMachines, settle: Callable[[], None]
) -> None:
    instance, volume = node(running_api, network, settle), make(ec2, settle)
    ec2.stop_instances(InstanceIds=[instance])
    settle()
    ec2.attach_volume(InstanceId=instance, VolumeId=volume, Device="/dev/sdf")
    settle()
    ec2.start_instances(InstanceIds=[instance])
    settle()
    assert machines.disks == {volume: (instance, "/dev/sdf")}
    assert volume_of(ec2, volume)["Attachments"][0]["State"] == "attached"


def test_a_mounted_volume_is_busy_until_it_is_not(
    running_api: RunningApi,
    ec2: Any,
    network: Network,
    machines: RememberedMachines,
    controller: Controller,
    settle: Callable[[], None],
) -> None:
    instance = node(running_api, network, settle, BlockDeviceMappings=[ETCD])
    volume = mapped(ec2, instance)["/dev/sdf"]["VolumeId"]
    machines.mounted.add(volume)
    ec2.detach_volume(VolumeId=volume)
    controller._arrange(instance)
    assert volume_of(ec2, volume)["Attachments"][0]["State"] == "busy"
    machines.mounted.clear()
    settle()
    assert volume_of(ec2, volume)["State"] == "available"


def test_a_volume_grows(
    running_api: RunningApi,
    ec2: Any,
    network: Network,
    machines: RememberedMachines,
    controller: Controller,
    settle: Callable[[], None],
) -> None:
    instance = node(running_api, network, settle, BlockDeviceMappings=[ETCD])
    volume = mapped(ec2, instance)["/dev/sdf"]["VolumeId"]

    def modified() -> str:
        found = ec2.describe_volumes_modifications(VolumeIds=[volume])["VolumesModifications"][-1]
        assert (found["OriginalSize"], found["TargetSize"]) == (2, 3)
        return str(found["ModificationState"])

    with refused("InvalidParameterValue"):
        ec2.modify_volume(VolumeId=volume, Size=1)
    answer = ec2.modify_volume(VolumeId=volume, Size=3)["VolumeModification"]
    assert (answer["ModificationState"], answer["Progress"]) == ("modifying", 0)
    # The size counts from `optimizing` on.
    assert (modified(), volume_of(ec2, volume)["Size"]) == ("modifying", 2)
    with refused("IncorrectModificationState"):
        ec2.modify_volume(VolumeId=volume, Size=4)
    controller._arrange(instance)
    assert (modified(), volume_of(ec2, volume)["Size"], machines.told) == ("optimizing", 3, [volume])
    assert Volumes(running_api.state_file.parent).path(volume).stat().st_size == 3 * GIB
    settle()
    assert modified() == "completed"
    with refused("VolumeModificationRateExceeded"):
        ec2.modify_volume(VolumeId=volume, Size=4)


def test_a_root_volume_grows_in_the_description(
    running_api: RunningApi, ec2: Any, network: Network, settle: Callable[[], None]
) -> None:
    instance = node(running_api, network, settle)
    root = mapped(ec2, instance)["/dev/xvda"]["VolumeId"]
    ec2.modify_volume(VolumeId=root, Size=30)
    settle()
    assert volume_of(ec2, root)["Size"] == 30
    with refused("OperationNotPermitted"):
        ec2.detach_volume(VolumeId=root)


def test_a_snapshot_and_a_volume_from_it(
    running_api: RunningApi, ec2: Any, network: Network, settle: Callable[[], None]
) -> None:
    files = Volumes(running_api.state_file.parent)
    volume = make(ec2, settle, Size=2)
    with files.path(volume).open("r+b") as disk:
        disk.write(b"what was written")
    made = ec2.create_snapshot(VolumeId=volume)
    snapshot = made["SnapshotId"]
    assert (made["State"], made["VolumeSize"]) == ("pending", 2)
    with refused("IncorrectState"):
        ec2.create_volume(SnapshotId=snapshot, AvailabilityZone="us-east-1a")
    settle()
    ec2.delete_volume(VolumeId=volume)
    settle()
    seen = ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]
    assert (seen["State"], seen["Progress"], seen["VolumeSize"]) == ("completed", "100%", 2)
    with refused("InvalidParameterValue"):
        ec2.create_volume(SnapshotId=snapshot, Size=1, AvailabilityZone="us-east-1a")
    again = make(ec2, settle, SnapshotId=snapshot, Size=3)
    with files.path(again).open("rb") as disk:
        assert disk.read(16) == b"what was written"
    assert files.path(again).stat().st_size == 3 * GIB
    ec2.delete_snapshot(SnapshotId=snapshot)
    settle()
    assert files.known() == {again}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"Size": 0}, "InvalidParameterValue"),
        ({"Size": 20000}, "InvalidParameterValue"),
        ({"AvailabilityZone": "us-east-1z"}, "InvalidZone.NotFound"),
        ({"SnapshotId": "snap-0123456789abcdef0"}, "InvalidSnapshot.NotFound"),
    ],
)
def test_a_volume_that_cannot_be(ec2: Any, changes: dict[str, Any], code: str) -> None:
    with refused(code):
        ec2.create_volume(**{"AvailabilityZone": "us-east-1a", "Size": 1, **changes})


@pytest.mark.parametrize(
    ("mappings", "code"),
    [
        ([ETCD, ETCD], "InvalidBlockDeviceMapping"),
        ([{"DeviceName": "/dev/sdf", "Ebs": {"VolumeSize": 20000}}], "InvalidBlockDeviceMapping"),
        ([{"DeviceName": "/dev/sdf", "Ebs": {"DeleteOnTermination": True}}], "MissingParameter"),
        ([{"DeviceName": "the disk", "Ebs": {"VolumeSize": 1}}], "InvalidParameterValue"),
        ([{"DeviceName": "/dev/sdf", "Ebs": {"SnapshotId": "snap-0123456789abcdef0"}}], "InvalidSnapshot.NotFound"),
    ],
)
def test_a_mapping_that_cannot_be(
    running_api: RunningApi, network: Network, mappings: list[dict[str, Any]], code: str
) -> None:
    with refused(code):
        launch(running_api, network, BlockDeviceMappings=mappings)


def test_an_attachment_that_cannot_be(
    running_api: RunningApi, ec2: Any, network: Network, settle: Callable[[], None]
) -> None:
    pending = str(launch(running_api, network)["Instances"][0]["InstanceId"])
    far = ec2.create_volume(AvailabilityZone="us-east-1b", Size=1)["VolumeId"]
    near = ec2.create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"]
    with refused("IncorrectState"):  # it is still being made
        ec2.attach_volume(InstanceId=pending, VolumeId=near, Device="/dev/sdf")
    with refused("IncorrectState"):
        ec2.delete_volume(VolumeId=near)
    settle()
    instance = node(running_api, network, settle, BlockDeviceMappings=[ETCD])
    with refused("InvalidVolume.ZoneMismatch"):
        ec2.attach_volume(InstanceId=instance, VolumeId=far, Device="/dev/sdg")
    with refused("InvalidParameterValue"):  # the attachment point is in use
        ec2.attach_volume(InstanceId=instance, VolumeId=near, Device="/dev/sdf")
    with refused("InvalidParameterValue"):
        ec2.attach_volume(InstanceId=instance, VolumeId=near, Device="nvme1n1")
    with refused("InvalidVolume.NotFound"):
        ec2.attach_volume(InstanceId=instance, VolumeId="vol-0123456789abcdef0", Device="/dev/sdg")
    with refused("InvalidInstanceID.NotFound"):
        ec2.attach_volume(InstanceId="i-0123456789abcdef0", VolumeId=near, Device="/dev/sdg")
    with refused("IncorrectState"):
        ec2.detach_volume(VolumeId=near)
    ec2.attach_volume(InstanceId=instance, VolumeId=near, Device="/dev/sdg")
    with refused("VolumeInUse"):
        ec2.attach_volume(InstanceId=pending, VolumeId=near, Device="/dev/sdh")
    settle()
    with refused("InvalidAttachment.NotFound"):
        ec2.detach_volume(VolumeId=near, InstanceId=pending)
    with refused("InvalidAttachment.NotFound"):
        ec2.detach_volume(VolumeId=near, Device="/dev/sdf")
    ec2.detach_volume(VolumeId=near)
    with refused("VolumeInUse"):
        ec2.attach_volume(InstanceId=instance, VolumeId=near, Device="/dev/sdh")


def test_a_dry_run_changes_nothing(ec2: Any, settle: Callable[[], None]) -> None:
    volume = make(ec2, settle)
    with refused("DryRunOperation"):
        ec2.modify_volume(VolumeId=volume, Size=5, DryRun=True)
    with refused("DryRunOperation"):
        ec2.delete_volume(VolumeId=volume, DryRun=True)
    assert (volume_of(ec2, volume)["State"], volume_of(ec2, volume)["Size"]) == ("available", 1)


def test_states_are_kept_over_a_restart_of_the_daemon(
    running_api: RunningApi, ec2: Any, machines: RememberedMachines
) -> None:
    volume = ec2.create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"]
    running_api.api.load()
    later = new_controller(running_api, machines)
    later.step()
    with later.exclusively(volume):
        pass
    assert volume_of(ec2, volume)["State"] == "available"


# Files and names


def test_the_number_of_a_device_says_nothing_about_its_name() -> None:
    ids = [f"vol-{number:017x}" for number in range(40)]
    assert len({free_number(each, ()) for each in ids}) > 1
    assert free_number(ids[0], set(NUMBERS) - {9}) == 9
    with pytest.raises(LabError, match="takes no more"):
        free_number(ids[0], NUMBERS)
    assert link_name("vol-0123456789abcdef0") == "nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0"


def test_a_half_made_file_is_made_again(tmp_path: Path) -> None:
    files = Volumes(tmp_path)
    spec = VolumeSpec("vol-0123456789abcdef0", 1)
    files.create(spec)
    files.path(spec.id).rename(files.path(spec.id).with_suffix(".partial"))
    assert files.known() == set()
    files.create(spec)
    assert files.path(spec.id).stat().st_size == GIB and files.known() == {spec.id}
    files.grow(spec.id, 1)
    files.delete(spec.id)
    files.delete(spec.id)
    assert files.known() == set()
    with pytest.raises(LabError, match="is not the id"):
        files.path("../vol")


def test_the_images_snapshot_has_no_file(running_api: RunningApi) -> None:
    from ec2lab.api.backends import ec2 as backend

    assert backend().snapshots and list(states.all_snapshots(backend())) == []
