"""Whether /dev/kvm serves: a small guest is run with it.

The device may exist and be of no use: QEMU refuses to start with it, or it runs a guest's instructions by interpreting
each (a hypervisor without svm or vmx below), which is slower than QEMU's own emulation by orders of magnitude. So the
guest enters 64-bit mode and counts to 2^28, which a processor does in a tenth of a second, before it says that it is
there.
"""

from __future__ import annotations

import functools
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

DEVICE = Path("/dev/kvm")
QEMU = "qemu-system-x86_64"
PATIENCE_S = 5.0
MARKER = b"ITS BACK"
DONE = 85  # isa-debug-exit's way of saying that the guest wrote 42

# A multiboot kernel: its header, then as 32-bit code
#     page tables for the first 2 MiB at 0x1000; cr3; cr4.PAE; EFER.LME; cr0.PG; lgdt; a far jump
# and as 64-bit code
#     mov ecx, 2^28; 1: dec ecx; jnz 1b; the marker to port 0xe9; 42 to port 0x501; hlt
GUEST = bytes.fromhex(
    "02b0ad1b00000100fe4f51e40000100000001000000000000000000020001000c7050010000003200000c7050020000003300000"
    "c7050030000083000000b8001000000f22d80f20e083c8200f22e0b9800000c00f320d000100000f300f20c00d010000800f22c0"
    "0f0115b8001000ea760010000800b900000010ffc975fc48b8495453204241434b48c7c10800000066bae900ee48c1e808e2f9b0"
    "2a66ba0105eef4ebfd0f1f00000000000000000000000000009a20000f00a8001000"
)


@dataclass(frozen=True)
class Verdict:
    serves: bool
    reason: str  # what was found, for the user


@functools.cache
def verdict() -> Verdict:
    """Whether virtual machines can use KVM here; found out once."""
    if not DEVICE.exists():
        return Verdict(False, f"there is no {DEVICE}")
    return trial("kvm", "host")


def trial(accelerator: str, processor: str, guest: bytes = GUEST) -> Verdict:
    """Runs the guest with an accelerator of QEMU's."""
    with tempfile.NamedTemporaryFile(prefix="ec2lab-kvm-") as kernel:
        kernel.write(guest)
        kernel.flush()
        argv = [
            *(QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35", "-accel", accelerator),
            *("-cpu", processor, "-m", "64", "-no-reboot", "-kernel", kernel.name),
            *("-debugcon", "stdio", "-device", "isa-debug-exit,iobase=0x501,iosize=1"),
        ]
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE_S, check=False, cwd="/"
            )
        except FileNotFoundError:
            return Verdict(False, f"{QEMU} is missing: apt-get install --no-install-recommends qemu-system-x86")
        except subprocess.TimeoutExpired:
            return Verdict(False, f"a guest of a few instructions did not get through them within {PATIENCE_S:.0f} s")
    if done.returncode == DONE and MARKER in done.stdout:
        return Verdict(True, "a guest ran with it")
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return Verdict(False, f"QEMU ended with status {done.returncode}: {said[0] if said else 'it printed nothing'}")
