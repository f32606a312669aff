"""Instances as machines: each a systemd-nspawn container that boots its own init.

<state_dir>/machines/<instance id>/
    spec.json       what the machine is
    seed/           its own files, copied onto the disk at first boot, then removed
    disk.ext4       its disk, sparse; written last, so that a machine with a disk is complete
    root/           where the disk is mounted, in the launcher's mount namespace only
    pid             the launcher: process id and start time
    console.log
    volumes.json    the volumes that are attached, see `attached`
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ec2lab import addresses, cgroups, image, names
from ec2lab.attached import Attachments
from ec2lab.errors import LabError, Timeout
from ec2lab.shell import run
from ec2lab.volumes import Volumes, resized

State = Literal["running", "stopped"]
LAUNCHER = Path(__file__).parent / "launcher.sh"
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
    memory_mib: int | None = None  # limits of the whole machine; None: no limit
    cpus: int | None = None
    first_boot: int | None = None  # as a cloud image: cloud-init runs, and for so many seconds apt is locked


class Machines:
    """The machines of one lab, kept under `state_dir`/machines/<instance id>.

    They run as separate processes: they outlive the daemon, and the next daemon finds them. Calls for different
    instances may run at the same time; calls for one instance must not.
    """

    def __init__(self, lab_name: str, state_dir: Path) -> None:
        self.lab = names.check_lab_name(lab_name)
        self.directory = state_dir.resolve() / "machines"
        self._volumes = Volumes(state_dir)
        self._image: image.Image | None = None

    # Making and removing

    def create(self, spec: MachineSpec) -> None:
        """Makes the machine's disk from the base image, but does not start it. Replaces a half-made disk."""
        directory = self._of(spec.instance_id)
        if (directory / "disk.ext4").exists():
            return
        # Asked once: a lab keeps its image while it is up, even if a newer recipe is installed meanwhile.
        base = self._image = self._image or image.cached_image()
        if base is None:
            raise LabError("the nodes' image is not made yet: `ec2lab up` makes it")
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        free = shutil.disk_usage(directory).free
        if free < FREE_BYTES:
            raise LabError(
                f"{self.directory} has {free >> 20} MiB free and a machine needs {FREE_BYTES >> 20} MiB: "
                "free some space, or terminate instances"
            )
        shutil.rmtree(directory / "seed", ignore_errors=True)
        _write_seed(directory / "seed", spec)
        facts = asdict(spec) | {"user_data": None, "authorized_keys": list(spec.authorized_keys), "image": base.key}
        _write(directory / "spec.json", json.dumps(facts, indent=1).encode(), 0o600)
        partial = directory / ".disk.ext4"
        run(["cp", "--sparse=always", "--reflink=auto", str(base.disk(spec.disk_gib)), str(partial)])
        partial.rename(directory / "disk.ext4")

    def delete(self, instance_id: str) -> None:
        """Powers the machine off and removes its disk; does nothing if there is no such machine."""
        self.power_off(instance_id)
        directory = self._of(instance_id)
        if directory.exists():
            _wait_unmounted(directory / "disk.ext4")
            (directory / "disk.ext4").unlink(missing_ok=True)
            shutil.rmtree(directory)

    def destroy(self) -> None:
        """Ends and removes every machine of the lab, also cgroups and processes without a record."""
        recorded = {path.name for path in self.directory.iterdir()} if self.directory.is_dir() else set()
        everything = sorted(recorded | cgroups.instances(self.lab))
        # Kill all machines first, then clean up: they end faster together than one after the other.
        for instance_id in everything:
            self._signal_all(instance_id, signal.SIGKILL)
        for instance_id in everything:
            self.delete(instance_id)
        cgroups.remove(self.lab)
        self._volumes.destroy()
        with contextlib.suppress(FileNotFoundError):
            self.directory.rmdir()

    # Running

    def start(self, instance_id: str) -> None:
        """Starts the machine if it is not running, and returns at once. Its node must be in the fabric."""
        if self.state(instance_id) == "running":
            return
        directory = self._of(instance_id)
        facts = self._facts(instance_id)
        base = image.load(facts["image"])
        cgroups.kill(self.lab, instance_id)  # what a daemon started but was killed before recording
        namespace = names.namespace_path(self.lab, facts["vpc_id"])
        if not namespace.exists():
            raise LabError(f"{instance_id} cannot start: the network of {facts['vpc_id']} is not up")
        _wait_unmounted(directory / "disk.ext4")
        Attachments(directory).present()
        places = cgroups.create(self.lab, instance_id, facts["memory_mib"], facts["cpus"])
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
            "EC2LAB_ID": instance_id,
            "EC2LAB_DIR": str(directory),
            "EC2LAB_USR": str(base.usr),
            "EC2LAB_CGROUPS": " ".join(str(group) for group in places.launcher),
            "EC2LAB_NODE_CGROUPS": " ".join(str(group) for group in places.node),
            "EC2LAB_NETNS": str(namespace),
            "EC2LAB_PLUG": names.node_plug(instance_id),
            "EC2LAB_DEVICE": names.NODE_DEVICE,
            "EC2LAB_ADDRESS": f"{facts['private_ip']}/{addresses.prefix_length(facts['subnet_cidr'])}",
            "EC2LAB_ROUTER": addresses.router(facts["subnet_cidr"]),
            "EC2LAB_HOSTNAME": facts["hostname"],
            "EC2LAB_UUID": _machine_uuid(instance_id),
        }
        with (directory / "console.log").open("ab") as console:
            process = subprocess.Popen(
                ["sh", str(LAUNCHER), "start"],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                env=environment,
                cwd="/",
                start_new_session=True,
            )
        _write(directory / "pid", f"{process.pid} {_start_time(process.pid)}".encode(), 0o600)

    def wait_ready(self, instance_id: str, timeout: float = 60.0) -> None:
        """Returns when SSH answers; raises Timeout, or LabError with the console's end if the machine ended."""
        deadline = time.monotonic() + timeout
        while True:
            init = self.init_pid(instance_id)
            # In the node's own root: this file exists once its sshd has told systemd that it listens.
            if init is not None and os.path.exists(f"/proc/{init}/root/run/ec2lab/ready"):  # noqa: PTH110 - a magic link
                return
            if self._launcher(instance_id) is None:
                raise LabError(
                    f"{instance_id} ended while it booted. Its console's end:\n{self._console_end(instance_id)}"
                )
            if time.monotonic() > deadline:
                raise Timeout(
                    f"{instance_id} did not answer by SSH within {timeout:.0f} s. "
                    f"Its console's end:\n{self._console_end(instance_id)}"
                )
            time.sleep(0.03)

    def stop(self, instance_id: str, timeout: float = 30.0) -> None:
        """Shuts the machine down through its own init, and kills it after `timeout` seconds. The disk stays."""
        init = self.init_pid(instance_id)
        if init is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(init, signal.SIGRTMIN + 4)  # systemd(1): power off
            deadline = time.monotonic() + timeout
            while self._launcher(instance_id) is not None and time.monotonic() < deadline:
                time.sleep(0.02)
        self.power_off(instance_id)

    def power_off(self, instance_id: str) -> None:
        """Kills every process of the machine at once, as if it lost power."""
        cgroups.kill(self.lab, instance_id)
        self._clear(instance_id)
        Attachments(self._of(instance_id)).absent()
        cgroups.remove(self.lab, instance_id)

    def reboot(self, instance_id: str) -> None:
        """Reboots through the machine's own init and returns at once."""
        init = self.init_pid(instance_id)
        if init is None:
            raise LabError(f"{instance_id} is not running, so it cannot reboot")
        with contextlib.suppress(FileNotFoundError):
            Path(f"/proc/{init}/root/run/ec2lab/ready").unlink()
        os.kill(init, signal.SIGRTMIN + 5)  # systemd(1): reboot

    # Volumes

    def attach(self, instance_id: str, volume_id: str, path: Path, device_name: str) -> None:
        """Gives the machine the disk in `path`, a running one at once; does nothing if it has it already."""
        Attachments(self._of(instance_id)).add(volume_id, path, device_name, self._booted(instance_id))

    def detach(self, instance_id: str, volume_id: str, force: bool = False) -> None:
        """Takes the disk away; raises Busy while the machine has it mounted. Does nothing if it is not there."""
        Attachments(self._of(instance_id)).remove(volume_id, self._booted(instance_id), force)

    def grown(self, instance_id: str, volume_id: str) -> None:
        """Tells the machine that the disk's file is larger now."""
        there = Attachments(self._of(instance_id)).all()
        if volume_id in there:
            resized(Path(there[volume_id].path))

    def _booted(self, instance_id: str, timeout: float = 20.0) -> int | None:
        """The node's init, None when the machine is off; waits for one that reboots just now."""
        deadline = time.monotonic() + timeout
        while (init := self.init_pid(instance_id)) is None and self._launcher(instance_id) is not None:
            if time.monotonic() > deadline:
                raise Timeout(f"{instance_id} runs and had no init for {timeout:.0f} s")
            time.sleep(0.02)
        return init

    # Reading

    def state(self, instance_id: str) -> State | None:
        """The machine's state, None if there is no such machine. Notices one that powered itself off."""
        if not (self._of(instance_id) / "disk.ext4").exists():
            return None
        return "running" if self._launcher(instance_id) is not None else "stopped"

    def known(self) -> dict[str, MachineSpec]:
        """Every machine that has a disk, running or not, also an earlier daemon's; without user data."""
        found = {}
        if self.directory.is_dir():
            for directory in sorted(self.directory.iterdir()):
                if (directory / "disk.ext4").exists():
                    facts = self._facts(directory.name)
                    facts.pop("image")
                    facts["authorized_keys"] = tuple(facts["authorized_keys"])
                    found[directory.name] = MachineSpec(**facts)
        return found

    def console_path(self, instance_id: str) -> Path:
        """The file that holds the machine's console output."""
        return self._of(instance_id) / "console.log"

    def init_pid(self, instance_id: str) -> int | None:
        """The process id of the node's init on the host; None while it is not running."""
        launcher = self._launcher(instance_id)
        if launcher is None:
            return None
        for nspawn in _children(launcher):
            for child in _children(nspawn):
                if _namespace_pid(child) == 1:
                    return child
        return None

    # Internal

    def _of(self, instance_id: str) -> Path:
        if "/" in instance_id or instance_id.startswith("."):
            raise LabError(f"{instance_id!r} is not an instance id")
        return self.directory / instance_id

    def _facts(self, instance_id: str) -> dict[str, Any]:
        try:
            facts: dict[str, Any] = json.loads((self._of(instance_id) / "spec.json").read_text())
        except FileNotFoundError:
            raise LabError(f"there is no machine {instance_id} in lab {self.lab}") from None
        return facts

    def _launcher(self, instance_id: str) -> int | None:
        """The launcher's process id while it runs; its start time tells it from a later process with the same id."""
        try:
            pid, started = (self._of(instance_id) / "pid").read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        with contextlib.suppress(ChildProcessError):
            os.waitpid(int(pid), os.WNOHANG)  # our child if this daemon started it, otherwise init's
        return int(pid) if _start_time(int(pid)) == started else None

    def _signal_all(self, instance_id: str, number: signal.Signals) -> None:
        for pid in cgroups.processes(self.lab, instance_id):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _clear(self, instance_id: str) -> None:
        """After a kill, cleans up what the launcher would have cleaned up itself."""
        with contextlib.suppress(FileNotFoundError):
            facts = json.loads((self._of(instance_id) / "spec.json").read_text())
            namespace = names.namespace(self.lab, facts["vpc_id"])
            link = names.node_link(instance_id)
            if (self._of(instance_id) / "pid").exists() and (names.NETNS_DIR / namespace).exists():
                run(["ip", "-netns", namespace, "link", "delete", "dev", link], check=False)
        (self._of(instance_id) / "pid").unlink(missing_ok=True)

    def _console_end(self, instance_id: str) -> str:
        try:
            lines = self.console_path(instance_id).read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return "(no output)"
        return "\n".join(lines[-15:])


