"""What every kind of machine has: its description, its files, its process.

<state_dir>/machines/<instance id>/
    spec.json       what the machine is
    seed/           its own files, copied onto the disk at first boot, then removed
    disk.*          its disk, sparse; written last, so that a machine with a disk is complete
    pid             the launcher: process id and start time
    console.log
    volumes.json    the volumes that are attached
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import shutil
import subprocess
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from ec2lab import addresses, cgroups, image, names, trust
from ec2lab.errors import LabError, Timeout
from ec2lab.shell import run

State = Literal["running", "stopped"]
Kind = Literal["container", "vm"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# How much a disk may grow during its first boot; with less space a node would come up broken.
FREE_BYTES = 512 << 20
_UUIDS = uuid.UUID("3a9a4a35-8d0c-4a35-9c6b-0a8a8f5c1f2e")


@dataclass(frozen=True)
class MachineSpec:
    """What a machine is made from. Saved beside its disk, so that a later daemon can start it again."""

    instance_id: str
    vpc_id: str
    private_ip: str
    subnet_cidr: str
    mac: str
    hostname: str  # the instance's own name: ip-10-240-0-10
    domain: str = "ec2.internal"
    resolver: str = addresses.DNS
    authorized_keys: tuple[str, ...] = ()  # public keys in OpenSSH's format, for the user ubuntu
    user_data: bytes | None = None  # decoded; run once at first boot if it begins with #!
    disk_gib: int = 20
    memory_mib: int | None = None  # a container: limits of the whole machine; None: no limit
    cpus: int | None = None
    first_boot: int | None = None  # as a cloud image: cloud-init runs, and for so many seconds apt is locked
    kind: Kind = "container"
    instance_type: str = ""  # shown by a virtual machine's firmware
    root_volume_id: str = ""  # the serial number of a virtual machine's disk


class Machine(ABC):
    """One kind of machine; `Machines` describes the calls."""

    kind: ClassVar[Kind]
    disk_name: ClassVar[str]
    boot_patience_s: ClassVar[float]  # how long a slow host may take until SSH answers
    poll_s: ClassVar[float]  # how often it is asked meanwhile

    def __init__(self, lab: str, directory: Path) -> None:
        self.lab, self.directory = lab, directory

    @abstractmethod
    def base(self) -> image.Base:
        """The image that new machines are made from; LabError when there is none."""

    @abstractmethod
    def own_files(self, seed: Path, spec: MachineSpec) -> None:
        """Adds to the seed what only this kind of machine needs."""

    @abstractmethod
    def command(self, instance_id: str, facts: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
        """The launcher's arguments and environment; LabError when the machine cannot start."""

    @abstractmethod
    def is_ready(self, instance_id: str) -> bool:
        """Whether sshd has said in the machine that it listens."""

    @abstractmethod
    def stop(self, instance_id: str, timeout: float | None = None) -> None: ...

    @abstractmethod
    def reboot(self, instance_id: str) -> None: ...

    @abstractmethod
    def attach(self, instance_id: str, volume_id: str, path: Path, device_name: str) -> None: ...

    @abstractmethod
    def detach(self, instance_id: str, volume_id: str, force: bool = False) -> None: ...

    @abstractmethod
    def grown(self, instance_id: str, volume_id: str) -> None: ...

    def create(self, spec: MachineSpec) -> None:
        directory = self.of(spec.instance_id)
        if (directory / self.disk_name).exists():
            return
        base = self.base()
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        free = shutil.disk_usage(directory).free
        if free < FREE_BYTES:
            raise LabError(
                f"{self.directory} has {free >> 20} MiB free and a machine needs {FREE_BYTES >> 20} MiB: "
                "free some space, or terminate instances"
            )
        shutil.rmtree(directory / "seed", ignore_errors=True)
        write_seed(directory / "seed", spec)
        self.own_files(directory / "seed", spec)
        trust.add(directory / "seed", base.path / "skeleton", self.directory.parent)
        facts = asdict(spec) | {"user_data": None, "authorized_keys": list(spec.authorized_keys), "image": base.key}
        write(directory / "spec.json", json.dumps(facts, indent=1).encode(), 0o600)
        partial = directory / f".{self.disk_name}"
        run(["cp", "--sparse=always", "--reflink=auto", str(base.disk(spec.disk_gib)), str(partial)])
        os.truncate(partial, spec.disk_gib << 30)
        partial.rename(directory / self.disk_name)

    def delete(self, instance_id: str) -> None:
        self.power_off(instance_id)
        directory = self.of(instance_id)
        if directory.exists():
            wait_unmounted(directory / self.disk_name)
            (directory / self.disk_name).unlink(missing_ok=True)
            shutil.rmtree(directory)

    def start(self, instance_id: str) -> None:
        if self.state(instance_id) == "running":
            return
        directory = self.of(instance_id)
        facts = self.facts(instance_id)
        cgroups.kill(self.lab, instance_id)  # what a daemon started but was killed before recording
        namespace = names.namespace_path(self.lab, facts["vpc_id"])
        if not namespace.exists():
            raise LabError(f"{instance_id} cannot start: the network of {facts['vpc_id']} is not up")
        wait_unmounted(directory / self.disk_name)
        arguments, environment = self.command(instance_id, facts)
        environment |= {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
            "EC2LAB_DIR": str(directory),
            "EC2LAB_NETNS": str(namespace),
        }
        with (directory / "console.log").open("ab") as console:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env=environment,
                cwd="/",
                start_new_session=True,
            )
        write(directory / "pid", f"{process.pid} {start_time(process.pid)}".encode(), 0o600)

    def wait_ready(self, instance_id: str, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not self.is_ready(instance_id):
            if self.launcher(instance_id) is None:
                raise LabError(
                    f"{instance_id} ended while it booted. Its console's end:\n{self.console_end(instance_id)}"
                )
            if time.monotonic() > deadline:
                raise Timeout(
                    f"{instance_id} did not answer by SSH within {timeout:.0f} s. "
                    f"Its console's end:\n{self.console_end(instance_id)}"
                )
            time.sleep(self.poll_s)

    def power_off(self, instance_id: str) -> None:
        cgroups.kill(self.lab, instance_id)
        self.clear(instance_id)
        cgroups.remove(self.lab, instance_id)

    def clear(self, instance_id: str) -> None:
        """After a kill, cleans up what the launcher would have cleaned up itself."""
        (self.of(instance_id) / "pid").unlink(missing_ok=True)

    def state(self, instance_id: str) -> State | None:
        if not (self.of(instance_id) / self.disk_name).exists():
            return None
        return "running" if self.launcher(instance_id) is not None else "stopped"

    def of(self, instance_id: str) -> Path:
        if "/" in instance_id or instance_id.startswith("."):
            raise LabError(f"{instance_id!r} is not an instance id")
        return self.directory / instance_id

    def facts(self, instance_id: str) -> dict[str, Any]:
        try:
            facts: dict[str, Any] = json.loads((self.of(instance_id) / "spec.json").read_text())
        except FileNotFoundError:
            raise LabError(f"there is no machine {instance_id} in lab {self.lab}") from None
        return facts

    def launcher(self, instance_id: str) -> int | None:
        """The launcher's process id while it runs; its start time tells it from a later process with the same id."""
        try:
            pid, started = (self.of(instance_id) / "pid").read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        with contextlib.suppress(ChildProcessError):
            os.waitpid(int(pid), os.WNOHANG)  # our child if this daemon started it, otherwise init's
        return int(pid) if start_time(int(pid)) == started else None

    def await_end(self, instance_id: str, timeout: float) -> None:
        """Returns when the machine's process has ended, or after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while self.launcher(instance_id) is not None and time.monotonic() < deadline:
            time.sleep(0.02)

    def console_end(self, instance_id: str) -> str:
        try:
            lines = (self.of(instance_id) / "console.log").read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return "(no output)"
        return "\n".join(lines[-15:])


def machine_uuid(instance_id: str) -> str:
    return uuid.uuid5(_UUIDS, instance_id).hex


def write(path: Path, content: bytes, mode: int) -> None:
    """Writes a file atomically."""
    partial = path.with_name(f".{path.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(content)
    partial.rename(path)


def put(seed: Path, name: str, content: str | bytes, mode: int = 0o644) -> None:
    """Writes a file of the seed."""
    path = seed / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, content.encode() if isinstance(content, str) else content, mode)


def write_seed(seed: Path, spec: MachineSpec) -> None:
    """Writes the files that differ between nodes."""
    network = ipaddress.IPv4Network(spec.subnet_cidr)
    if ipaddress.IPv4Address(spec.private_ip) not in network:
        raise LabError(f"the address {spec.private_ip} is not in its subnet {spec.subnet_cidr}")

    put(seed, "etc/hostname", f"{spec.hostname}\n")
    put(seed, "etc/machine-id", f"{machine_uuid(spec.instance_id)}\n", 0o444)
    # Its own name resolves to its private address, as with EC2's name server, and not to a link-local one.
    own = f"{spec.private_ip} {spec.hostname}.{spec.domain} {spec.hostname}"
    put(seed, "etc/hosts", f"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n{own}\n")
    put(seed, "var/lib/cloud/data/instance-id", f"{spec.instance_id}\n")
    for kind in ("ed25519", "ecdsa"):
        key = seed / f"etc/ssh/ssh_host_{kind}_key"
        key.parent.mkdir(parents=True, exist_ok=True)
        run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", f"root@{spec.hostname}", "-f", str(key)])


def write_user(seed: Path, spec: MachineSpec) -> None:
    """Writes what cloud-init would ask the metadata service for."""
    if spec.user_data is not None:
        put(seed, "var/lib/cloud/instance/user-data.txt", spec.user_data, 0o600)
    if spec.authorized_keys:
        keys = "".join(f"{key.strip()}\n" for key in spec.authorized_keys)
        put(seed, "home/ubuntu/.ssh/authorized_keys", keys, 0o600)
        for path in (seed / "home/ubuntu", seed / "home/ubuntu/.ssh", seed / "home/ubuntu/.ssh/authorized_keys"):
            os.chown(path, 1000, 1000)
        (seed / "home/ubuntu/.ssh").chmod(0o700)
        (seed / "home/ubuntu").chmod(0o750)


def start_time(pid: int) -> str | None:
    """When a process began, in the kernel's ticks; None when it is gone or only waits to be reaped."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return None if fields[0] in ("Z", "X") else fields[19]


def _loops(disk: Path) -> Iterator[str]:
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if backing.read_text().strip().removesuffix(" (deleted)") == str(disk):
                yield backing.parts[3]


def wait_unmounted(disk: Path, timeout: float = 20.0) -> None:
    """Waits until no loop device uses the disk: the kernel releases it a moment after a killed machine's end."""
    deadline = time.monotonic() + timeout
    while devices := list(_loops(disk)):
        if time.monotonic() > deadline:
            raise Timeout(f"{', '.join(devices)} still holds {disk} {timeout:.0f} s after the machine's end")
        time.sleep(0.01)
