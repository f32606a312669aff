# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads a volume's disk: where it is, how large, what is on it, and whether it is mounted. Writes nothing.

https://docs.aws.amazon.com/ebs/latest/userguide/nvme-ebs-volumes.html
"""

# Devices and mounts are asked for by the kernel's own calls.
# ruff: noqa: PTH112, PTH116, PTH123, PTH208
from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# On Nitro udev makes a link of the model and the serial number, which is the volume's id without the dash.
BY_ID = "dev/disk/by-id"
MARK = ".k8sgu.json"
TOOLS = ("blkid", "debugfs", "dumpe2fs", "e2fsck", "mkfs.ext4", "resize2fs")
# What a blank disk has no bytes in: where file systems, partition tables and their copies have their marks.
EDGE_BYTES = 1 << 20
COMMAND_TIMEOUT_S = 120
TOOLS_MISSING = (
    "{} not found; install e2fsprogs and util-linux (apt-get install), or use a cloud image of Debian or Ubuntu, which "
    "has them"
)
PAUSE_S = 0.5


class VolumeError(Exception):
    """A volume that cannot be used; the text says what was seen and what to do."""


@dataclass(frozen=True)
class Disk:
    """The disk of a volume. `kind`: empty for a blank one, blkid's word for a file system or a partition table, or
    `data` for bytes that it does not know. `names` are the entries at the top of an ext4 file system."""

    link: str
    device: str
    size: int
    kind: str
    file_system_size: int = 0
    names: list[str] = field(default_factory=list)
    mark: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """The directory where the volume is to be. `source` is what is mounted there, `names` what is in it otherwise."""

    mounted: bool = False
    source: str = ""
    names: list[str] = field(default_factory=list)


def missing_tools() -> list[str]:
    """The programs that are not installed; they are in the same places on every Debian and Ubuntu."""
    places = [Path(each) for each in ("/usr/sbin", "/sbin", "/usr/bin", "/bin")]
    return [tool for tool in TOOLS if not any((place / tool).exists() for place in places)]


def run(argv: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "DEBUGFS_PAGER": "cat"}
    return subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        timeout=COMMAND_TIMEOUT_S,
        env=environment,
    )


def find(volume_id: str, root: Path = Path("/")) -> str:
    """The link to the volume's disk; empty if it is not there."""
    wanted = re.compile(rf"nvme-.+_{re.escape(volume_id.replace('-', '', 1))}")
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(root / BY_ID)):
            if wanted.fullmatch(name) and (root / BY_ID / name).exists():
                return f"/{BY_ID}/{name}"
    return ""


def wait(volume_id: str, timeout_s: float, gib: int = 0) -> str:
    """The link, once the disk is there and has at least `gib`. Raises VolumeError, which says what was waited for."""
    deadline = time.monotonic() + timeout_s
    while True:
        link = find(volume_id)
        if link and (not gib or size_of(link) >= gib << 30):
            return link
        if time.monotonic() > deadline:
            break
        time.sleep(PAUSE_S)
    if not link:
        others = sorted(path.name for path in (Path("/") / BY_ID).glob("nvme-*"))
        raise VolumeError(
            f"waited {timeout_s:.0f} s for a disk of the volume {volume_id}, which did not appear in /{BY_ID} (there: "
            f"{', '.join(others) or 'no NVMe disk'}); see whether it is attached to this instance (aws ec2 "
            f"describe-volumes --volume-ids {volume_id}) and whether the instance type is of the Nitro system"
        )
    raise VolumeError(
        f"waited {timeout_s:.0f} s for the disk of {volume_id} to have {gib} GiB, and it has {size_of(link) / 2**30:g} "
        "GiB; run playbooks/infrastructure.yml, which enlarges the volume to k8sgu_etcd_volume_size, or put that back"
    )


def size_of(link: str) -> int:
    """Of a block device, in bytes."""
    descriptor = os.open(link, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.lseek(descriptor, 0, os.SEEK_END)
    finally:
        os.close(descriptor)


def read(link: str) -> Disk:
    """What the disk is. Raises VolumeError."""
    device, size = os.path.realpath(link), size_of(link)
    kind = _kind(device, size)
    if kind != "ext4":
        return Disk(link, device, size, kind)
    # debugfs opens it for reading only, so that nothing of a strange file system is changed by looking at it.
    names = _names(run(["debugfs", "-R", "ls -p /", device]).stdout)
    mark = run(["debugfs", "-R", f"cat /{MARK}", device]).stdout if MARK in names else ""
    return Disk(link, device, size, kind, _file_system_size(device), names, parsed(mark))


def parsed(text: str) -> dict[str, Any]:
    """A mark; {} if it is missing or damaged."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _kind(device: str, size: int) -> str:
    done = run(["blkid", "-p", "-o", "export", device])
    fields = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    if done.returncode == 0 or fields:
        return fields.get("TYPE") or fields.get("PTTYPE") or "data"
    # 2: nothing found; 8: more than one thing. https://man7.org/linux/man-pages/man8/blkid.8.html
    if done.returncode != 2:
        return "data"
    with open(device, "rb") as disk:
        for start in (0, max(0, size - EDGE_BYTES)):
            disk.seek(start)
            if disk.read(EDGE_BYTES).strip(b"\0"):
                return "data"
    return ""


def _names(listing: str) -> list[str]:
    """Of debugfs' `ls -p`: /inode/mode/owner/group/name/size/."""
    rows = [line.split("/") for line in listing.splitlines() if line.startswith("/")]
    return sorted(row[5] for row in rows if len(row) > 5 and row[5] not in (".", "..", "lost+found", ""))


def _file_system_size(device: str) -> int:
    fields = {}
    for line in run(["dumpe2fs", "-h", device]).stdout.splitlines():
        name, _colon, value = line.partition(":")
        fields[name.strip()] = value.strip()
    try:
        return int(fields["Block count"]) * int(fields["Block size"])
    except (KeyError, ValueError):
        raise VolumeError(
            f"{device}: dumpe2fs does not tell the size of its file system; check it (e2fsck -n)"
        ) from None


def place(path: str, disk: Disk) -> Place:
    """What is at `path` now."""
    if not os.path.isdir(path):
        return Place()
    if not os.path.ismount(path):
        return Place(names=sorted(os.listdir(path)))
    here = os.stat(path).st_dev
    if here == os.stat(disk.device).st_rdev:
        return Place(mounted=True, source=disk.device)
    return Place(source=_source(path))


def _source(path: str) -> str:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return next((line.split(" ")[0] for line in reversed(lines) if line.split(" ")[1] == path), "another file system")