def _machine_uuid(instance_id: str) -> str:
    return uuid.uuid5(_UUIDS, instance_id).hex


def _write(path: Path, content: bytes, mode: int) -> None:
    """Writes a file atomically."""
    partial = path.with_name(f".{path.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(content)
    partial.rename(path)


def _write_seed(seed: Path, spec: MachineSpec) -> None:
    """Writes the files that differ between nodes."""
    network = ipaddress.IPv4Network(spec.subnet_cidr)
    if ipaddress.IPv4Address(spec.private_ip) not in network:
        raise LabError(f"the address {spec.private_ip} is not in its subnet {spec.subnet_cidr}")

    def put(name: str, content: str | bytes, mode: int = 0o644) -> None:
        path = seed / name
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, content.encode() if isinstance(content, str) else content, mode)

    put("etc/hostname", f"{spec.hostname}\n")
    put("etc/machine-id", f"{_machine_uuid(spec.instance_id)}\n", 0o444)
    # Its own name resolves to its private address, as with EC2's name server, and not to a link-local one.
    own = f"{spec.private_ip} {spec.hostname}.{spec.domain} {spec.hostname}"
    put("etc/hosts", f"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n{own}\n")
    put("etc/resolv.conf", f"nameserver {spec.resolver}\nsearch {spec.domain}\noptions edns0 trust-ad\n")
    put("var/lib/cloud/data/instance-id", f"{spec.instance_id}\n")
    if spec.first_boot is None:
        put("etc/cloud/cloud-init.disabled", "")
        for unit in image.FIRST_BOOT:
            mask = seed / "etc/systemd/system" / unit
            mask.parent.mkdir(parents=True, exist_ok=True)
            mask.symlink_to("/dev/null")
    else:
        put("etc/ec2lab/first-boot", f"{spec.first_boot}\n")
    # cloud-init asks the metadata service for these two.
    if spec.user_data is not None and spec.first_boot is None:
        put("var/lib/cloud/instance/user-data.txt", spec.user_data, 0o600)
    for kind in ("ed25519", "ecdsa"):
        key = seed / f"etc/ssh/ssh_host_{kind}_key"
        key.parent.mkdir(parents=True, exist_ok=True)
        run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", f"root@{spec.hostname}", "-f", str(key)])
    if spec.authorized_keys and spec.first_boot is None:
        put("home/ubuntu/.ssh/authorized_keys", "".join(f"{key.strip()}\n" for key in spec.authorized_keys), 0o600)
        for path in (seed / "home/ubuntu", seed / "home/ubuntu/.ssh", seed / "home/ubuntu/.ssh/authorized_keys"):
            os.chown(path, 1000, 1000)
        (seed / "home/ubuntu/.ssh").chmod(0o700)
        (seed / "home/ubuntu").chmod(0o750)


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


def _start_time(pid: int) -> str | None:
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


def _wait_unmounted(disk: Path, timeout: float = 20.0) -> None:
    """Waits until no loop device uses the disk: the kernel releases it a moment after a killed machine's end."""
    deadline = time.monotonic() + timeout
    while devices := list(_loops(disk)):
        if time.monotonic() > deadline:
            raise Timeout(f"{', '.join(devices)} still holds {disk} {timeout:.0f} s after the machine's end")
        time.sleep(0.01)
