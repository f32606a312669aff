"""A machine as a systemd-nspawn container that boots its own init; it shares the host's kernel.

Its directory also has `root/`, where the disk is mounted, in the launcher's mount namespace only.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from ec2lab import addresses, cgroups, image, names
from ec2lab.attached import Attachments
from ec2lab.errors import LabError, Timeout
from ec2lab.machine import common
from ec2lab.shell import run
from ec2lab.volumes import resized

LAUNCHER = Path(__file__).parent.parent / "launcher.sh"
STOP_S = 30.0


class Container(common.Machine):
    kind = "container"
    disk_name = "disk.ext4"
    boot_patience_s = 120.0
    poll_s = 0.03

    def __init__(self, lab: str, directory: Path) -> None:
        super().__init__(lab, directory)
        self._image: image.Image | None = None

    def base(self) -> image.Image:
        # Asked once: a lab keeps its image while it is up, even if a newer recipe is installed meanwhile.
        base = self._image = self._image or image.cached_image()
        if base is None:
            raise LabError("the nodes' image is not made yet: `ec2lab up` makes it")
        return base

    def own_files(self, seed: Path, spec: common.MachineSpec) -> None:
        common.put(
            seed, "etc/resolv.conf", f"nameserver {spec.resolver}\nsearch {spec.domain}\noptions edns0 trust-ad\n"
        )
        if spec.first_boot is not None:
            common.put(seed, "etc/ec2lab/first-boot", f"{spec.first_boot}\n")
            return
        common.put(seed, "etc/cloud/cloud-init.disabled", "")
        for unit in image.FIRST_BOOT:
            mask = seed / "etc/systemd/system" / unit
            mask.parent.mkdir(parents=True, exist_ok=True)
            mask.symlink_to("/dev/null")
        common.write_user(seed, spec)

    def command(self, instance_id: str, facts: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
        base = image.load(facts["image"])
        Attachments(self.of(instance_id)).present()
        places = cgroups.create(self.lab, instance_id, facts["memory_mib"], facts["cpus"])
        return ["sh", str(LAUNCHER), "start"], {
            "EC2LAB_ID": instance_id,
            "EC2LAB_USR": str(base.usr),
            "EC2LAB_CGROUPS": " ".join(str(group) for group in places.launcher),
            "EC2LAB_NODE_CGROUPS": " ".join(str(group) for group in places.node),
            "EC2LAB_PLUG": names.node_plug(instance_id),
            "EC2LAB_DEVICE": names.NODE_DEVICE,
            "EC2LAB_ADDRESS": f"{facts['private_ip']}/{addresses.prefix_length(facts['subnet_cidr'])}",
            "EC2LAB_ROUTER": addresses.router(facts["subnet_cidr"]),
            "EC2LAB_HOSTNAME": facts["hostname"],
            "EC2LAB_UUID": common.machine_uuid(instance_id),
        }

    def is_ready(self, instance_id: str) -> bool:
        init = self.init_pid(instance_id)
        # In the node's own root: this file exists once its sshd has told systemd that it listens.
        return init is not None and os.path.exists(f"/proc/{init}/root/run/ec2lab/ready")  # noqa: PTH110 - a magic link

    def stop(self, instance_id: str, timeout: float | None = None) -> None:
        init = self.init_pid(instance_id)
        if init is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(init, signal.SIGRTMIN + 4)  # systemd(1): power off
            self.await_end(instance_id, STOP_S if timeout is None else timeout)
        self.power_off(instance_id)

    def reboot(self, instance_id: str) -> None:
        init = self.init_pid(instance_id)
        if init is None:
            raise LabError(f"{instance_id} is not running, so it cannot reboot")
        with contextlib.suppress(FileNotFoundError):
            Path(f"/proc/{init}/root/run/ec2lab/ready").unlink()
        os.kill(init, signal.SIGRTMIN + 5)  # systemd(1): reboot

    def power_off(self, instance_id: str) -> None:
        cgroups.kill(self.lab, instance_id)
        self.clear(instance_id)
        Attachments(self.of(instance_id)).absent()
        cgroups.remove(self.lab, instance_id)

    def attach(self, instance_id: str, volume_id: str, path: Path, device_name: str) -> None:
        Attachments(self.of(instance_id)).add(volume_id, path, device_name, self._booted(instance_id))

    def detach(self, instance_id: str, volume_id: str, force: bool = False) -> None:
        Attachments(self.of(instance_id)).remove(volume_id, self._booted(instance_id), force)

    def grown(self, instance_id: str, volume_id: str) -> None:
        there = Attachments(self.of(instance_id)).all()
        if volume_id in there:
            resized(Path(there[volume_id].path))

    def _booted(self, instance_id: str, timeout: float = 20.0) -> int | None:
        """The node's init, None when the machine is off; waits for one that reboots just now."""
        deadline = time.monotonic() + timeout
        while (init := self.init_pid(instance_id)) is None and self.launcher(instance_id) is not None:
            if time.monotonic() > deadline:
                raise Timeout(f"{instance_id} runs and had no init for {timeout:.0f} s")
            time.sleep(0.02)
        return init

    def init_pid(self, instance_id: str) -> int | None:
        """The process id of the node's init on the host; None while it is not running."""
        launcher = self.launcher(instance_id)
        if launcher is None:
            return None
        for nspawn in _children(launcher):
            for child in _children(nspawn):
                if _namespace_pid(child) == 1:
                    return child
        return None

    def clear(self, instance_id: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            facts = json.loads((self.of(instance_id) / "spec.json").read_text())
            namespace = names.namespace(self.lab, facts["vpc_id"])
            link = names.node_link(instance_id)
            if (self.of(instance_id) / "pid").exists() and (names.NETNS_DIR / namespace).exists():
                run(["ip", "-netns", namespace, "link", "delete", "dev", link], check=False)
        super().clear(instance_id)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _namespace_pid(pid: int) -> int | None:
    """A process's id in the innermost process namespace that it is in."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1]) if len(line.split()) > 2 else None
    except (FileNotFoundError, ProcessLookupError):
        pass
    return None
