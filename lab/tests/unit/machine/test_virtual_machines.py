"""Virtual machines as far as they can be tested without booting one: plan, probe, image, memory."""

from __future__ import annotations

import itertools
import json
import shutil
import socket
import threading
from pathlib import Path

import pytest

from ec2lab import cli, fabric, image, vm_image
from ec2lab.errors import LabError, NoCapacity
from ec2lab.machine import Machines, MachineSpec, kvm, memory, monitor, qemu, vm
from ec2lab.model import Node, Subnet, Vpc

MIB = 1 << 20


def plan(tmp_path: Path, **more: object) -> qemu.Plan:
    fields: dict[str, object] = {
        "lab": "x",
        "instance_id": "i-0123456789abcdef0",
        "directory": tmp_path,
        "image": vm_image.VmImage("key", "debian", "bookworm", "6.1", tmp_path / "image"),
        "mac": "02:00:00:00:00:04",
        "memory_mib": 2048,
        "cpus": 2,
        "accelerated": False,
        "uuid": "ec2",
        "instance_type": "m5.large",
        "root_volume_id": "vol-0123456789abcdef1",
    } | more
    return qemu.Plan(**fields)  # type: ignore[arg-type]


def given(arguments: list[str], option: str) -> list[str]:
    return [value for name, value in itertools.pairwise(arguments) if name == option]


# The command line


def test_the_command_line_names_the_machine_and_has_its_parts(tmp_path: Path) -> None:
    arguments = qemu.arguments(plan(tmp_path))
    assert given(arguments, "-name") == ["ec2lab.x.i-0123456789abcdef0"]  # residue and memory find it by this
    assert given(arguments, "-m") == ["2048"]
    assert given(arguments, "-netdev") == ["tap,id=net,ifname=n3456789abcdef0,script=no,downscript=no"]
    devices = given(arguments, "-device")
    assert any("mac=02:00:00:00:00:04" in device and "host_mtu=9001" in device for device in devices)
    assert any(device.startswith("nvme,") and "serial=vol0123456789abcdef1," in device for device in devices)
    # Free slots must be there from the start: nothing can be plugged into a machine without them.
    assert len([device for device in devices if device.startswith("pcie-root-port")]) == 2 + qemu.VOLUME_SLOTS


def test_without_kvm_the_processor_is_emulated(tmp_path: Path) -> None:
    emulated, accelerated = (qemu.arguments(plan(tmp_path, accelerated=each)) for each in (False, True))
    assert (given(emulated, "-accel"), given(emulated, "-cpu")) == (["tcg,thread=multi,tb-size=256"], ["max"])
    assert (given(accelerated, "-accel"), given(accelerated, "-cpu")) == (["kvm"], ["host"])
    assert (given(emulated, "-smp"), given(accelerated, "-smp")) == (["1"], ["2"])


def test_an_attached_volume_is_there_after_a_start(tmp_path: Path) -> None:
    volume = qemu.Volume("vol-0123456789abcdef2", tmp_path / "a,b", qemu.FIRST_VOLUME_SLOT)
    arguments = qemu.arguments(plan(tmp_path, volumes=(volume,)))
    assert f"file.filename={tmp_path}/a,,b," in given(arguments, "-blockdev")[-1]
    assert given(arguments, "-device")[-1] == (
        "nvme,id=vol0123456789abcdef2,drive=vol0123456789abcdef2,serial=vol0123456789abcdef2,bus=slot8"
    )


# Volumes of a machine that does not run


def machine_in(tmp_path: Path, **facts: object) -> vm.VirtualMachine:
    machine = vm.VirtualMachine("x", tmp_path)
    directory = machine.of("i-1")
    directory.mkdir()
    (directory / "disk.raw").touch()
    (directory / "spec.json").write_text(json.dumps({"kind": "vm", "vpc_id": "vpc-1", **facts}))
    return machine


