"""The base image that nodes' disks are made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Image:
    """A finished image in the cache."""

    key: str  # names the recipe that it was made by
    distribution: str  # "debian" or "ubuntu"
    release: str  # "bookworm"
    architecture: str  # as EC2 says it: "x86_64" or "arm64"
    path: Path


def cached_image() -> Image | None:
    """The image if it is made already."""
    raise NotImplementedError


def ensure_image(progress: Callable[[str], None]) -> Image:
    """The image, made at first use (about a minute); `progress` is told each step. A kill leaves the cache usable."""
    raise NotImplementedError
