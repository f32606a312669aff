"""The machines of a lab, whatever their kind."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from ec2lab import cgroups, names
from ec2lab.errors import LabError
from ec2lab.machine.common import Kind, Machine, MachineSpec, State
from ec2lab.machine.container import Container
from ec2lab.machine.vm import VirtualMachine
from ec2lab.volumes import Volumes


class Machines:
    """The machines of one lab, kept under `state_dir`/machines/<instance id>.

    They run as separate processes: they outlive the daemon, and the next daemon finds them. Calls for different
    instances may run at the same time; calls for one instance must not.
    """

    def __init__(self, lab_name: str, state_dir: Path) -> None:
        self.lab = names.check_lab_name(lab_name)
        self.directory = state_dir.resolve() / "machines"
        self._volumes = Volumes(state_dir)
        self._container = Container(self.lab, self.directory)
        self._vm = VirtualMachine(self.lab, self.directory)

    # Making and removing

    def create(self, spec: MachineSpec) -> None:
        """Makes the machine's disk from the base image, but does not start it. Replaces a half-made disk."""
        self._kind(spec.kind).create(spec)

    def delete(self, instance_id: str) -> None:
        """Powers the machine off and removes its disk; does nothing if there is no such machine."""
        self._of(instance_id).delete(instance_id)

    def destroy(self) -> None:
        """Ends and removes every machine of the lab, also cgroups and processes without a record."""
        recorded = {path.name for path in self.directory.iterdir()} if self.directory.is_dir() else set()
        everything = sorted(recorded | cgroups.instances(self.lab))
        # Kill all machines first, then clean up: they end faster together than one after the other.
        for instance_id in everything:
            for pid in cgroups.processes(self.lab, instance_id):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for instance_id in everything:
            self.delete(instance_id)
        cgroups.remove(self.lab)
        self._volumes.destroy()
        with contextlib.suppress(FileNotFoundError):
            self.directory.rmdir()

    # Running

    def start(self, instance_id: str) -> None:
        """Starts the machine if it is not running, and returns at once. Its node must be in the fabric."""
        self._of(instance_id).start(instance_id)

    def wait_ready(self, instance_id: str, timeout: float = 60.0) -> None:
        """Returns when SSH answers; raises Timeout, or LabError with the console's end if the machine ended."""
        self._of(instance_id).wait_ready(instance_id, timeout)

    def boot_patience(self, instance_id: str) -> float:
        """How many seconds a slow host may take from the start until SSH answers."""
        return self._of(instance_id).boot_patience_s

    def stop(self, instance_id: str, timeout: float | None = None) -> None:
        """Shuts the machine down through its own init, and kills it after `timeout` seconds. The disk stays."""
        self._of(instance_id).stop(instance_id, timeout)

    def power_off(self, instance_id: str) -> None:
        """Kills every process of the machine at once, as if it lost power."""
        self._of(instance_id).power_off(instance_id)

    def reboot(self, instance_id: str) -> None:
        """Reboots through the machine's own init and returns at once."""
        self._of(instance_id).reboot(instance_id)

    # Volumes

    def attach(self, instance_id: str, volume_id: str, path: Path, device_name: str) -> None:
        """Gives the machine the disk in `path`, a running one at once; does nothing if it has it already."""
        self._of(instance_id).attach(instance_id, volume_id, path, device_name)

    def detach(self, instance_id: str, volume_id: str, force: bool = False) -> None:
        """Takes the disk away; raises Busy while the machine has it mounted. Does nothing if it is not there."""
        self._of(instance_id).detach(instance_id, volume_id, force)

    def grown(self, instance_id: str, volume_id: str) -> None:
        """Tells the machine that the disk's file is larger now."""
        self._of(instance_id).grown(instance_id, volume_id)

    # Reading

    def kind(self, instance_id: str) -> Kind:
        """The machine's kind; of what has no record, that of most machines."""
        if not (self._container.of(instance_id) / "spec.json").exists():
            return "container"
        facts = self._container.facts(instance_id)
        kind: Kind = facts.get("kind", "container")  # a lab of an older version has no other
        return kind

    def state(self, instance_id: str) -> State | None:
        """The machine's state, None if there is no such machine. Notices one that powered itself off."""
        return self._of(instance_id).state(instance_id)

    def known(self) -> dict[str, MachineSpec]:
        """Every machine that has a disk, running or not, also an earlier daemon's; without user data."""
        found = {}
        if self.directory.is_dir():
            for directory in sorted(self.directory.iterdir()):
                machine = self._of(directory.name)
                if (directory / machine.disk_name).exists():
                    facts = machine.facts(directory.name)
                    facts.pop("image")
                    facts["authorized_keys"] = tuple(facts["authorized_keys"])
                    found[directory.name] = MachineSpec(**facts)
        return found

    def console_path(self, instance_id: str) -> Path:
        """The file that holds the machine's console output."""
        return self._container.of(instance_id) / "console.log"

    def init_pid(self, instance_id: str) -> int | None:
        """The process id on the host of a container's init; None while it is not running, and of a virtual machine."""
        return self._container.init_pid(instance_id) if self.kind(instance_id) == "container" else None

    def run_in_guest(self, instance_id: str, script: str) -> str:
        """Standard output of a shell script that a virtual machine's agent runs as root."""
        return self._vm.run(instance_id, script)

    # Internal

    def _of(self, instance_id: str) -> Machine:
        return self._kind(self.kind(instance_id))

    def _kind(self, kind: Kind) -> Machine:
        for machine in (self._container, self._vm):
            if machine.kind == kind:
                return machine
        raise LabError(f"there is no kind of machine {kind!r}")
