"""What the lab needs of its host: each program and kernel feature, what it is for and how to get it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Check:
    """One requirement. `needed` is False for what only some features want."""

    name: str
    purpose: str
    remedy: str
    ok: bool
    needed: bool = True
    detail: str = ""


def checks(state_dir: Path) -> list[Check]:
    """Every requirement, tried without changing anything on the host."""
    raise NotImplementedError


def missing(state_dir: Path) -> list[Check]:
    """The needed ones that are not met; `up` refuses when there are any."""
    return [check for check in checks(state_dir) if check.needed and not check.ok]
