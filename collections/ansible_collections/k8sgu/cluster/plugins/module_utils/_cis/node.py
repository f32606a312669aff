# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads a node: command lines of running programs, owners and modes of files, contents of files without secrets.

Standard library only: it runs on nodes. Only owners and modes of secret files leave the node.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call

PROGRAMS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kube-router",
)
# Copies of keys for the programs that do not run as root; their units make them.
COPIES = tuple(f"/run/{program}" for program in PROGRAMS[:4])
TREES = ("/etc/kubernetes", "/etc/etcd", "/etc/cni/net.d", "/var/lib/cni/networks", "/var/lib/kubelet/pki", *COPIES)
PLACES = ("/var/lib/kubelet", "/root/.kube", "/home", "/etc/systemd/system")
UNITS = "/etc/systemd/system"
# Files without secrets; the content of all others stays on the node.
TEXTS = (
    "/etc/kubernetes/scheduler.yml",
    "/etc/kubernetes/authentication.yml",
    "/etc/kubernetes/admission.yml",
    "/etc/kubernetes/audit-policy.yml",
    "/etc/etcd/pki/ca.crt",
    "/etc/kubernetes/pki/client-ca-bundle.crt",
)
ENCRYPTION = "/etc/kubernetes/encryption.yml"
_PROVIDER = re.compile(r"^\s*-\s*(aescbc|aesgcm|secretbox|kms|identity)\s*:", re.MULTILINE)
# An administrator's credentials, by the names that upstream's tools give such files.
_ADMINISTRATORS = re.compile(r"(^|[/.-])(super-)?admin[^/]*\.(conf|kubeconfig|pem)$")


def _name(number: int, of: Any, field: int = 0) -> str:
    try:
        return str(of(number)[field])
    except KeyError:
        return str(number)


def access(path: Path) -> dict[str, Any]:
    """Owner, group and mode of a path. Raises OSError."""
    status = path.lstat()
    return {
        "owner": _name(status.st_uid, pwd.getpwuid),
        "group": _name(status.st_gid, grp.getgrgid),
        "mode": f"{stat.S_IMODE(status.st_mode):04o}",
        "kind": "directory" if stat.S_ISDIR(status.st_mode) else "link" if path.is_symlink() else "file",
    }


def processes(proc: Path = Path("/proc")) -> dict[str, dict[str, Any]]:
    """{program: its user and its flags}; flags are without dashes, and "true" if they have no value."""
    found = {}
    for process in proc.glob("[0-9]*"):
        try:
            program = Path(os.readlink(process / "exe")).name
            if program not in PROGRAMS:
                continue
            arguments = (process / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")[1:]
            user = _name(process.stat().st_uid, pwd.getpwuid)
        except OSError:
            continue  # it ended meanwhile
        found[program] = {"user": user, "flags": flags(arguments)}
    return found


def flags(arguments: list[str]) -> dict[str, str]:
    """Parses flags in Go's forms: --name=value, --name value, --name."""
    result: dict[str, str] = {}
    name = ""
    for argument in arguments:
        if argument.startswith("-"):
            name, separator, value = argument.lstrip("-").partition("=")
            result[name] = value if separator else "true"
            name = "" if separator else name
        elif name:
            result[name], name = argument, ""
    return result


def paths_in_flags(running: dict[str, dict[str, Any]]) -> list[str]:
    """The paths that the programs' flags name."""
    return [value for process in running.values() for value in process["flags"].values() if value.startswith("/")]


def files(more: list[str]) -> dict[str, dict[str, Any]]:
    """{path: owner, group and mode} of all files that the items check, and of `more`."""
    paths = [Path(place) for place in (*TREES, *PLACES, *more)]
    for tree in TREES:
        paths += [Path(directory, name) for directory, below, names in os.walk(tree) for name in (*below, *names)]
    paths += sorted(Path(UNITS).glob("*.service"))
    paths += [path for home in (Path("/root"), *Path("/home").glob("*")) for path in home.glob(".kube/*")]
    result = {}
    for path in paths:
        try:
            result[str(path)] = access(path)
        except OSError:
            continue  # not on this node
    return result


def administrators(paths: list[str]) -> list[str]:
    """The paths that look like an administrator's credentials."""
    return [path for path in paths if _ADMINISTRATORS.search(path) or "/.kube/" in path]


def show() -> dict[str, Any]:
    """Everything that the items need from this node, as plain data."""
    texts = {}
    for name in TEXTS:
        try:
            texts[name] = Path(name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # not on this node
    try:
        providers = _PROVIDER.findall(Path(ENCRYPTION).read_text(encoding="utf-8"))
    except OSError:
        providers = []
    running = processes()
    found = files(paths_in_flags(running))
    return {
        "processes": running,
        "files": found,
        "texts": texts,
        "encryption_providers": providers,
        "administrators": administrators(list(found)),
    }


def run(_call: Call) -> dict[str, Any]:
    """The result of the module security_facts."""
    return {"changed": False, "shown": show()}
