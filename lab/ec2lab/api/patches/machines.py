"""What an instance's machine is: the launch's tags choose it, otherwise the lab.

The lab's own tags, which EC2 does not know: `ec2lab:machine` (container or vm) and, for a virtual machine,
`ec2lab:memory-mib`. They are read at the launch; a change has no effect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moto.ec2.models.instance_types import INSTANCE_TYPES

from ec2lab.api.errors import error
from ec2lab.machine import KINDS, Kind, memory, vm

MACHINE_TAG = "ec2lab:machine"
MEMORY_TAG = "ec2lab:memory-mib"


@dataclass
class Choice:
    """The kind of a machine whose launch does not choose."""

    kind: Kind = "container"


lab = Choice()


def check(tags: dict[str, str]) -> None:
    """Refuses a launch whose tags choose what cannot be."""
    wanted = tags.get(MACHINE_TAG, lab.kind)
    if wanted not in KINDS:
        raise error(
            "InvalidParameterValue", f"Value ({wanted}) for the tag {MACHINE_TAG} is invalid: use {' or '.join(KINDS)}"
        )
    if wanted == "vm" and (reason := vm.lacking()):
        raise error("Unsupported", f"This lab cannot run virtual machines: {reason}")
    size = tags.get(MEMORY_TAG)
    if size is not None and not (size.isdigit() and int(size) >= memory.LEAST_MIB):
        raise error(
            "InvalidParameterValue",
            f"Value ({size}) for the tag {MEMORY_TAG} is invalid: use a number of MiB from {memory.LEAST_MIB} on",
        )


def kind(instance: Any) -> Kind:
    """The kind of the instance's machine, recorded when it is first asked for."""
    known: Kind | None = getattr(instance, "machine_kind", None)
    if known is None:
        wanted = _tags(instance).get(MACHINE_TAG)
        known = instance.machine_kind = next((each for each in KINDS if each == wanted), lab.kind)
    return known


def memory_mib(instance: Any) -> int:
    """A virtual machine's memory: what the type has, at most what a lab gives, unless the launch says how much."""
    tagged = _tags(instance).get(MEMORY_TAG, "")
    if tagged.isdigit():
        return int(tagged)
    described = INSTANCE_TYPES.get(instance.instance_type, {}).get("MemoryInfo", {}).get("SizeInMiB", 0)
    return max(memory.LEAST_MIB, min(int(described) or memory.DEFAULT_CAP_MIB, memory.DEFAULT_CAP_MIB))


def cpus(instance: Any) -> int:
    described = INSTANCE_TYPES.get(instance.instance_type, {}).get("VCpuInfo", {}).get("DefaultVCpus", 2)
    return int(described)


def _tags(instance: Any) -> dict[str, str]:
    return {str(tag["key"]): str(tag["value"]) for tag in instance.get_tags()}
