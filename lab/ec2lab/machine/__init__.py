"""Instances as machines: containers that share the host's kernel, and virtual machines with one of their own."""

from __future__ import annotations

from ec2lab.machine.common import KINDS, Kind, MachineSpec, State
from ec2lab.machine.machines import Machines

__all__ = ["KINDS", "Kind", "MachineSpec", "Machines", "State"]
