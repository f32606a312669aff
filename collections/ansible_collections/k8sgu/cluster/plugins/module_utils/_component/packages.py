# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Distribution packages of a node: their state by dpkg, and their installation by APT."""

# Paths are text here, as in the options and in results.
# ruff: noqa: PTH123, PTH207

from __future__ import annotations

import fcntl
import glob
import os
import re
import struct
import time
from typing import Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._component import systemd
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import ComponentError

_DPKG_STATUS = "/var/lib/dpkg/status"
_ENVIRONMENT = ["env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"]
_APT = [*_ENVIRONMENT, "apt-get", "--yes", "--quiet"]
_APT_TIMEOUT_S = 900
# A cloud image updates itself right after its first boot, and unattended-upgrades runs once a day. APT can be told to
# wait for dpkg's lock, but not for that of its lists; dpkg never waits.
LOCKS = (
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/lock",
    "/var/lib/apt/lists/lock",
    "/var/cache/apt/archives/lock",
)
LOCK_TIMEOUT_S = 600
_LOCK_PAUSE_S = 1.0
_LOCKED = re.compile(r"could not get lock|unable to (lock|acquire)|locked by another process", re.IGNORECASE)
# struct flock of fcntl(2): type, whence, start, length, process.
_FLOCK = "hhqqi4x"


def package_states(names: list[str], status: str | None = None) -> dict[str, str]:
    """dpkg's status of each package, for example `install ok installed`; empty for an unknown package."""
    if not names:
        return {}
    if status is None:
        try:
            with open(_DPKG_STATUS, encoding="utf-8", errors="replace") as stream:
                status = stream.read()
        except OSError as error:
            raise ComponentError(
                f"packages: {_DPKG_STATUS}: {error.strerror}; packages need Debian or Ubuntu"
            ) from error
    states = {}
    for name in names:
        found = re.search(rf"^Package: {re.escape(name)}\nStatus: (.*)$", status, re.MULTILINE)
        states[name] = found.group(1) if found else ""
    return states


def installed() -> list[str]:
    """The packages that are there, also half of them: where dpkg was cut off."""
    try:
        with open(_DPKG_STATUS, encoding="utf-8", errors="replace") as stream:
            found = re.findall(r"^Package: (\S+)\nStatus: \S+ \S+ (\S+)$", stream.read(), re.MULTILINE)
    except OSError:
        return []
    return sorted({name for name, state in found if state not in ("not-installed", "config-files")})


def lock_holder(path: str) -> str:
    """The process that holds the lock on `path`, such as "apt-get (process 1234)"; empty if none does."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        wanted = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _whence, _start, _length, process = struct.unpack(_FLOCK, fcntl.fcntl(handle, fcntl.F_GETLK, wanted))
    except OSError:
        return ""
    finally:
        os.close(handle)
    if kind == fcntl.F_UNLCK:
        return ""
    try:
        with open(f"/proc/{process}/comm", encoding="utf-8", errors="replace") as stream:
            return f"{stream.read().strip()} (process {process})"
    except OSError:
        return f"process {process}"


def await_locks(deadline: float, paths: Sequence[str] = LOCKS) -> None:
    """Waits until no other process holds a lock of the package system. Raises ComponentError at `deadline`."""
    began = time.monotonic()
    while True:
        held = next(((path, holder) for path in paths for holder in [lock_holder(path)] if holder), None)
        if held is None:
            return
        if time.monotonic() >= deadline:
            raise ComponentError(
                f"packages: waited {time.monotonic() - began:.0f} s for {held[1]}, which holds {held[0]}; "
                "run again when it has ended (an image that updates itself does so after its first boot)"
            )
        time.sleep(_LOCK_PAUSE_S)


def _run(command: list[str], deadline: float) -> None:
    while True:
        await_locks(deadline)
        try:
            systemd.run(command, timeout=_APT_TIMEOUT_S)
            return
        except ComponentError as error:
            # Another process got the lock first.
            if not _LOCKED.search(str(error)) or time.monotonic() >= deadline:
                raise
            time.sleep(_LOCK_PAUSE_S)


def install(names: list[str]) -> None:
    """Installs packages; fetches APT's lists first if there are none, or if they are too old to have the packages.

    Waits up to LOCK_TIMEOUT_S for others that are installing. Raises ComponentError.
    """
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    # After an interrupted run dpkg refuses everything until that run is completed.
    _run([*_ENVIRONMENT, "dpkg", "--configure", "-a", "--force-confold"], deadline)
    update = [*_APT, "update"]
    options = ["--no-install-recommends", "--option=Dpkg::Options::=--force-confold"]
    wanted = [*_APT, "install", *options, *names]
    fresh = not glob.glob("/var/lib/apt/lists/*_Packages*")
    if fresh:
        _run(update, deadline)
    try:
        _run(wanted, deadline)
    except ComponentError:
        if fresh:
            raise
        _run(update, deadline)
        _run(wanted, deadline)
    missing = [name for name, state in package_states(names).items() if not state.endswith(" ok installed")]
    if missing:
        raise ComponentError(
            f"packages: {', '.join(missing)} are still not installed; is {os.uname().nodename}'s dpkg healthy?"
        )


def would_go(names: list[str]) -> list[str]:
    """What APT would remove with these packages, themselves included. Raises ComponentError."""
    if not names:
        return []
    said = systemd.run([*_APT, "--simulate", "purge", *names], timeout=_APT_TIMEOUT_S)
    return re.findall(r"^(?:Purg|Remv) (\S+)", said, re.MULTILINE)


def dependencies(name: str) -> set[str]:
    """The packages that one needs, by name."""
    said = systemd.run(["dpkg-query", "--show", "--showformat=${Depends}, ${Pre-Depends}", name])
    return set(re.findall(r"[a-z0-9][a-z0-9.+-]+", said))


def purge(names: list[str]) -> None:
    """Removes packages with their settings, and nothing else with them. Raises ComponentError."""
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    _run([*_ENVIRONMENT, "dpkg", "--configure", "-a", "--force-confold"], deadline)
    others = sorted(set(would_go(names)) - set(names))
    if others:
        raise ComponentError(f"packages: {', '.join(others)} would go with {', '.join(names)}, so nothing was removed")
    _run([*_APT, "purge", *names], deadline)
