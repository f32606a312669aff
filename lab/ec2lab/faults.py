"""Fault injection; each fault can be undone.

The fault `network` is not here: it is `model.Node.cut`, which the fabric carries out. `power` is `Machines.power_off`,
undone by `Machines.start`.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from ec2lab.errors import LabError
from ec2lab.machine import Machines

# What a virtual machine's agent runs instead.
VM_FILL = "/var/lib/ec2lab-fill"
VM_FILL_SCRIPT = f"""
step=$(($(stat -f -c '%f * %S' /)))
while [ "$step" -ge 4096 ]; do
    size=$(stat -c %s {VM_FILL} 2>/dev/null || echo 0)
    fallocate --offset "$size" --length "$step" {VM_FILL} 2>/dev/null || step=$((step / 2))
done
cat /dev/zero >>{VM_FILL} 2>/dev/null || true
sync -f /
"""
FILL = ".ec2lab/fill"  # on the node's root file system; a reboot keeps it, as a full disk stays full


def fill_disk(machines: Machines, instance_id: str) -> None:
    """Fills the node's root file system, for root too; undone by `free_disk`. Running machines only.

    The space is reserved on the node's own disk without being written, so it takes none on the host.
    """
    if machines.kind(instance_id) == "vm":
        machines.run_in_guest(instance_id, VM_FILL_SCRIPT)
        return
    root = _root(machines, instance_id)
    descriptor = os.open(root / FILL, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        block = os.fstatvfs(descriptor).f_frsize
        size = os.fstat(descriptor).st_size
        step = os.fstatvfs(descriptor).f_bfree * block
        # A file can get less than what is free, since the file system needs some itself: halve until nothing fits.
        while step >= block:
            try:
                os.posix_fallocate(descriptor, size, step)
                size += step
                step = min(step, os.fstatvfs(descriptor).f_bfree * block)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size = os.fstat(descriptor).st_size
                step //= 2
    finally:
        os.close(descriptor)


def free_disk(machines: Machines, instance_id: str) -> None:
    """Undoes `fill_disk`; does nothing if the disk is not filled."""
    if machines.kind(instance_id) == "vm":
        machines.run_in_guest(instance_id, f"rm -f {VM_FILL}")
        return
    (_root(machines, instance_id) / FILL).unlink(missing_ok=True)


def jump_clock(machines: Machines, instance_id: str, seconds: float) -> None:
    """Moves the clock of a virtual machine; of a container raises a LabError that says why Linux cannot do it.

    https://man7.org/linux/man-pages/man7/time_namespaces.7.html
    """
    if machines.kind(instance_id) == "vm":
        machines.run_in_guest(instance_id, f"date --set=@$(($(date +%s) + {seconds:.0f})) >/dev/null")
        return
    _root(machines, instance_id)
    raise LabError(
        f"cannot move the clock of {instance_id} by {seconds:+g} s: nodes share the host's kernel, whose time "
        "namespaces cover the monotonic and boot clocks only, so the wall clock cannot be moved for one node alone"
    )


def _root(machines: Machines, instance_id: str) -> Path:
    """The node's root directory, reached from the host with the node's own mounts."""
    init = machines.init_pid(instance_id)
    if init is None:
        raise LabError(f"{instance_id} is not running: this fault is for running instances")
    return Path(f"/proc/{init}/root")
