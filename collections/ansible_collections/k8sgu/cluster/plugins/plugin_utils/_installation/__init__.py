# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Warnings about the installation: an untested ansible-core, and other copies of the collection."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import yaml

COLLECTION = "k8sgu.cluster"


def untested_version(running: str, tested: str) -> str | None:
    """A warning if this ansible-core is outside the range with which the collection is tested.

    Ansible compares the same range (requires_ansible), and says that the collection does not support the version.
    """
    # Here, since ansible-test imports plugins without it; ansible-core itself needs it.
    from packaging.specifiers import InvalidSpecifier, SpecifierSet
    from packaging.version import InvalidVersion, Version

    try:
        # A development version counts as the version that it will be, as in Ansible itself.
        if Version(Version(running).base_version) in SpecifierSet(tested):
            return None
    except (InvalidVersion, InvalidSpecifier):
        pass
    return (
        f"This is ansible-core {running}, and {COLLECTION} is tested with {tested} alone: install one of those "
        f"(pip install 'ansible-core{tested}'), or expect surprises"
    )


def versions_tested(collection: Path) -> str:
    """The range of ansible-core versions with which the collection is tested; any version if it names none."""
    runtime = yaml.safe_load((collection / "meta" / "runtime.yml").read_text(encoding="utf-8")) or {}
    return str(runtime.get("requires_ansible") or "")


def installed_twice(running: Path, search_path: Iterable[str]) -> str | None:
    """A warning if the collections path has other copies than the one that runs."""
    namespace, _dot, name = COLLECTION.partition(".")
    others: dict[Path, Path] = {}
    for place in map(Path, search_path):
        root = place if place.name == "ansible_collections" else place / "ansible_collections"
        copy = root / namespace / name
        # A copy that is reached twice, for example by a link, counts once.
        if (copy / "meta" / "runtime.yml").is_file() and copy.resolve() != running.resolve():
            others.setdefault(copy.resolve(), copy)
    if not others:
        return None
    count = {1: "twice"}.get(len(others), f"{len(others) + 1} times")
    unused = " and ".join(_told(copy) for copy in others.values())
    return (
        f"{COLLECTION} is installed {count}. {_told(running)} is the one that runs; {unused} is not used. Remove the "
        f"one that is not meant, or name the directory of the other first in collections_path (ansible.cfg) or "
        f"ANSIBLE_COLLECTIONS_PATH"
    )


def _told(copy: Path) -> str:
    version = _version(copy)
    return f"{copy} (version {version})" if version else str(copy)


def _version(copy: Path) -> str:
    """The version of an installed tarball or of the sources; empty if neither has one."""
    try:
        if (copy / "MANIFEST.json").is_file():
            manifest = json.loads((copy / "MANIFEST.json").read_text(encoding="utf-8"))
            return str(manifest["collection_info"]["version"])
        return str(yaml.safe_load((copy / "galaxy.yml").read_text(encoding="utf-8"))["version"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return ""
