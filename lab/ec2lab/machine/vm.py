"""A machine as a virtual machine of QEMU, with a kernel of its own.

QEMU is a process of its own in the VPC's network namespace, on the node's tap device. Its directory also has

    qmp, agent      sockets: QEMU's monitor, and the agent in the guest
    volumes.json    the EBS volumes that are attached, so that a start finds them
"""

from __future__ import annotations

import base64
import json
import logging
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

from ec2lab import addresses, cgroups, names, vm_image
from ec2lab.errors import Busy, LabError, NoCapacity, Timeout
from ec2lab.machine import common, kvm, memory, qemu
from ec2lab.machine.monitor import MonitorError, connected
from ec2lab.shell import run

log = logging.getLogger(__name__)
LAUNCHER = Path(__file__).parent.parent / "vm-launcher.sh"
STOP_S = 120.0
MONITOR_S = 20.0
AGENT_S = 60.0
UNPLUG_S = 60.0
DEFAULT_CPUS = 2


class VirtualMachine(common.Machine):
    kind = "vm"
    disk_name = "disk.raw"
    boot_patience_s = 600.0
    poll_s = 1.0  # each question is work for a guest that is busy booting

    def __init__(self, lab: str, directory: Path) -> None:
        super().__init__(lab, directory)
        self._image: vm_image.VmImage | None = None
        self._starting = threading.Lock()

    def base(self) -> vm_image.VmImage:
        self._image = self._image or vm_image.ensure_image(log.info)
        return self._image

    def own_files(self, seed: Path, spec: common.MachineSpec) -> None:
        # What DHCP says on EC2.
        common.put(
            seed,
            "etc/systemd/network/10-ens5.network",
            f"[Match]\nMACAddress={spec.mac}\nType=ether\n\n[Network]\n"
            f"Address={spec.private_ip}/{addresses.prefix_length(spec.subnet_cidr)}\n"
            f"Gateway={addresses.router(spec.subnet_cidr)}\nDNS={spec.resolver}\nDomains={spec.domain}\n"
            "LinkLocalAddressing=no\nIPv6AcceptRA=no\n",
        )

        if spec.first_boot is not None:
            common.put(seed, "etc/ec2lab/first-boot", f"{spec.first_boot}\n")
        common.write_user(seed, spec)

    def start(self, instance_id: str) -> None:
        with self._starting:  # so that two launches do not count on the same memory
            super().start(instance_id)

    def command(self, instance_id: str, facts: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
        base = vm_image.load(facts["image"])
        size = facts["memory_mib"] or memory.DEFAULT_CAP_MIB
        available = memory.available_mib() - memory.OVERHEAD_MIB
        if size > available:
            raise NoCapacity(
                f"{instance_id} is a virtual machine with {size} MiB of memory and the host can give "
                f"{max(0, available)} MiB: terminate instances, or launch it with less by the tag ec2lab:memory-mib, "
                "or as a container"
            )
        verdict = kvm.verdict()
        if not verdict.serves:
            log.info("%s: an emulated processor, since KVM does not serve: %s", instance_id, verdict.reason)
        namespace, link = names.namespace(self.lab, facts["vpc_id"]), names.node_link(instance_id)
        if not _has_link(namespace, link):
            raise LabError(f"{instance_id} cannot start: its link {link} is not in the network of {facts['vpc_id']}")
        plan = qemu.Plan(
            lab=self.lab,
            instance_id=instance_id,
            directory=self.of(instance_id),
            image=base,
            mac=facts["mac"],
            memory_mib=size,
            cpus=min(facts["cpus"] or DEFAULT_CPUS, os.cpu_count() or 1),
            accelerated=verdict.serves,
            uuid=_uuid(instance_id),
            instance_type=facts["instance_type"],
            root_volume_id=facts["root_volume_id"],
            volumes=tuple(self._volumes(instance_id).values()),
        )
        places = cgroups.create(self.lab, instance_id, own_share=True)
        return ["sh", str(LAUNCHER), *qemu.arguments(plan)], {
            "EC2LAB_CGROUPS": " ".join(str(group) for group in places.launcher),
            "EC2LAB_OFFSET": str(vm_image.PARTITION_START),
        }

    def is_ready(self, instance_id: str) -> bool:
        if not (self.of(instance_id) / "agent").exists():
            return False
        try:
            with connected(self.of(instance_id), "agent", 2.0) as agent:
                agent.synchronise()
                handle = agent.call("guest-file-open", path="/run/ec2lab/ready")
                agent.call("guest-file-close", handle=handle)
        except MonitorError:
            return False
        return True

    def stop(self, instance_id: str, timeout: float | None = None) -> None:
        """Presses the power button: the guest's init shuts it down."""
        if self.launcher(instance_id) is not None:
            try:
                with connected(self.of(instance_id), "qmp", MONITOR_S) as monitor:
                    monitor.greet()
                    monitor.call("system_powerdown")
            except MonitorError as error:
                log.info("%s: %s; its power goes off", instance_id, error)
            else:
                self.await_end(instance_id, STOP_S if timeout is None else timeout)
        self.power_off(instance_id)

    def reboot(self, instance_id: str) -> None:
        """Asks the guest's init; a guest that does not listen is reset, as EC2 does after some minutes."""
        if self.launcher(instance_id) is None:
            raise LabError(f"{instance_id} is not running, so it cannot reboot")
        try:
            self.run(instance_id, "rm -f /run/ec2lab/ready; systemctl --no-block reboot")
        except MonitorError as error:
            log.info("%s: %s; it is reset", instance_id, error)
            with connected(self.of(instance_id), "qmp", MONITOR_S) as monitor:
                monitor.greet()
                monitor.call("system_reset")

    def run(self, instance_id: str, script: str, timeout: float = AGENT_S) -> str:
        """Standard output of a shell script in the guest, as root; MonitorError when it fails or nobody answers."""
        with connected(self.of(instance_id), "agent", timeout) as agent:
            agent.synchronise()
            command = {"path": "/bin/sh", "arg": ["-c", script], "capture-output": True}
            pid = agent.call("guest-exec", **command)["pid"]
            deadline = time.monotonic() + timeout
            while not (status := agent.call("guest-exec-status", pid=pid))["exited"]:
                if time.monotonic() > deadline:
                    raise MonitorError(f"a script in {instance_id} did not end within {timeout:.0f} s: {script}")
                time.sleep(0.1)
        output, errors = (base64.b64decode(status.get(name, "")).decode() for name in ("out-data", "err-data"))
        if status.get("exitcode") != 0:
            raise MonitorError(f"a script in {instance_id} failed: {errors.strip() or status}")
        return output

    # Volumes

    def attach(self, instance_id: str, volume_id: str, path: Path, device_name: str) -> None:
        """Plugs a volume in: an NVMe device with the volume's id as serial number. `device_name` is only recorded."""
        volumes = self._volumes(instance_id)
        volume = volumes.get(volume_id)
        if volume is None:
            taken = {each.slot for each in volumes.values()}
            slot = next((slot for slot in qemu.volume_slots() if slot not in taken), None)
            if slot is None:
                raise LabError(f"{instance_id} has {len(volumes)} volumes already, and no slot for {volume_id}")
            volume = volumes[volume_id] = qemu.Volume(volume_id, path, slot)
            self._record(instance_id, volumes)
        if self.launcher(instance_id) is None:
            return
        with connected(self.of(instance_id), "qmp", MONITOR_S) as monitor:
            monitor.greet()
            nodes = {each["node-name"] for each in monitor.call("query-named-block-nodes")}
            if volume.node not in nodes:
                file = {"driver": "file", "filename": str(path), "cache": {"no-flush": True}}
                options = {"driver": "raw", "discard": "unmap", "cache": {"no-flush": True}, "file": file}
                monitor.call("blockdev-add", **{"node-name": volume.node}, **options)
            if volume.node not in {each["name"] for each in monitor.call("qom-list", path="/machine/peripheral")}:
                monitor.call(
                    "device_add",
                    driver="nvme",
                    id=volume.node,
                    drive=volume.node,
                    serial=volume.node,
                    bus=qemu.slot_name(volume.slot),
                )

    def detach(self, instance_id: str, volume_id: str, force: bool = False) -> None:
        """Pulls a volume out; Timeout when the guest does not let go. Does nothing when it is not attached."""
        volumes = self._volumes(instance_id)
        volume = volumes.get(volume_id)
        if volume is None:
            return
        if self.launcher(instance_id) is not None:
            if not force:
                self._refuse_mounted(instance_id, volume)
            with connected(self.of(instance_id), "qmp", MONITOR_S) as monitor:
                monitor.greet()

                def plugged() -> bool:
                    listed = monitor.call("qom-list", path="/machine/peripheral")
                    return volume.node in {each["name"] for each in listed}

                deadline = time.monotonic() + UNPLUG_S
                asked = 0.0
                while plugged():
                    if time.monotonic() > deadline:
                        raise Timeout(f"{instance_id} did not let go of {volume_id} within {UNPLUG_S:.0f} s")
                    if time.monotonic() - asked > 10:  # a guest that is booting does not hear it the first time
                        monitor.call("device_del", id=volume.node)
                        asked = time.monotonic()
                    time.sleep(0.1)
                while volume.node in {each["node-name"] for each in monitor.call("query-named-block-nodes")}:
                    try:
                        monitor.call("blockdev-del", **{"node-name": volume.node})
                    except MonitorError:  # the device that used it is on its way out
                        if time.monotonic() > deadline:
                            raise
                        time.sleep(0.1)
        del volumes[volume_id]
        self._record(instance_id, volumes)

    def grown(self, instance_id: str, volume_id: str) -> None:
        """Shows the guest the new size of the volume's file. Busy while it is mounted: QEMU's NVMe devices read their
        size when they are plugged in, so the disk is pulled out and plugged in again. A start reads the size too.
        """
        volume = self._volumes(instance_id).get(volume_id)
        if volume is not None and self.launcher(instance_id) is not None:
            self.detach(instance_id, volume_id)
            self.attach(instance_id, volume_id, volume.path, "")

    def _refuse_mounted(self, instance_id: str, volume: qemu.Volume) -> None:
        """QEMU pulls a mounted disk out as well; EC2 waits until the instance has unmounted it."""
        disk = f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume.node}"
        if self.run(instance_id, f"lsblk --noheadings --output MOUNTPOINTS {disk} 2>/dev/null || true").strip():
            raise Busy(f"{volume.volume_id} is mounted on {instance_id}")

    def _volumes(self, instance_id: str) -> dict[str, qemu.Volume]:
        try:
            listed = json.loads((self.of(instance_id) / "volumes.json").read_text())
        except FileNotFoundError:
            return {}
        return {name: qemu.Volume(name, Path(each["path"]), each["slot"]) for name, each in listed.items()}

    def _record(self, instance_id: str, volumes: dict[str, qemu.Volume]) -> None:
        listed = {name: {"path": str(each.path), "slot": each.slot} for name, each in volumes.items()}
        common.write(self.of(instance_id) / "volumes.json", json.dumps(listed, indent=1).encode(), 0o600)


def lacking() -> str | None:
    """Why this host cannot run virtual machines; None when it can."""
    missing = [program for program in (kvm.QEMU, "sfdisk") if shutil.which(program) is None]
    if missing:
        return (
            f"{' and '.join(missing)} {'are' if len(missing) > 1 else 'is'} missing: "
            "apt-get install --no-install-recommends qemu-system-x86 fdisk"
        )
    return vm_image.refusal()


def _uuid(instance_id: str) -> str:
    """As on EC2, where it begins with ec2."""
    text = "ec2" + common.machine_uuid(instance_id)[3:]
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _has_link(namespace: str, link: str) -> bool:
    return link in run(["ip", "-netns", namespace, "-brief", "link", "show"])
