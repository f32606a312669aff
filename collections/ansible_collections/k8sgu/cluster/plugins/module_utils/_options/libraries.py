# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Python libraries that modules and plugins need, and the error where one is missing or too old."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

from ansible.module_utils.basic import missing_required_lib

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster.versions import numbers


class Library(NamedTuple):
    """`needed` is what to install; `oldest` the first major version that will do, 0 where any will."""

    module: str
    needed: str
    oldest: int = 0


BOTO3 = Library("boto3", "boto3 >= 1.34")
CRYPTOGRAPHY = Library("cryptography", "cryptography >= 42", 42)  # the first with times that know their zone
PYRAGE = Library("pyrage", "pyrage >= 1.2")
YAML = Library("yaml", "PyYAML")


class LibraryMissing(Exception):
    """A library is missing or too old; the text says which one and what to install."""


def fault(library: Library) -> str:
    """What is wrong with a library in this Python; empty where nothing is."""
    try:
        version = str(getattr(import_module(library.module), "__version__", ""))
    except ImportError as error:
        return f"{missing_required_lib(library.needed)} ({error})"
    if library.oldest and numbers(version) < (library.oldest,):
        return f"{library.module} {version} is too old; install {library.needed}"
    return ""


def usable(library: Library) -> bool:
    """Whether a library is there and new enough."""
    return not fault(library)


def require(*libraries: Library) -> None:
    """Raises LibraryMissing for the first that is missing or too old."""
    for library in libraries:
        found = fault(library)
        if found:
            raise LibraryMissing(found)
