"""Faults on request. `network` is not here: it is `model.Node.cut`, which the fabric carries out."""

from __future__ import annotations

from ec2lab.machine import Machines


def fill_disk(machines: Machines, instance_id: str) -> None:
    """Fills the node's root file system, for root too; undone by `free_disk`. Running machines only."""
    raise NotImplementedError


def free_disk(machines: Machines, instance_id: str) -> None:
    raise NotImplementedError


def jump_clock(machines: Machines, instance_id: str, seconds: float) -> None:
    """Always a LabError on Linux today: it says why."""
    raise NotImplementedError