def test_volumes_take_slots_of_their_own_and_give_them_back(tmp_path: Path) -> None:
    machine = machine_in(tmp_path)
    for name in ("vol-a", "vol-b", "vol-a"):
        machine.attach("i-1", name, tmp_path / name, "/dev/sdf")
    assert {name: each.slot for name, each in machine._volumes("i-1").items()} == {"vol-a": 8, "vol-b": 9}
    machine.detach("i-1", "vol-a")
    machine.detach("i-1", "vol-a")
    machine.attach("i-1", "vol-c", tmp_path / "vol-c", "/dev/sdg")
    assert {name: each.slot for name, each in machine._volumes("i-1").items()} == {"vol-b": 9, "vol-c": 8}
    for number in range(qemu.VOLUME_SLOTS - 2):
        machine.attach("i-1", f"vol-{number}", tmp_path / "file", "")
    with pytest.raises(LabError, match="has 16 volumes already, and no slot for vol-more"):
        machine.attach("i-1", "vol-more", tmp_path / "file", "")


# KVM


@pytest.fixture
def emulator() -> None:
    if shutil.which(kvm.QEMU) is None:
        pytest.skip(f"{kvm.QEMU} is not installed on this host")


@pytest.mark.usefixtures("emulator")
def test_the_trial_s_guest_gets_back_where_instructions_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm, "PATIENCE_S", 120.0)  # an emulated count on a busy host
    assert kvm.trial("tcg", "max") == kvm.Verdict(True, "a guest ran with it")


