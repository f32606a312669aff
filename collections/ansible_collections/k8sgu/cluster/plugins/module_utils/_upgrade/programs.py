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
from ansible_collections.k8sgu.cluster.plugins.module_utils._preflight.living import KUBERNETES

# /opt/k8sgu/<component>/<version>/<file>
_PLACE = re.compile(rf"{re.escape(INSTALL_ROOT)}/(?P<component>[^/]+)/(?P<version>[^/]+)/(?P<file>[^/]+)")
# Of a running program's flags these alone leave the node: others may have secrets in them.
_SHOWN_FLAGS = ("emulated-version",)
_FLAG = re.compile(r"^\s+(?:-\w, )?--(?P<name>[a-z][a-z0-9-]*)", re.MULTILINE)
_HELP_TIMEOUT_S = 60
NOBODY = 65534
# Given to a kubelet instead of its CA, so that it ends once it has read and checked its configuration.
NO_CA = "/nonexistent/k8sgu/ca.crt"
# What it says when it took the configuration and ends for what it lacks: 1.36, and 1.37, which looks for it later.
_TOOK_CONFIG = ("failed to construct kubelet dependencies", f"failed to run Kubelet: open {NO_CA}: ")
_UNKNOWN_FIELDS = re.compile(r"strict decoding error: (?P<fields>.*?)\"?$", re.MULTILINE)
# How programs say why they end: klog's err="...", or a panic.
_SAID = re.compile(r'^panic: (?P<panic>.*)$|"command failed" err="(?P<failed>.*)"', re.MULTILINE)

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


def ask(command: Sequence[str]) -> tuple[int, str]:
    """Status and output of a command. Raises OSError, SubprocessError."""
    return _ask(command, None)


def ask_as_nobody(command: Sequence[str]) -> tuple[int, str]:
    """The same as a user that can change nothing. Raises OSError, SubprocessError."""

    def become() -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)

    return _ask(command, become)


def _ask(command: Sequence[str], become: Callable[[], None] | None) -> tuple[int, str]:
    done = subprocess.run(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_HELP_TIMEOUT_S,
        check=False,
        cwd="/",
        preexec_fn=become,
    )
    return done.returncode, done.stdout.decode("utf-8", "replace")


def places(root: Path, there: Sequence[Values]) -> dict[str, str]:
    """{file: path} of a release's programs that are on this node, of what `files` found."""
    return {item["name"]: str(root / item["path"].lstrip("/")) for item in there if item["state"] == "there"}


def known_flags(programs: Mapping[str, str], ask: Ask = ask_as_nobody) -> dict[str, Any]:
    """{program: {"flags"} or {"problem"}} as the programs say themselves."""
    found: dict[str, Any] = {}
    for name in KUBERNETES:
        if name in programs:
            status, said = _answer([programs[name], "--help"], ask)
            flags = sorted({match["name"] for match in _FLAG.finditer(said)})
            found[name] = {"problem": reason(said, status)} if status else {"flags": flags}
    return found


def refused_gates(
    programs: Mapping[str, str], gates: Mapping[str, Mapping[str, str]], ask: Ask = ask_as_nobody
) -> dict[str, dict[str, str]]:
    """{program: {feature gate: why}} of the gates (NAME: value) that the programs do not take.

    They are asked, since their help leaves out gates that they take and that cannot be changed any more.
    """
    found: dict[str, dict[str, str]] = {}
    for program, given in gates.items():
        for name, value in given.items():
            if program in programs:
                # None of these starts anything: kube-proxy knows its gates only when it reads its configuration.
                with tempfile.TemporaryDirectory() as directory:
                    ends = f"--write-config-to={directory}/config" if program == "kube-proxy" else "--version"
                    status, said = _answer([programs[program], f"--feature-gates={name}={value}", ends], ask)
                if status and "feature gate" in reason(said, status):
                    found.setdefault(program, {})[name] = reason(said, status)
    return found


def kubelet_configuration(program: str, config: Path, ask: Ask = ask_as_nobody) -> str:
    """What a kubelet finds wrong with a configuration; empty where it takes it. Raises OSError.

    It reads and validates the file, and ends since it is told of a CA that is not there. As nobody, without a
    kubeconfig, it can change nothing.
    """
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory, "config.yaml")
        copy.write_bytes(config.read_bytes())
        copy.chmod(0o444)
        Path(directory).chmod(0o755)
        status, said = _answer([program, f"--config={copy}", f"--client-ca-file={NO_CA}"], ask)
    # It goes on with a field that it does not know, as if it were not there.
    unknown = _UNKNOWN_FIELDS.search(said)
    if unknown:
        return unknown["fields"].replace('\\"', '"')
    return "" if any(text in said for text in _TOOK_CONFIG) else reason(said, status)


def _answer(command: Sequence[str], ask: Ask) -> tuple[int, str]:
    try:
        return ask(command)
    except FAULTS as error:
        return -1, str(error)


def reason(said: str, status: int) -> str:
    """Why a program ended, of all that it said."""
    match = _SAID.search(said)
    if match:
        return (match["panic"] or match["failed"])[:500]
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][-500:] if lines else f"it ended with status {status} and said nothing"
