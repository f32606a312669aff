# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts a volume where its data is to be: formats a blank one once, mounts it by a unit, grows its file system."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._component.origin import remember_mount
from ansible_collections.k8sgu.cluster.plugins.module_utils._files.atomic import atomic_write
from ansible_collections.k8sgu.cluster.plugins.module_utils._volume import disk as disks
from ansible_collections.k8sgu.cluster.plugins.module_utils._volume import plan as plans
from ansible_collections.k8sgu.cluster.plugins.module_utils._volume.disk import Disk, VolumeError
from ansible_collections.k8sgu.cluster.plugins.module_utils._volume.plan import Wanted

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call

UNITS = Path("/etc/systemd/system")
# While a volume is being formatted, which one: after a kill it has neither a file system nor nothing on it.
FORMATTING = Path("/var/lib/k8sgu/formatting.json")
UNIT = """\
[Unit]
Description=The volume {volume_id} at {path}

[Mount]
What={link}
Where={path}
Type=ext4
Options=noatime,nodev,nosuid,noexec,errors=remount-ro
"""


def run(call: Call) -> dict[str, Any]:
    """The module's result. Raises VolumeError."""
    options = call.options
    wanted = Wanted(options["volume_id"], options["path"], options["cluster"], options["node"])
    missing = disks.missing_tools()
    if missing:
        raise VolumeError(disks.TOOLS_MISSING.format(", ".join(missing)))
    link = disks.wait(wanted.volume_id, options["timeout"], options["size"])
    disk = disks.read(link)
    place = disks.place(wanted.path, disk)
    cut_off = half_made(wanted.volume_id)
    found = plans.problems(wanted, disk, place, cut_off)
    if found:
        raise VolumeError("; ".join(found))
    unit, content = UNITS / unit_name(wanted.path), UNIT.format(volume_id=wanted.volume_id, path=wanted.path, link=link)
    there = _text(unit)
    differs = "" if there == content else f"{unit}: {'differs' if there else 'missing'}"
    made = plans.plan(wanted, disk, place, differs, cut_off)
    result: dict[str, Any] = {"changed": bool(made.steps), "reasons": made.reasons, "device": disk.device}
    if call.diff and made.steps:
        result["diff"] = [{"before": "", "after": "".join(f"{reason}\n" for reason in made.reasons)}]
    if not call.check_mode:
        remember_mount(wanted.path, str(unit))
    if cut_off and disk.kind == "ext4" and not call.check_mode:
        _formatted()
    if made.steps and not call.check_mode:
        _carry_out(made, wanted, disk, unit, content, options["unit"])
    return result


def half_made(volume_id: str) -> bool:
    """Whether a run was cut off while it formatted this volume."""
    return bool(disks.parsed(_text(FORMATTING)).get("volume") == volume_id)


def unit_name(path: str) -> str:
    """The name of the unit that mounts a path: https://man7.org/linux/man-pages/man1/systemd-escape.1.html."""
    return path.strip("/").replace("-", "\\x2d").replace("/", "-") + ".mount"


def _carry_out(made: plans.Plan, wanted: Wanted, disk: Disk, unit: Path, content: str, user: str) -> None:
    for step in made.steps:
        if step == plans.FORMAT:
            _format(wanted, disk)
        elif step == plans.UNIT:
            atomic_write(str(unit), content.encode(), 0o644)
            _must(["systemctl", "daemon-reload"])
        elif step == plans.MOUNT:
            _mount(wanted, disk, unit)
        elif step == plans.GROW:
            _grow(wanted, disk, unit, user)


def _format(wanted: Wanted, disk: Disk) -> None:
    """Makes the file system with the mark in it: mkfs writes the superblock last, so there is never one without."""
    FORMATTING.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    atomic_write(str(FORMATTING), json.dumps({"volume": wanted.volume_id}).encode(), 0o600)
    directory = tempfile.mkdtemp(prefix="k8sgu-")
    try:
        text = json.dumps(plans.mark(wanted), indent=1) + "\n"
        atomic_write(str(Path(directory) / disks.MARK), text.encode(), 0o644)
        # Without -F it asks before it writes over a file system, and there is nobody to answer.
        _must(["mkfs.ext4", "-q", "-m", "0", "-d", directory, disk.device])
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if disks.read(disk.link).mark != plans.mark(wanted):
        raise VolumeError(f"{disk.device} was formatted and does not show {disks.MARK}; look at it with debugfs")
    _formatted()


def _formatted() -> None:
    """From now on the volume is never formatted again, whatever becomes of it."""
    with contextlib.suppress(FileNotFoundError):
        FORMATTING.unlink()


def _mount(wanted: Wanted, disk: Disk, unit: Path) -> None:
    _must(["systemctl", "daemon-reload"])
    _must(["systemctl", "start", unit.name])
    if not disks.place(wanted.path, disk).mounted:
        raise VolumeError(
            f"{unit.name} started and {wanted.path} is not on {disk.device}; see systemctl status {unit.name}"
        )


def _grow(wanted: Wanted, disk: Disk, unit: Path, user: str) -> None:
    """While it is mounted; where the kernel does not allow that (no CAP_SYS_RESOURCE), between a stop and a start."""
    done = disks.run(["resize2fs", disk.device])
    if done.returncode == 0:
        return
    if "Permission denied" not in done.stderr:
        raise VolumeError(f"resize2fs {disk.device}: {done.stderr.strip()}")
    active = disks.run(["systemctl", "is-active", user]).stdout.strip() in ("active", "activating")
    _must(["systemctl", "stop", user, unit.name])
    try:
        _must(["e2fsck", "-f", "-p", disk.device], (0, 1))
        _must(["resize2fs", disk.device])
    finally:
        _mount(wanted, disk, unit)
        if active:
            _must(["systemctl", "start", user])


def _must(argv: list[str], allowed: tuple[int, ...] = (0,)) -> None:
    done = disks.run(argv)
    if done.returncode not in allowed:
        said = (done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}")[-2000:]
        raise VolumeError(f"{' '.join(argv)}: {said}")


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
