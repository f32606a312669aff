# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Users, groups and distribution packages of a node."""

# Paths are text here, as in the options and in results.
# ruff: noqa: PTH123, PTH207

from __future__ import annotations

import glob
import grp
import os
import pwd
import re
from dataclasses import dataclass

from ansible_collections.k8sgu.cluster.plugins.module_utils._component import systemd
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import ComponentError, User

_DPKG_STATUS = "/var/lib/dpkg/status"
_APT = ["apt-get", "--yes", "--quiet", "--option=DPkg::Lock::Timeout=300"]
_APT_TIMEOUT_S = 900


@dataclass(frozen=True)
class Account:
    """A user as the node has it."""

    group: str
    home: str


def account(name: str) -> Account | None:
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    try:
        primary = grp.getgrgid(entry.pw_gid).gr_name
    except KeyError:
        primary = str(entry.pw_gid)
    return Account(primary, entry.pw_dir)


def user_id(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return int(name) if name.isdigit() else None


def group_id(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return int(name) if name.isdigit() else None


def user_commands(user: User, current: Account | None, groups: frozenset[str]) -> list[list[str]]:
    """The commands that create or change the user as wanted. `groups` are the groups that exist. Pure."""
    commands = [] if user.group in groups else [["groupadd", "--system", user.group]]
    if current is None:
        command = ["useradd", "--system", "--gid", user.group, "--home-dir", user.home, "--no-create-home"]
        return [*commands, [*command, "--shell", "/usr/sbin/nologin", user.name]]
    if current.group != user.group:
        commands.append(["usermod", "--gid", user.group, user.name])
    if current.home != user.home:
        commands.append(["usermod", "--home", user.home, user.name])
    return commands


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


def install_packages(names: list[str]) -> None:
    """Installs by APT; fetches its lists if there are none, or if they are too old to find a package."""
    environment = ["env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"]
    # After an interrupted run dpkg refuses everything until that run is completed.
    systemd.run([*environment, "dpkg", "--configure", "-a", "--force-confold"], timeout=_APT_TIMEOUT_S)
    update = [*environment, *_APT, "update"]
    install = [
        *environment,
        *_APT,
        "install",
        "--no-install-recommends",
        "--option=Dpkg::Options::=--force-confold",
        *names,
    ]
    fresh = not glob.glob("/var/lib/apt/lists/*_Packages*")
    if fresh:
        systemd.run(update, timeout=_APT_TIMEOUT_S)
    try:
        systemd.run(install, timeout=_APT_TIMEOUT_S)
    except ComponentError:
        if fresh:
            raise
        systemd.run(update, timeout=_APT_TIMEOUT_S)
        systemd.run(install, timeout=_APT_TIMEOUT_S)
    missing = [name for name, state in package_states(names).items() if not state.endswith(" ok installed")]
    if missing:
        raise ComponentError(
            f"packages: {', '.join(missing)} are still not installed; is {os.uname().nodename}'s dpkg healthy?"
        )
