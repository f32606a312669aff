"""A virtual machine beside a container: the same EC2, with a kernel of its own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_support import WATCH_S, Cloud, RunningLab, ec2lab, eventually, make_cloud

from ec2lab import residue, vm_image
from ec2lab.machine import vm

NAME = f"vm-{os.getpid()}"
DIRECTORIES = (Path(f"/var/lib/ec2lab/{NAME}"), Path(f"/run/ec2lab/{NAME}"))
USER_DATA = "#!/bin/sh\necho ran >> /ran\n"
# An emulated processor on a busy host.
BOOT_S = 600.0
RANGE = "10.200.2.1"

pytestmark = pytest.mark.timeout(1500)


def tags(**values: str) -> list[dict[str, object]]:
    named = [{"Key": f"ec2lab:{key.replace('_', '-')}", "Value": value} for key, value in values.items()]
    return [{"ResourceType": "instance", "Tags": named}]


def machine_directory(instance: str) -> Path:
    return DIRECTORIES[0] / "machines" / instance


def processes(instance: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"ec2lab.{NAME}.{instance}".encode() in (entry / "cmdline").read_bytes():
                    found.append(entry.name)
            except OSError:
                continue
    return found


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    if reason := vm.lacking():
        pytest.skip(f"this host cannot run virtual machines: {reason}")
    vm_image.ensure_image(print)  # so that no launch waits for it
    before = residue.snapshot(DIRECTORIES, lab=NAME)
    lab = RunningLab(NAME, tmp_path_factory.mktemp("lab"))
    try:
        lab.up()
        made = make_cloud(lab)
        made.connections = tmp_path_factory.mktemp("ssh")
        yield made
    finally:
        lab.down()
    assert residue.difference(before, residue.snapshot(DIRECTORIES, lab=NAME)) == []


@pytest.fixture(scope="module")
def pair(cloud: Cloud) -> tuple[str, str]:
    """A virtual machine, and a container of the same subnet."""
    options = {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
    launch = {"UserData": USER_DATA, "MetadataOptions": options}
    (virtual,) = cloud.run(TagSpecifications=tags(machine="vm", memory_mib="1024", first_boot="600"), **launch)
    (light,) = cloud.run(**launch)
    cloud.wait([light], "running")
    cloud.wait([virtual], "running", BOOT_S)
    return virtual, light


LOOK = """uname -r; stat -f -c %T /sys/fs/cgroup; cat /sys/fs/cgroup/cgroup.controllers; id -un; sudo -n id -un
hostname -f; ip -4 -o addr show ens5; cat /sys/class/net/ens5/mtu
systemctl is-enabled apt-daily.timer; for each in conntrack ipset socat chronyc; do command -v $each; done; echo end
lsblk --nodeps --noheadings --output SERIAL /dev/nvme0n1"""


def test_it_has_a_kernel_of_its_own_and_a_cloud_image_s_system(cloud: Cloud, pair: tuple[str, str]) -> None:
    virtual = pair[0]
    kernel, cgroups, controllers, *users, name, address, mtu, timer, end, serial = cloud.say(virtual, LOOK).splitlines()
    assert kernel.endswith("-cloud-amd64")
    assert kernel != os.uname().release == cloud.say(pair[1], "uname -r")
    assert (cgroups, users) == ("cgroup2fs", ["ubuntu", "root"])
    assert {"cpu", "cpuset", "io", "memory", "pids"} <= set(controllers.split())
    assert name == cloud.see(virtual)["PrivateDnsName"]
    assert f"inet {cloud.address(virtual)}/24 " in address
    assert (mtu, timer, end) == ("9001", "enabled", "end")
    assert serial == cloud.see(virtual)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"].replace("-", "")
    assert eventually(lambda: cloud.say(virtual, "cat /ran"), "user data") == "ran"
    # 8 GiB less what the file system keeps for itself: it has grown from the image's 2.
    eventually(lambda: int(cloud.say(virtual, "df --output=size -BG / | tail -n 1").strip("G ")) >= 7, "a grown root")


def test_apt_is_locked_for_a_while_when_asked_for(cloud: Cloud, pair: tuple[str, str]) -> None:
    done = cloud.ssh(pair[0], "sudo apt-get -o DPkg::Lock::Timeout=0 install --yes no-such-package", check=False)
    assert done.returncode == 100
    assert "Could not get lock /var/lib/dpkg/lock-frontend" in done.stderr


def test_its_metadata_stops_at_the_hop_limit(cloud: Cloud, pair: tuple[str, str]) -> None:
    assert cloud.metadata(pair[0], "meta-data/instance-id") == pair[0]
    with cloud.one_hop_further(pair[0]) as token:
        assert token() == "got:"
        cloud.ec2.modify_instance_metadata_options(InstanceId=pair[0], HttpPutResponseHopLimit=2, HttpTokens="required")
        assert len(token()) > len("got:")


def test_security_groups_and_the_source_check_hold_between_the_two(cloud: Cloud, pair: tuple[str, str]) -> None:
    virtual, light = pair
    addresses = cloud.address(light), cloud.address(virtual)
    ways = list(zip(pair, addresses, strict=True))
    assert not any(cloud.pings(source, address) for source, address in ways)
    ping = cloud.allow("icmp", 8, -1)
    for source, address in ways:
        eventually(lambda source=source, address=address: cloud.pings(source, address), f"a ping from {source}")
    # A range behind the virtual machine, as pods are: refused until its check is off, and reached by the route then.
    cloud.say(virtual, f"sudo ip addr add {RANGE}/32 dev lo")
    cloud.ec2.create_route(RouteTableId=cloud.table, DestinationCidrBlock="10.200.2.0/24", InstanceId=virtual)
    time.sleep(WATCH_S)
    assert not cloud.pings(light, RANGE)
    assert cloud.ssh(virtual, f"ping -c 1 -W 2 -I {RANGE} {addresses[0]}", check=False).returncode != 0
    cloud.ec2.modify_instance_attribute(InstanceId=virtual, SourceDestCheck={"Value": False})
    eventually(lambda: cloud.pings(light, RANGE), "a ping of the range")
    assert cloud.ssh(virtual, f"ping -c 1 -W 5 -I {RANGE} {addresses[0]}", check=False).returncode == 0
    cloud.ec2.delete_route(RouteTableId=cloud.table, DestinationCidrBlock="10.200.2.0/24")
    cloud.forbid(ping)


def test_a_volume_is_an_nvme_disk_with_its_id(cloud: Cloud, pair: tuple[str, str]) -> None:
    virtual, ec2 = pair[0], cloud.ec2
    zone = cloud.see(virtual)["Placement"]["AvailabilityZone"]
    volume = ec2.create_volume(AvailabilityZone=zone, Size=1)["VolumeId"]
    link = f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume.replace('-', '')}"

    def state() -> str:
        return str(ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["State"])

    def gibibytes() -> int:
        size = cloud.ssh(virtual, f"lsblk --noheadings --bytes --output SIZE {link}", check=False).stdout
        return int(size or 0) >> 30

    eventually(lambda: state() == "available", "the volume")
    ec2.attach_volume(InstanceId=virtual, VolumeId=volume, Device="/dev/sdf")
    eventually(lambda: gibibytes() == 1, "the disk")
    cloud.say(virtual, f"sudo sh -ec 'mkfs.ext4 -q {link}; mount {link} /mnt; echo kept >/mnt/file'")
    ec2.detach_volume(VolumeId=volume)
    eventually(
        lambda: ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["Attachments"][0]["State"] == "busy",
        "a mounted volume that is busy",
    )
    assert cloud.say(virtual, "cat /mnt/file; sudo umount /mnt") == "kept"
    eventually(lambda: state() == "available", "the volume without its instance")
    assert gibibytes() == 0
    ec2.attach_volume(InstanceId=virtual, VolumeId=volume, Device="/dev/sdf")
    eventually(lambda: gibibytes() == 1, "the disk again")
    ec2.modify_volume(VolumeId=volume, Size=2)
    eventually(lambda: gibibytes() == 2, "the larger disk")
    assert cloud.say(virtual, f"sudo sh -ec 'mount {link} /mnt; cat /mnt/file; umount /mnt'") == "kept"
    # It stays: the start in a later test finds it.


def test_faults(cloud: Cloud, pair: tuple[str, str]) -> None:
    virtual = pair[0]
    ec2lab("fault", "disk-fill", virtual)
    assert cloud.ssh(virtual, "sudo sh -c 'head -c 1M /dev/zero >/more'", check=False).returncode != 0
    ec2lab("fault", "disk-free", virtual)
    cloud.say(virtual, "sudo sh -c 'head -c 1M /dev/zero >/more; rm /more'")
    ec2lab("fault", "clock-jump", virtual)
    assert int(cloud.say(virtual, "date +%s")) > time.time() + 1800
    cloud.say(virtual, f"sudo date --set=@{time.time():.0f}")


def test_it_reboots_powers_itself_off_and_starts_again_with_its_disk(cloud: Cloud, pair: tuple[str, str]) -> None:
    virtual = pair[0]
    before = cloud.address(virtual)
    boot = cloud.say(virtual, "cat /proc/sys/kernel/random/boot_id")
    (process,) = processes(virtual)
    cloud.ec2.reboot_instances(InstanceIds=[virtual])
    # The daemon's end meanwhile ends no machine, and the next daemon finds it.
    time.sleep(WATCH_S)
    os.kill(cloud.lab.daemon(), signal.SIGKILL)
    cloud.lab.up()

    def rebooted() -> bool:
        cloud.hang_up(virtual)
        time.sleep(5)  # every connection is work for an emulated processor, and sshd refuses when there are many
        done = cloud.ssh(virtual, "cat /proc/sys/kernel/random/boot_id", check=False, connect=60)
        return done.returncode == 0 and done.stdout.strip() != boot

    eventually(rebooted, "SSH after the reboot", BOOT_S)
    cloud.hang_up(virtual)
    assert processes(virtual) == [process]
    assert cloud.see(virtual)["State"]["Name"] == "running"
    cloud.ssh(virtual, "sudo touch /kept; sudo systemctl --no-block poweroff", check=False)
    cloud.wait([virtual], "stopped", BOOT_S)
    assert cloud.see(virtual)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    assert processes(virtual) == []
    cloud.hang_up(virtual)
    cloud.ec2.start_instances(InstanceIds=[virtual])
    cloud.wait([virtual], "running", BOOT_S)
    assert cloud.address(virtual) == before
    assert cloud.say(virtual, "ls /kept; cat /ran").split() == ["/kept", "ran"]
    disks = cloud.say(virtual, "lsblk --nodeps --noheadings --output SERIAL /dev/nvme*n1").split()
    attached = [each["Ebs"]["VolumeId"].replace("-", "") for each in cloud.see(virtual)["BlockDeviceMappings"]]
    assert sorted(disks) == sorted(attached)
    console = ec2lab("console", virtual).stdout
    assert console.count("Linux version") == 3
    assert cloud.say(virtual, "cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub") in console


def test_a_stop_is_a_press_of_the_power_button_and_a_termination_leaves_nothing(
    cloud: Cloud, pair: tuple[str, str]
) -> None:
    virtual = pair[0]
    cloud.ec2.stop_instances(InstanceIds=[virtual])
    cloud.wait([virtual], "stopped", BOOT_S)
    assert "Power down" in ec2lab("console", virtual).stdout, "it did not shut down itself"
    cloud.terminate([virtual])
    assert processes(virtual) == []
    assert not machine_directory(virtual).exists()
    link = "n" + virtual.removeprefix("i-")[-14:]
    eventually(lambda: link not in os.popen(f"ip netns exec ec2lab.{NAME}.{cloud.vpc} ip link").read(), "no link")


def test_a_host_without_the_memory_refuses_the_launch_with_both_numbers(cloud: Cloud) -> None:
    (instance,) = cloud.run(TagSpecifications=tags(machine="vm", memory_mib="99000000"))
    cloud.wait([instance], "terminated")
    reason = cloud.see(instance)["StateReason"]
    assert reason["Code"] == "Server.InsufficientInstanceCapacity"
    assert "99000000 MiB of memory and the host can give " in reason["Message"]
    assert not machine_directory(instance).exists()


def test_down_finds_a_machine_whose_daemon_was_killed(cloud: Cloud) -> None:
    """The fixture's end compares what is there with what was there before."""
    (instance,) = cloud.run(TagSpecifications=tags(machine="vm", memory_mib="1024"))
    eventually(lambda: processes(instance), "QEMU")
    os.kill(cloud.lab.daemon(), signal.SIGKILL)
