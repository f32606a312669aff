"""A snapshot of what a lab may leave on the host, to compare before and after."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def snapshot(directories: Iterable[Path] = ()) -> dict[str, frozenset[str]]:
    """By kind (processes, mounts, namespaces, interfaces, addresses, routes, rules, cgroups, nft, loops, files)."""
    raise NotImplementedError


def difference(before: dict[str, frozenset[str]], after: dict[str, frozenset[str]]) -> list[str]:
    """What is in one and not in the other, a readable line each."""
    raise NotImplementedError
