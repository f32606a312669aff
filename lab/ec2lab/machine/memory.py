"""The host's memory, as far as a virtual machine can count on it.

A guest touches its memory by and by, so what the kernel calls available is partly promised already.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

PROC = Path("/proc")
NAME = "ec2lab."  # how a virtual machine's -name begins
# What a virtual machine's type says is what an EC2 user pays for; a lab on one machine gives at most this much.
DEFAULT_CAP_MIB = 3072
LEAST_MIB = 512
# What QEMU takes beside the guest's memory; most of it for translated code, where the processor is emulated.
TRANSLATED_MIB = 256
OVERHEAD_MIB = TRANSLATED_MIB + 128
# What is left to the host itself, the lab's daemon and the containers.
RESERVE_MIB = 512


def available_mib() -> int:
    """What the host can give to a new virtual machine."""
    for line in (PROC / "meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024 - _promised_mib() - RESERVE_MIB
    return 0


def _promised_mib() -> int:
    """What running virtual machines of all labs may still take."""
    page = os.sysconf("SC_PAGE_SIZE")
    promised = 0
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if arguments[arguments.index("-name") + 1].startswith(NAME):
                    size = int(arguments[arguments.index("-m") + 1]) + OVERHEAD_MIB
                    resident = int((entry / "statm").read_text().split()[1]) * page >> 20
                    promised += max(0, size - resident)
    return promised
