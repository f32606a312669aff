# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small userland from the distribution's packages: chosen programs, and only the libraries that they load.

apt verifies downloads (apt-secure(8)); nothing is installed on this machine, and no maintainer script runs.
"""

# Paths come and go as text here.
# ruff: noqa: PTH103, PTH112, PTH113, PTH114, PTH116, PTH118, PTH120, PTH123, PTH207, PTH208
from __future__ import annotations

import glob
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass

from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.errors import MirrorError
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.oci import Layer
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.release import Userland

_TIMEOUT_S = 600
# Only needed to install a program, not to run it, unless it is asked for.
_INSTALL_ONLY = {
    "adduser",
    "init-system-helpers",
    "lsb-base",
    "sysvinit-utils",
    "debconf",
    "passwd",
    "dpkg",
    "perl-base",
    "tar",
}


@dataclass(frozen=True)
class Packages:
    """What a userland was made from: {package: version}, on one architecture of the distribution."""

    versions: dict[str, str]
    layer: Layer


def machine_architecture() -> str:
    """The distribution's architecture by its Go name; empty when there is no dpkg."""
    if shutil.which("dpkg") is None or shutil.which("apt-get") is None:
        return ""
    return _run(["dpkg", "--print-architecture"]).strip()


def assemble(userland: Userland, work: str) -> Packages:
    """Fetch the packages and pick the programs. Raises MirrorError, naming what is missing and how to get it."""
    archives, root = os.path.join(work, "archives"), os.path.join(work, "root")
    os.makedirs(archives)
    os.makedirs(root)
    needed = _closure(userland.packages)
    _run(["apt-get", "-qq", "download", *needed], cwd=archives)
    versions = {}
    for name in sorted(os.listdir(archives)):
        path = os.path.join(archives, name)
        package, version = _run(["dpkg-deb", "--show", "--showformat=${Package} ${Version}", path]).split()
        versions[package] = version
        _run(["dpkg-deb", "--extract", path, root])
    layer = Layer()
    for program in userland.programs:
        _add(layer, root, program)
        for library in _libraries(root, program):
            _add(layer, root, library)
    for tree in userland.trees:
        _add_tree(layer, root, tree)
    if userland.busybox:
        applets = _run([os.path.join(root, userland.busybox.lstrip("/")), "--list"]).split()
        for applet in applets:
            for taken in (f"/bin/{applet}", f"/usr/bin/{applet}"):
                if taken in layer.files or taken in layer.links:
                    break
            else:
                layer.links[f"/bin/{applet}"] = userland.busybox
    return Packages(versions, layer)


def _closure(packages: tuple[str, ...]) -> list[str]:
    """The packages and their dependencies, without those that are only for installing."""
    argv = ["apt-cache", "depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks"]
    answer = _run([*argv, "--no-replaces", "--no-enhances", *packages])
    dependencies: dict[str, list[str]] = {}
    current = ""
    for line in answer.splitlines():
        if line and not line.startswith((" ", "<")):
            current = line.strip()
            dependencies.setdefault(current, [])
        else:
            match = re.match(r"\s+(?:Pre)?Depends: ([a-z0-9][a-z0-9+.-]*)$", line)
            if match:
                dependencies[current].append(match.group(1))
    missing = [package for package in packages if package not in dependencies]
    if missing:
        raise MirrorError(f"apt knows no package {', '.join(missing)}; run `apt-get update` on this machine")
    reached: list[str] = []
    waiting = list(packages)
    while waiting:
        package = waiting.pop()
        skipped = package in _INSTALL_ONLY and package not in packages
        if package not in reached and not skipped and package in dependencies:
            reached.append(package)
            waiting += dependencies[package]
    return sorted(reached)


def _libraries(root: str, program: str) -> list[str]:
    """The libraries that the dynamic linker of the extracted libc would load; empty for a static program."""
    path = os.path.join(root, program.lstrip("/"))
    with open(path, "rb") as stream:
        head = stream.read(1 << 16)
    match = re.search(rb"/lib[a-z0-9]*/ld-linux[a-z0-9_.-]*", head)
    if not match:
        return []
    loader = match.group(0).decode()
    directories = [base + suffix for base in ("/lib", "/usr/lib") for suffix in ("", *_multiarch(root))]
    search = ":".join(root + directory for directory in directories)
    answer = _run([root + loader, "--library-path", search, "--list", path])
    found = [loader]
    for line in answer.splitlines():
        if "not found" in line:
            raise MirrorError(f"{program}: {line.strip()}; its package lacks a dependency")
        library = re.search(r"=> (/\S+)", line)
        if library and library.group(1).startswith(root + "/"):
            found.append(library.group(1)[len(root) :])
    return found


def _multiarch(root: str) -> list[str]:
    return sorted(
        {
            f"/{name}"
            for base in ("lib", "usr/lib")
            if os.path.isdir(os.path.join(root, base))
            for name in os.listdir(os.path.join(root, base))
            if name.endswith("-linux-gnu")
        }
    )


def _add(layer: Layer, root: str, path: str) -> None:
    """Add a file to the layer, with every link on its path."""
    full = os.path.join(root, path.lstrip("/"))
    if os.path.islink(full):
        target = os.readlink(full)
        layer.links[path] = target
        _add(layer, root, os.path.normpath(os.path.join(os.path.dirname(path), target)))
        return
    if not os.path.isfile(full):
        raise MirrorError(f"{path}: none of the packages has it")
    layer.files[path] = (full, 0o755)


def _add_tree(layer: Layer, root: str, pattern: str) -> None:
    """Add everything in the directories that match, with its own modes."""
    found = [path for path in glob.glob(root + pattern) if os.path.isdir(path)]
    if not found:
        raise MirrorError(f"{pattern}: none of the packages has it")
    for top in found:
        for directory, _names, files in os.walk(top):
            for name in files:
                full = os.path.join(directory, name)
                path = full[len(root) :]
                if os.path.islink(full):
                    layer.links[path] = os.readlink(full)
                else:
                    layer.files[path] = (full, os.stat(full).st_mode & 0o755)


def _run(argv: list[str], cwd: str | None = None) -> str:
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        answer = subprocess.run(
            argv,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise MirrorError(f"{argv[0]} did not end within {_TIMEOUT_S} s") from error
    except OSError as error:
        raise MirrorError(
            f"{argv[0]}: {error.strerror}; the userland of images is made on Debian and Ubuntu only"
        ) from error
    if answer.returncode != 0:
        raise MirrorError(
            f"`{shlex.join(argv[:6])}` ended with status {answer.returncode}: {answer.stderr.strip()[-800:]}"
        )
    return answer.stdout
