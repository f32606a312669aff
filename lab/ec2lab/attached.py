"""The volumes attached to a container machine: loop devices on the host, device nodes and links inside.

<machine>/volumes.json    by volume id: its file, the device name that was asked for, and the number in /dev/nvmeNn1
<machine>/devices         the same as the node makes its devices from at each boot: name, major, minor, link
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ec2lab import volumes
from ec2lab.errors import LabError

LINKS = ("dev", "disk", "by-id")


@dataclass(frozen=True)
class Attached:
    path: str
    device_name: str
    number: int


class Attachments:
    """What is attached to the machine in `directory`. `init` is its init's process id while it runs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._record = directory / "volumes.json"

    def all(self) -> dict[str, Attached]:
        try:
            found = json.loads(self._record.read_text())
        except FileNotFoundError:
            return {}
        return {volume_id: Attached(**facts) for volume_id, facts in found.items()}

    def add(self, volume_id: str, path: Path, device_name: str, init: int | None) -> None:
        """Attaches the volume, to a running machine at once; does nothing more if it is attached."""
        there = self.all()
        if volume_id not in there:
            number = volumes.free_number(volume_id, {each.number for each in there.values()})
            there[volume_id] = Attached(str(path), device_name, number)
            self._save(there)
        if init is not None:
            self.present()
            self._show(volume_id, there[volume_id], init)

    def remove(self, volume_id: str, init: int | None, force: bool = False) -> None:
        """Detaches the volume; raises Busy while it is mounted, unless forced. Does nothing if it is not attached."""
        there = self.all()
        if volume_id not in there:
            return
        path = Path(there[volume_id].path)
        if init is not None:
            if not force:
                volumes.check_free(path)
            self._hide(volume_id, there[volume_id], init)
        if force:
            volumes.let_go(path)
        else:
            volumes.release(path)
        del there[volume_id]
        self._save(there)
        if init is not None:
            self.present()

    def present(self) -> None:
        """Before a start: makes the loop devices, and the list from which the node makes its own devices."""
        lines = []
        for volume_id, each in self.all().items():
            major, minor = volumes.device_number(volumes.loop(Path(each.path)))
            lines.append(f"{volumes.device_name(each.number)} {major} {minor} {volumes.link_name(volume_id)}\n")
        _write(self.directory / "devices", "".join(lines))

    def absent(self) -> None:
        """After the machine's end: frees the loop devices. The volumes stay attached."""
        for each in self.all().values():
            volumes.release(Path(each.path))

    def _save(self, there: dict[str, Attached]) -> None:
        _write(self._record, json.dumps({volume_id: asdict(each) for volume_id, each in there.items()}, indent=1))

    def _show(self, volume_id: str, each: Attached, init: int) -> None:
        name = volumes.device_name(each.number)
        number = os.makedev(*volumes.device_number(volumes.loop(Path(each.path))))
        with _inside(init, *LINKS[:1]) as devices, contextlib.suppress(FileExistsError):
            os.mknod(name, stat.S_IFBLK | 0o660, number, dir_fd=devices)
        # A node has no udev, so the lab makes the link.
        with _inside(init, *LINKS) as links, contextlib.suppress(FileExistsError):
            os.symlink(f"../../{name}", volumes.link_name(volume_id), dir_fd=links)

    def _hide(self, volume_id: str, each: Attached, init: int) -> None:
        for place, name in ((LINKS, volumes.link_name(volume_id)), (LINKS[:1], volumes.device_name(each.number))):
            with _inside(init, *place) as directory, contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=directory)


@contextlib.contextmanager
def _inside(init: int, *names: str) -> Iterator[int]:
    """A directory of the node, made if it is missing. No link of the node's is followed: it could lead to the host."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        descriptor = os.open(f"/proc/{init}/root", flags)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise LabError(f"the machine with the process {init} ended while a volume was attached or detached") from error
    try:
        for name in names:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=descriptor)
            below = os.open(name, flags | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.chmod(0o600)
    partial.rename(path)