@pytest.mark.usefixtures("emulator")
def test_a_guest_that_does_not_get_back_in_time_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a /dev/kvm that interprets every instruction: here by a guest that stops before its marker."""
    monkeypatch.setattr(kvm, "PATIENCE_S", 1.0)
    stopped = kvm.GUEST[:32] + b"\xf4\xeb\xfd" + kvm.GUEST[35:]  # hlt; jmp back to it
    found = kvm.trial("tcg", "max", stopped)
    assert not found.serves
    assert found.reason == "a guest of a few instructions did not get through them within 1 s"


@pytest.mark.usefixtures("emulator")
def test_what_qemu_says_is_the_reason() -> None:
    found = kvm.trial("no-such-accelerator", "max")
    assert not found.serves
    assert "QEMU ended with status 1: " in found.reason
    assert "no-such-accelerator" in found.reason


def test_without_the_device_nothing_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm, "DEVICE", tmp_path / "kvm")
    kvm.verdict.cache_clear()
    try:
        assert kvm.verdict() == kvm.Verdict(False, f"there is no {tmp_path}/kvm")
    finally:
        kvm.verdict.cache_clear()


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert "apt-get install --no-install-recommends qemu-system-x86" in kvm.trial("tcg", "max").reason
    assert "qemu-system-x86_64 and sfdisk are missing: apt-get install" in (vm.lacking() or "")


# Memory


def test_memory_that_is_promised_is_not_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def process(number: int, *arguments: str, pages: int = 0) -> None:
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "cmdline").write_bytes("\0".join(arguments).encode())
        (tmp_path / str(number) / "statm").write_text(f"0 {pages} 0")

    process(1, "init")
    process(2, "qemu", "-name", "ec2lab.x.i-1", "-m", "2048", pages=512 * MIB // memory.os.sysconf("SC_PAGE_SIZE"))
    process(3, "qemu", "-name", "somebody-s", "-m", "4096")
    (tmp_path / "meminfo").write_text("MemTotal: 9999999 kB\nMemAvailable: 8388608 kB\n")
    monkeypatch.setattr(memory, "PROC", tmp_path)
    assert memory.available_mib() == 8192 - (2048 + memory.OVERHEAD_MIB - 512) - memory.RESERVE_MIB


def test_without_the_memory_both_numbers_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_mib", lambda: 700 + memory.OVERHEAD_MIB)
    monkeypatch.setattr(vm_image, "load", lambda key: plan(tmp_path).image)
    machine = machine_in(tmp_path, memory_mib=1024)
    with pytest.raises(NoCapacity, match=r"i-1 is a virtual machine with 1024 MiB .* can give 700 MiB: terminate"):
        machine.command("i-1", {**machine.facts("i-1"), "image": "key"})


# The image


def test_an_image_that_lacks_what_a_node_needs_is_not_made(tmp_path: Path) -> None:
    for path in vm_image.NEEDED:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    vm_image.check(tmp_path)
    (tmp_path / "usr/sbin/sshd").unlink()
    with pytest.raises(LabError, match=r"lacks /usr/sbin/sshd \(package openssh-server\): add it to .*vm-packages"):
        vm_image.check(tmp_path)


def test_the_newest_kernel_with_an_initrd_is_taken(tmp_path: Path) -> None:
    boot, place = tmp_path / "boot", tmp_path / "place"
    for directory in (boot, place):
        directory.mkdir()
    with pytest.raises(LabError, match=r"no kernel with an initrd in /boot: .*needs initramfs-tools"):
        vm_image.take_kernel(tmp_path, place)
    for version in ("6.1.0-9", "6.1.0-57", "6.1.0-58"):
        (boot / f"vmlinuz-{version}").write_text(version)
    for version in ("6.1.0-9", "6.1.0-57"):
        (boot / f"initrd.img-{version}").write_text(version)
    assert vm_image.take_kernel(tmp_path, place) == "6.1.0-57"
    assert (place / "kernel").read_text() == (place / "initrd").read_text() == "6.1.0-57"


def test_a_volume_smaller_than_the_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="a volume of 1 GiB is too small for the image"):
        plan(tmp_path).image.disk(1)


def test_another_distribution_or_processor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "chosen_archive", lambda: image.Archive("ubuntu", "jammy", ()))
    assert "no recipe for virtual machines of ubuntu: set EC2LAB_DISTRIBUTION" in (vm_image.refusal() or "")
    monkeypatch.setattr(vm_image.platform, "machine", lambda: "aarch64")
    assert vm_image.refusal() == "virtual machines need an amd64 host, and this one is aarch64"


def test_nothing_that_the_product_installs_is_in_the_image() -> None:
    listed = set(image.listed(image.RECIPE / "vm-packages.txt"))
    assert not listed & {"conntrack", "ipset", "socat", "chrony", "runc", "ebtables"}


# Which machine


def test_a_machine_is_of_the_kind_that_its_record_says(tmp_path: Path) -> None:
    machines = Machines("x", tmp_path)
    machines.directory.mkdir()
    machine_in(machines.directory)
    assert (machines.kind("i-1"), machines.kind("i-2")) == ("vm", "container")
    assert machines.init_pid("i-1") is None
    assert machines.state("i-1") == "stopped"
    (machines.directory / "i-1/spec.json").write_text("{}")  # a lab of an older version
    assert machines.kind("i-1") == "container"
    odd = MachineSpec("i-3", "vpc-1", "10.0.0.4", "10.0.0.0/24", "02:00:00:00:00:04", "h", kind="toaster")  # type: ignore[arg-type]
    with pytest.raises(LabError, match="no kind of machine 'toaster'"):
        machines.create(odd)


def test_up_chooses_what_is_told_or_what_the_host_can(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking: list[str | None] = [None]
    verdicts, room = [kvm.Verdict(True, "a guest ran with it")], [64 << 10]
    monkeypatch.setattr(vm, "lacking", lambda: lacking[0])
    monkeypatch.setattr(kvm, "verdict", lambda: verdicts[0])
    monkeypatch.setattr(memory, "available_mib", lambda: room[0])
    monkeypatch.delenv(cli.MACHINE_VARIABLE, raising=False)
    assert cli.choose_machine(None) == "vm"
    assert "KVM serves: nodes are virtual machines" in capsys.readouterr().err
    assert cli.choose_machine("container") == "container"
    room[0] = cli.VM_MEMORY_MIB - 1
    assert cli.choose_machine(None) == "container"
    verdicts[0], room[0] = kvm.Verdict(False, "too slow"), 64 << 10
    assert cli.choose_machine(None) == "container"
    assert capsys.readouterr().err == ""
    monkeypatch.setenv(cli.MACHINE_VARIABLE, "vm")
    assert cli.choose_machine(None) == "vm"
    assert "KVM does not serve (too slow): the virtual machines' processors are emulated" in capsys.readouterr().err
    lacking[0] = "no emulator"
    with pytest.raises(LabError, match="EC2LAB_MACHINE vm: no emulator"):
        cli.choose_machine(None)
    monkeypatch.setenv(cli.MACHINE_VARIABLE, "vmm")
    with pytest.raises(LabError, match="EC2LAB_MACHINE=vmm: use container or vm, or leave it unset"):
        cli.choose_machine(None)


def test_its_link_is_a_tap_device() -> None:
    node = Node("i-4", "subnet-1", "10.0.0.4", "02:00:00:00:00:04", "h", ("sg",), tap=True)
    vpc = Vpc("vpc-1", ("10.0.0.0/16",), (Subnet("subnet-1", "10.0.0.0/24", ()),), nodes=(node,))
    nothing: frozenset[str] = frozenset()
    commands = fabric.ip_commands(vpc, fabric.Seen(nothing, nothing, nothing, frozenset(), frozenset()), False)
    made = ["tuntap add dev n4 mode tap vnet_hdr", "link set dev n4 mtu 9001", "link set dev n4 up"]
    assert commands[:3] == made
    assert not any("veth" in command for command in commands)


# The monitor


def test_events_are_passed_over_and_refusals_are_errors(tmp_path: Path) -> None:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(tmp_path / "qmp"))
    listening.listen(1)

    def qemu_s_side() -> None:
        connection, _ = listening.accept()
        with connection, connection.makefile("rwb", buffering=0) as stream:
            stream.write(b'{"QMP": {}}\n')
            while line := stream.readline():
                asked = json.loads(line)
                answer = {"id": asked["id"], "return": {"said": asked["execute"]}}
                if asked["execute"] == "bad":
                    answer = {"id": asked["id"], "error": {"class": "GenericError", "desc": "it is bad"}}
                if asked["execute"] != "silent":
                    stream.write(b'{"event": "RESET"}\n' + json.dumps(answer).encode() + b"\n")

    threading.Thread(target=qemu_s_side, daemon=True).start()
    with monitor.connected(tmp_path, "qmp", 0.5) as channel:
        channel.greet()
        assert channel.call("good") == {"said": "good"}
        with pytest.raises(monitor.MonitorError, match="bad: it is bad"):
            channel.call("bad")
        with pytest.raises(monitor.MonitorError, match=r"silent was not answered \(.*time"):
            channel.call("silent")
    listening.close()
    with pytest.raises(monitor.MonitorError, match="takes no connection"), monitor.connected(tmp_path, "qmp", 1):
        pass


# The seed


def test_a_virtual_machine_s_seed_is_what_dhcp_and_cloud_init_say(tmp_path: Path) -> None:
    machine = vm.VirtualMachine("x", tmp_path)
    spec = MachineSpec(
        "i-1",
        "vpc-1",
        "10.0.0.4",
        "10.0.0.0/24",
        "02:00:00:00:00:04",
        "h",
        resolver="10.0.0.2",
        authorized_keys=("ssh-ed25519 A",),
        user_data=b"#!/bin/sh\n",
        first_boot=60,
        kind="vm",
    )
    machine.own_files(tmp_path, spec)
    network = (tmp_path / "etc/systemd/network/10-ens5.network").read_text().splitlines()
    wanted = {"MACAddress=02:00:00:00:00:04", "Address=10.0.0.4/24", "Gateway=10.0.0.1", "DNS=10.0.0.2"}
    assert wanted <= set(network)
    assert (tmp_path / "etc/ec2lab/first-boot").read_text() == "60\n"
    # Its image has no cloud-init, whatever the tag for containers says.
    assert (tmp_path / "home/ubuntu/.ssh/authorized_keys").read_text() == "ssh-ed25519 A\n"
    assert (tmp_path / "var/lib/cloud/instance/user-data.txt").stat().st_mode & 0o777 == 0o600
