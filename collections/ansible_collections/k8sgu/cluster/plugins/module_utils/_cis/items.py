# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Items, their findings, and the questions that many items ask about a node."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Callable, Iterable

from ansible_collections.k8sgu.cluster.plugins.module_utils._kubernetes.yaml_text import documents

PASS, FAIL, MANUAL = "PASS", "FAIL", "MANUAL"


@dataclass(frozen=True)
class Finding:
    """`number` and `title` of the item, its `status`, and what was found; `node` is empty for the whole cluster."""

    number: str
    title: str
    status: str
    reason: str
    node: str = ""


@dataclass(frozen=True)
class Verdict:
    status: str
    reason: str


def passed(reason: str) -> Verdict:
    return Verdict(PASS, reason)


def failed(reason: str) -> Verdict:
    return Verdict(FAIL, reason)


def manual(reason: str) -> Verdict:
    return Verdict(MANUAL, reason)


def judged(good: bool, reason: str) -> Verdict:
    return Verdict(PASS if good else FAIL, reason)


class Node:
    """What was read from one node (`node.show`)."""

    def __init__(self, shown: dict[str, Any]) -> None:
        self.processes: dict[str, dict[str, Any]] = shown["processes"]
        self.files: dict[str, dict[str, str]] = shown["files"]
        self.texts: dict[str, str] = shown["texts"]
        self.encryption_providers: list[str] = shown["encryption_providers"]
        self.administrators: list[str] = shown["administrators"]
        # The kubelet's running configuration (`report.kubelets`); empty if the kubelet did not answer.
        self.kubelet: dict[str, Any] = shown.get("kubelet") or {}

    def flag(self, program: str, name: str) -> str | None:
        value = self.processes[program]["flags"].get(name) if program in self.processes else None
        return None if value is None else str(value)

    def user(self, program: str) -> str:
        return str(self.processes.get(program, {}).get("user", ""))


Question = Callable[[Node], Verdict]


@dataclass(frozen=True)
class Item:
    """`program` must run on the node for the question to make sense."""

    number: str
    title: str
    program: str
    question: Question


def ask(items: Iterable[Item], name: str, node: Node) -> list[Finding]:
    findings = []
    for item in items:
        if item.program not in node.processes:
            verdict = failed(f"{item.program} does not run here, so this cannot be checked")
        else:
            verdict = item.question(node)
        findings.append(Finding(item.number, item.title, verdict.status, verdict.reason, name))
    return findings


def from_flags(program: str, name: str, items: Iterable[Item]) -> list[Item]:
    """The items, failing if the flag `name` names a configuration file: the program then ignores its other flags."""

    def asked(item: Item) -> Item:
        def question(node: Node) -> Verdict:
            path = node.flag(program, name)
            return failed(f"--{name}={path}: {program} ignores its flags") if path else item.question(node)

        return replace(item, question=question)

    return [asked(item) for item in items]


def flag_is(program: str, name: str, *allowed: str, default: str | None = None) -> Question:
    """The flag has one of the allowed values; `default` is its value if it is not set."""

    def question(node: Node) -> Verdict:
        value = node.flag(program, name)
        seen = f"--{name}={value}" if value is not None else f"--{name} is not set (default {default or 'none'})"
        return judged((default if value is None else value) in allowed, seen)

    return question


def flag_absent(program: str, name: str) -> Question:
    def question(node: Node) -> Verdict:
        value = node.flag(program, name)
        return judged(value is None, f"--{name} is {'not set' if value is None else 'set'}")

    return question


def flags_set(program: str, *names: str) -> Question:
    """Each of the flags is set."""

    def question(node: Node) -> Verdict:
        missing = [f"--{name}" for name in names if not node.flag(program, name)]
        found = ", ".join(f"--{name}={node.flag(program, name)}" for name in names if node.flag(program, name))
        return judged(not missing, f"not set: {', '.join(missing)}" if missing else found)

    return question


def flag_holds(program: str, name: str, wanted: str, default: Iterable[str] = ()) -> Question:
    """The flag's list has an element, or the program's defaults (`default`) have it and it is not turned off."""

    def question(node: Node) -> Verdict:
        value = node.flag(program, name) or ""
        return judged(wanted in value.split(",") or wanted in default, f"--{name}={value}")

    return question


def flag_lacks(program: str, name: str, unwanted: str, default: str = "") -> Question:
    """The flag's list does not have an element; `default` is the list if the flag is not set."""

    def question(node: Node) -> Verdict:
        value = node.flag(program, name) or default
        return judged(unwanted not in value.split(","), f"--{name}={value or 'not set'}")

    return question


def flag_at_least(program: str, name: str, least: int) -> Question:
    def question(node: Node) -> Verdict:
        value = node.flag(program, name)
        good = value is not None and value.lstrip("-").isdigit() and int(value) >= least
        return judged(good, f"--{name}={value or 'not set'}, should be at least {least}")

    return question


def strong_ciphers(suites: Iterable[str]) -> Verdict:
    """All suites have forward secrecy and authenticated encryption. Others on the benchmark's list use static RSA."""
    given = [suite for suite in suites if suite]
    weak = [
        suite
        for suite in given
        if not suite.startswith(("TLS_ECDHE_", "TLS_AES_", "TLS_CHACHA20_"))
        or not ("GCM" in suite or "CHACHA" in suite)
    ]
    if not given:
        return failed("no cipher suites are chosen")
    return judged(
        not weak, f"weak: {', '.join(weak)}" if weak else f"{len(given)} suites, all ECDHE with GCM or ChaCha20"
    )


def mode_at_most(mode: str, limit: str) -> bool:
    """Whether a mode allows nothing that `limit` does not allow."""
    return int(mode, 8) & ~int(limit, 8) == 0


def files_mode(limit: str, select: Callable[[str], bool], what: str) -> Question:
    """Every file that `select` chooses has at most this mode; fails if there is no such file."""

    def question(node: Node) -> Verdict:
        chosen = {path: found for path, found in node.files.items() if select(path) and found["kind"] != "link"}
        wide = [f"{path} {found['mode']}" for path, found in chosen.items() if not mode_at_most(found["mode"], limit)]
        if not chosen:
            return failed(f"{what}: there are none")
        return judged(not wide, ", ".join(wide) if wide else f"{_some(chosen)}: {limit} or narrower")

    return question


def files_owner(owners: Iterable[str], select: Callable[[str], bool], what: str) -> Question:
    """Every path that `select` chooses is owned by one of `owners` ("user:group")."""
    allowed = list(owners)

    def question(node: Node) -> Verdict:
        chosen = {path: f"{found['owner']}:{found['group']}" for path, found in node.files.items() if select(path)}
        others = [f"{path} {owner}" for path, owner in chosen.items() if owner not in allowed]
        if not chosen:
            return failed(f"{what}: there are none")
        return judged(not others, ", ".join(others) if others else f"{_some(chosen)}: {' or '.join(allowed)}")

    return question


def _some(paths: Iterable[str]) -> str:
    names = sorted(paths)
    return names[0] if len(names) == 1 else f"{len(names)} files such as {names[0]}"


def is_path(*paths: str) -> Callable[[str], bool]:
    return lambda path: path in paths


def mapping(text: str) -> dict[str, Any]:
    """A configuration file's first document, {} if it is empty. Raises KubernetesError if it is not YAML."""
    found = documents(text, "a node's file")
    return found[0] if found and isinstance(found[0], dict) else {}
