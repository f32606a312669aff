# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Users and groups of a node."""

# Paths are text here, as in the options and in results.

from __future__ import annotations

import grp
import pwd
from dataclasses import dataclass

from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import User

_FIRST_PERSON = 1000


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


def of_system() -> dict[str, list[str]]:
    """The names of accounts that are for programs: https://www.debian.org/doc/debian-policy/ch-opersys.html"""
    return {
        "users": [entry.pw_name for entry in pwd.getpwall() if entry.pw_uid < _FIRST_PERSON],
        "groups": [entry.gr_name for entry in grp.getgrall() if entry.gr_gid < _FIRST_PERSON],
    }


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
