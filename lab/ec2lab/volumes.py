"""EBS volumes and snapshots as sparse files, and the loop devices through which a container has a volume as a disk.

<state_dir>/volumes/<volume id>.img
<state_dir>/snapshots/<snapshot id>.img

Made, grown and removed by name, so that a killed daemon's work is done again by the next one. Instances' root volumes
are not here: their disks belong to the machines.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
import zlib
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from ec2lab.errors import Busy, LabError, Timeout
from ec2lab.shell import run

GIB = 1 << 30
COPY_TIMEOUT_S = 600.0
_ID = re.compile(r"(?:vol|snap)-[0-9a-f]{8,17}")
# What udev makes of a Nitro controller's model and serial number, which is the volume's id without the dash.
# https://docs.aws.amazon.com/ebs/latest/userguide/nvme-ebs-volumes.html
BY_ID = "nvme-Amazon_Elastic_Block_Store_"
# /dev/nvme0n1 is the root volume's on Nitro.
NUMBERS = range(1, 28)


@dataclass(frozen=True)
class VolumeSpec:
    """A volume as its file is made: from a snapshot, or blank."""

    id: str
    gib: int
    snapshot_id: str = ""


class Volumes:
    """The volumes and snapshots of one lab. Calls for one volume must not run at the same time."""

    def __init__(self, state_dir: Path) -> None:
        self.directory = state_dir.resolve() / "volumes"
        self.snapshots = state_dir.resolve() / "snapshots"

    def path(self, volume_id: str) -> Path:
        return self.directory / f"{_checked(volume_id)}.img"

    def known(self) -> set[str]:
        """The ids of the volumes and snapshots that have a file."""
        return {path.stem for each in (self.directory, self.snapshots) if each.is_dir() for path in each.glob("*.img")}

    def create(self, spec: VolumeSpec) -> None:
        """Makes the volume's file; does nothing if it is there."""
        path = self.path(spec.id)
        if path.exists():
            return
        partial = _partial(path)
        if spec.snapshot_id:
            _copy(self._snapshot(spec.snapshot_id), partial)
        else:
            partial.touch(0o600)
        os.truncate(partial, spec.gib * GIB)
        partial.rename(path)

    def grow(self, volume_id: str, gib: int) -> None:
        """Makes the file larger; a smaller size is no change. Whoever has it attached has to be told."""
        path = self.path(volume_id)
        if path.stat().st_size < gib * GIB:
            os.truncate(path, gib * GIB)

    def delete(self, identifier: str) -> None:
        """Removes the file of a volume or a snapshot; does nothing if there is none."""
        path = self._snapshot(identifier) if identifier.startswith("snap-") else self.path(identifier)
        release(path)
        path.unlink(missing_ok=True)

    def snapshot(self, volume_id: str, snapshot_id: str) -> None:
        """Copies what has been written to the volume; does nothing if the snapshot is there."""
        path = self._snapshot(snapshot_id)
        if not path.exists():
            partial = _partial(path)
            _copy(self.path(volume_id), partial)
            partial.rename(path)

    def destroy(self) -> None:
        """Frees every loop device of the lab's volumes, recorded or not. The files go with the lab's directory."""
        if self.directory.is_dir():
            for path in self.directory.glob("*.img"):
                release(path)

    def _snapshot(self, snapshot_id: str) -> Path:
        return self.snapshots / f"{_checked(snapshot_id)}.img"


def _checked(identifier: str) -> str:
    if not _ID.fullmatch(identifier):
        raise LabError(f"{identifier!r} is not the id of a volume or a snapshot")
    return identifier


def _partial(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    return partial


def _copy(source: Path, target: Path) -> None:
    if not source.exists():
        raise LabError(f"{source} is missing: the volume or snapshot has no file")
    for device in loops(source):  # what a mounted file system has handed to the device and the file does not show yet
        with contextlib.suppress(OSError):
            descriptor = os.open(f"/dev/{device}", os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
    run(["cp", "--sparse=always", "--reflink=auto", str(source), str(target)], timeout=COPY_TIMEOUT_S)
    target.chmod(0o600)


# Loop devices


def loops(path: Path) -> list[str]:
    """The names of the loop devices that show this file; found by the file, so that every daemon finds them."""
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if backing.read_text().strip().removesuffix(" (deleted)") == str(path):
                found.append(backing.parts[3])
    return found


def loop(path: Path) -> str:
    """The name of the loop device that shows this file, which is made if there is none."""
    found = loops(path)
    if found:
        return found[0]
    return Path(run(["losetup", "--find", "--show", "--direct-io=off", str(path)]).strip()).name


def device_number(name: str) -> tuple[int, int]:
    """The major and minor number of a loop device."""
    major, minor = Path("/sys/block", name, "dev").read_text().strip().split(":")
    return int(major), int(minor)


def in_use(name: str) -> bool:
    """Whether somebody, in whatever mount namespace, has the device mounted."""
    try:
        os.close(os.open(f"/dev/{name}", os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:
            return True
        raise
    return False


def resized(path: Path) -> None:
    """Tells the loop devices of this file that it has grown."""
    for name in loops(path):
        run(["losetup", "--set-capacity", f"/dev/{name}"])


def check_free(path: Path) -> None:
    """Raises Busy while the file's device is mounted."""
    for name in loops(path):
        if in_use(name):
            raise Busy(f"{path.stem} is mounted on its instance")


def release(path: Path, timeout: float = 20.0) -> None:
    """Frees the file's loop devices; waits for the mounts of a machine that has just ended."""
    deadline = time.monotonic() + timeout
    while names := loops(path):
        let_go(path)
        if not loops(path):
            return
        if time.monotonic() > deadline:
            raise Timeout(f"{', '.join(names)} still holds {path} after {timeout:.0f} s")
        time.sleep(0.02)


def let_go(path: Path) -> None:
    """Frees the file's loop devices now, or when the last mount of theirs is gone."""
    for name in loops(path):
        run(["losetup", "--detach", f"/dev/{name}"], check=False)


# The names of devices inside an instance


def free_number(volume_id: str, taken: Container[int]) -> int:
    """The number N of /dev/nvmeNn1. As on Nitro it does not follow from the device name that was asked for:
    https://docs.aws.amazon.com/ebs/latest/userguide/nvme-ebs-volumes.html#identify-nvme-ebs-device
    """
    start = zlib.crc32(volume_id.encode()) % 4
    for step in range(len(NUMBERS)):
        number = NUMBERS[(start + step) % len(NUMBERS)]
        if number not in taken:
            return number
    raise LabError(f"the instance has {len(NUMBERS)} volumes and takes no more")


def device_name(number: int) -> str:
    return f"nvme{number}n1"


def link_name(volume_id: str) -> str:
    """The volume's name in /dev/disk/by-id."""
    return BY_ID + volume_id.replace("-", "", 1)
