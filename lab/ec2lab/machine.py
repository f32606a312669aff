"""Instances as machines: each a systemd-nspawn container that boots its own init."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ec2lab import names

State = Literal["running", "stopped"]


@dataclass(frozen=True)
class MachineSpec:
    """What a machine is made from. Persisted beside its disk, so that a later daemon can start it again."""

    instance_id: str
    vpc_id: str
    private_ip: str
    subnet_cidr: str
    mac: str
    hostname: str  # as the instance sees itself: ip-10-240-0-10
    domain: str = "ec2.internal"
    authorized_keys: tuple[str, ...] = ()  # public keys in OpenSSH's format, for the user ubuntu
    user_data: bytes | None = None  # decoded; run once at first boot where it begins with #!
    disk_gib: int = 20
    memory_mib: int | None = None  # None: as much as the host has
    cpus: int | None = None


class Machines:
    """The machines of one lab, kept under `state_dir`/machines/<instance id>.

    They are processes of their own: they outlive the daemon, and the next one finds them.
    """

    def __init__(self, lab_name: str, state_dir: Path) -> None:
        self.lab = names.check_lab_name(lab_name)
        self.directory = state_dir / "machines"

    def create(self, spec: MachineSpec) -> None:
        """Makes the machine's disk from the base image, but does not start it. A half-made one is made again."""
        raise NotImplementedError

    def start(self, instance_id: str) -> None:
        """Starts the machine and returns at once; nothing to do where it runs. Its node must be in the fabric."""
        raise NotImplementedError

    def wait_ready(self, instance_id: str, timeout: float = 60.0) -> None:
        """Returns when SSH answers; raises Timeout, or LabError with the console's end where the machine ended."""
        raise NotImplementedError

    def stop(self, instance_id: str, timeout: float = 30.0) -> None:
        """Shuts the machine down through its own init; after `timeout` s, by force. The disk stays."""
        raise NotImplementedError

    def power_off(self, instance_id: str) -> None:
        """Pulls the plug: ends every process of the machine at once."""
        raise NotImplementedError

    def reboot(self, instance_id: str) -> None:
        """Reboots through the machine's own init and returns at once."""
        raise NotImplementedError

    def delete(self, instance_id: str) -> None:
        """Powers off and removes the disk; nothing to do where there is no such machine."""
        raise NotImplementedError

    def state(self, instance_id: str) -> State | None:
        """None: no such machine. Notices one that powered itself off."""
        raise NotImplementedError

    def known(self) -> dict[str, MachineSpec]:
        """Every machine that has a disk, running or not, also those of an earlier daemon."""
        raise NotImplementedError

    def console_path(self, instance_id: str) -> Path:
        """The file that holds the machine's console output."""
        return self.directory / instance_id / "console.log"

    def destroy(self) -> None:
        """Ends and removes every machine of the lab, cgroups and processes without a record included."""
        raise NotImplementedError
