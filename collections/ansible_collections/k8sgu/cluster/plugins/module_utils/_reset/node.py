# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads what is on a node of what k8sgu may have left there."""

# Paths are text here, as in the record.
# ruff: noqa: PTH106, PTH110, PTH112, PTH118, PTH123, PTH208

from __future__ import annotations

import contextlib
import grp
import json
import os
import pwd
import re
import shlex
from typing import Iterable

from ansible_collections.k8sgu.cluster.plugins.module_utils._component import origin as origins
from ansible_collections.k8sgu.cluster.plugins.module_utils._component import packages, systemd, undo
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import ComponentError
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.origin import Origin, leaves_of
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.undo import DIRECTORY_KIND
from ansible_collections.k8sgu.cluster.plugins.module_utils._reset.plan import Now
from ansible_collections.k8sgu.cluster.plugins.module_utils._volume.disk import MARK

# Where the hierarchy that systemd keeps is: version 2, version 1, and both.
_HIERARCHIES = ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified")
_IPTABLES = ("iptables", "ip6tables")
# The tables that iptables makes in nftables as soon as somebody looks into them.
_MADE_BY_IPTABLES = re.compile(r"(ip|ip6) (filter|nat|mangle|raw|security)")


def read(origin: Origin) -> Now:
    leaves = leaves_of(origin)
    paths = {path: undo.examine(path) for path in origin.paths}
    mounts = mount_points()
    tables = _tables()
    there = packages.installed()
    chains, rules = _rules() if any(entry.chains or entry.comments for entry in leaves) else ([], [])
    return Now(
        units=systemd.show(list(origin.units)),
        paths=paths,
        below={
            path: _names(path) for path in {*paths, *mounts} if path in mounts or paths[path].kind == DIRECTORY_KIND
        },
        mounts=mounts,
        volumes={mount: _volume(mount) for mount in mounts if os.path.exists(os.path.join(mount, MARK))},
        interfaces=sorted(os.listdir("/sys/class/net")),
        tables=tables,
        empty_tables=emptied_tables(),
        chains=chains,
        rules=rules,
        sets=_lines("ipset", "list", "-n") if any(entry.sets for entry in leaves) else [],
        cgroups=_cgroups([*origin.units, *(name for entry in leaves for name in entry.cgroups)]),
        packages=there,
        needed=_needed(sorted(set(origin.packages) & set(there))),
        users=[entry.pw_name for entry in pwd.getpwall()],
        groups=[entry.gr_name for entry in grp.getgrall()],
        sysctls={name: origins.sysctl(name) for name in origin.sysctls},
        swap=origins.swap_areas(),
    )


def mount_points() -> list[str]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
        lines = stream.read().splitlines()
    return [re.sub(r"\\(\d{3})", lambda found: chr(int(found.group(1), 8)), line.split(" ")[4]) for line in lines]


def processes_of(name: str) -> list[int]:
    """The processes in the control group of a unit, or in one at the top, and in all below it."""
    found = set()
    for top in _tops(name):
        for folder, _folders, files in os.walk(top):
            if "cgroup.procs" in files:
                found |= {int(line) for line in _text(os.path.join(folder, "cgroup.procs")).split()}
    return sorted(found - {0})


def _tops(name: str) -> list[str]:
    return [
        path
        for hierarchy in _HIERARCHIES
        for path in (f"{hierarchy}/system.slice/{name}", f"{hierarchy}/{name}")
        if os.path.isdir(path)
    ]


def _cgroups(names: Iterable[str]) -> dict[str, int]:
    found = {name: len(processes_of(name)) for name in dict.fromkeys(names)}
    return {name: number for name, number in found.items() if number or (_tops(name) and name.startswith("kubepods"))}


def _names(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def _lines(*command: str) -> list[str]:
    """What a program says; nothing where it is not installed, so that nothing of its kind can be there."""
    try:
        return systemd.run(command, timeout=30).splitlines()
    except ComponentError as error:
        if "No such file" in str(error):
            return []
        raise


def _volume(mount: str) -> str:
    try:
        found = json.loads(_text(os.path.join(mount, MARK)))
        return f"the volume of {found['node']} in {found['cluster']}"
    except (ValueError, KeyError, TypeError):
        return "the volume"


def _tables() -> list[str]:
    return [line.replace("table ", "", 1).strip() for line in _lines("nft", "list", "tables")]


def _without_rules(table: str) -> bool:
    """Whether a table has nothing but chains of iptables without rules, which let everything pass."""
    lines = [line.strip() for line in _lines("nft", "list", "table", *table.split(" "))]
    chains = [line for line in lines if line.startswith("chain ")]
    inner = [line for line in lines[1:-1] if line and line != "}" and line not in chains]
    let_pass = [line for line in inner if line.startswith("type ") and line.endswith("policy accept;")]
    return len(chains) == len(let_pass) == len(inner)


def _rules() -> tuple[list[tuple[str, str, str]], list[tuple[str, str, str, str]]]:
    """The chains of iptables, and its rules that have a comment."""
    chains, rules = [], []
    for program in _IPTABLES:
        table = ""
        for line in _lines(f"{program}-save"):
            if line.startswith("*"):
                table = line[1:].strip()
            elif line.startswith(":"):
                chains.append((program, table, line[1:].split(" ")[0]))
            elif line.startswith("-A ") and " --comment " in line:
                words = shlex.split(line)
                rules.append((program, table, line[3:], words[words.index("--comment") + 1]))
    return chains, rules


def emptied_tables() -> list[str]:
    """Tables that iptables made and that hold nothing any more."""
    return [name for name in _tables() if _MADE_BY_IPTABLES.fullmatch(name) and _without_rules(name)]


def remove_groups(name: str) -> None:
    """Removes control groups without processes, the innermost first. Those of units are systemd's own."""
    if name.endswith(".service"):
        return
    for top in _tops(name):
        for folder, _folders, _files in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)


def holders(path: str) -> list[int]:
    """The processes that have something below the path open, or work there."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        links = [f"/proc/{entry}/cwd", f"/proc/{entry}/root"]
        links += [f"/proc/{entry}/fd/{name}" for name in _names(f"/proc/{entry}/fd")]
        targets = []
        for link in links:
            with contextlib.suppress(OSError):
                targets.append(os.readlink(link))
        if any(target == path or target.startswith(path + "/") for target in targets):
            found.append(int(entry))
    return found


def named(processes: list[int]) -> str:
    return ", ".join(f"{_text(f'/proc/{process}/comm').strip() or '?'} (process {process})" for process in processes)


def _needed(names: list[str]) -> dict[str, str]:
    """{package of ours: one that would go with it and is not ours}, as APT says."""
    found: dict[str, str] = {}
    left = list(names)
    while left:
        gone = packages.would_go(left)
        others = sorted(set(gone) - set(names) - set(found))
        if not others:
            break
        for other in others:
            holders = [name for name in left if name in packages.dependencies(other)] or left
            found.update(dict.fromkeys(holders, other))
        left = [name for name in left if name not in found]
    return found
