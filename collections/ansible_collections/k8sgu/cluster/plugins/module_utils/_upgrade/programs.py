# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads from a node which programs it has and runs, and asks programs which flags they know.

Standard library only: it runs on nodes.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import INSTALL_ROOT
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.record import DIRECTORY
from ansible_collections.k8sgu.cluster.plugins.module_utils._files import sha256_of

# /opt/k8sgu/<component>/<version>/<file>
_PLACE = re.compile(rf"{re.escape(INSTALL_ROOT)}/(?P<component>[^/]+)/(?P<version>[^/]+)/(?P<file>[^/]+)")
# Of a running program's flags these alone leave the node: others may have secrets in them.
_SHOWN_FLAGS = ("emulated-version",)
_FLAG = re.compile(r"^\s+(?:-\w, )?--(?P<name>[a-z][a-z0-9-]*)", re.MULTILINE)
# "kube:NAME=true|false (BETA - default=true)"; older programs name no component.
_GATE = re.compile(r"(?:^|[\s:])(?P<name>[A-Z]\w+)=true\|false \(")
_HELP_TIMEOUT_S = 60
PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
NOBODY = 65534
# Given to a kubelet instead of its CA, so that it ends once it has read and checked its configuration.
NO_CA = "/nonexistent/k8sgu/ca.crt"
_READ_CONFIG = ("unable to load client CA", NO_CA)

Values = Mapping[str, Any]
# Runs a command and returns its status and all its output.
Ask = Callable[[Sequence[str]], "tuple[int, str]"]
FAULTS = (OSError, subprocess.SubprocessError)


def running(root: Path) -> dict[str, dict[str, Any]]:
    """{file: {"version", "flags"}} of programs of ours that run now, whatever their link says."""
    found: dict[str, dict[str, Any]] = {}
    for process in sorted((root / "proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            place = _PLACE.match(os.readlink(process / "exe"))
            words = (process / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:
            continue  # it ended meanwhile, or is the kernel's
        if place:
            name = place["file"].partition(" ")[0]
            found.setdefault(name, {"version": place["version"], "flags": _flags(words)})
    return found


def _flags(words: Sequence[str]) -> dict[str, str]:
    pairs = (word[2:].partition("=") for word in words if word.startswith("--"))
    return {name: value for name, _equals, value in pairs if name in _SHOWN_FLAGS}


def held(root: Path) -> set[tuple[str, str]]:
    """(component, file) of every program that the components of this node have placed."""
    found = set()
    for path in sorted((root / DIRECTORY.lstrip("/")).glob("*.json")):
        try:
            places = list(json.loads(path.read_bytes())["binaries"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        for place in places:
            match = _PLACE.fullmatch(place)
            if match:
                found.add((match["component"], match["file"]))
    return found


def files(root: Path, wanted: Sequence[Values], versions: Mapping[str, str]) -> list[dict[str, Any]]:
    """Those of a release's programs that this node has in some version, each with what is there.

    `versions`: of the release's components. `state`: there, missing, different (another content), or unmirrored (of a
    component that the mirror lacks).
    """
    mine = held(root)
    found = []
    mirrored = {item["component"] for item in wanted}
    for component, name in sorted(mine):
        if component in versions and component not in mirrored:
            path = f"{INSTALL_ROOT}/{component}/{versions[component]}/{name}"
            found.append({"path": path, "name": name, "size": 0, "state": "unmirrored"})
    for item in wanted:
        if (item["component"], item["name"]) not in mine:
            continue
        path = "{}/{}/{}/{}".format(INSTALL_ROOT, item["component"], item["version"], item["name"])
        place = root / path.lstrip("/")
        state = "missing"
        if place.is_file():
            state = "there" if sha256_of(str(place)) == item["sha256"] else "different"
        found.append({"path": path, "name": item["name"], "size": int(item["size"]), "state": state})
    return found


def ask(command: Sequence[str], user: int | None = None) -> tuple[int, str]:
    """Status and output of a command. Raises OSError, SubprocessError."""

    def become() -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)

    done = subprocess.run(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_HELP_TIMEOUT_S,
        check=False,
        cwd="/",
        preexec_fn=become if user == NOBODY else None,
    )
    return done.returncode, done.stdout.decode("utf-8", "replace")


def known_flags(text: str) -> dict[str, list[str]]:
    """The flags and feature gates in a program's --help."""
    return {
        "flags": sorted({match["name"] for match in _FLAG.finditer(text)}),
        "gates": sorted({match["name"] for match in _GATE.finditer(text)}),
    }


def knowledge(root: Path, there: Sequence[Values], ask: Ask = ask) -> dict[str, Any]:
    """{program: {"flags", "gates"} or {"problem"}} as a release's programs say that are on this node (of `files`)."""
    places = {item["name"]: item["path"] for item in there if item["state"] == "there"}
    found: dict[str, Any] = {}
    for name in PROGRAMS:
        if name not in places:
            continue
        try:
            status, said = ask([str(root / places[name].lstrip("/")), "--help"])
        except FAULTS as error:
            found[name] = {"problem": str(error)}
            continue
        found[name] = {"problem": last_line(said, status)} if status else known_flags(said)
    return found


def kubelet_configuration(program: str, config: Path) -> str:
    """What a kubelet finds wrong with a configuration; empty where it takes it. Raises OSError, SubprocessError.

    It reads and validates the file, and ends since it is told of a CA that is not there. As nobody, without a
    kubeconfig, it can change nothing.
    """
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory, "config.yaml")
        copy.write_bytes(config.read_bytes())
        copy.chmod(0o444)
        Path(directory).chmod(0o755)
        status, said = ask([program, f"--config={copy}", f"--client-ca-file={NO_CA}"], user=NOBODY)
    if all(part in said for part in _READ_CONFIG):
        return ""
    return last_line(said, status)


def last_line(said: str, status: int) -> str:
    """What a program said at its end."""
    lines = [line for line in said.splitlines() if line.strip()]
    return lines[-1].strip()[-500:] if lines else f"it ended with status {status} and said nothing"
