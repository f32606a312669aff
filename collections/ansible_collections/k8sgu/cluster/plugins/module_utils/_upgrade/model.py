# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gates judge, and what each of them says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster.versions import numbers

FORWARD, BACK = "forward", "back"
Object = Mapping[str, Any]


@dataclass(frozen=True)
class Gate:
    """One gate; without problems it is passed, and `why` says what was seen."""

    name: str
    problems: tuple[str, ...] = ()
    why: str = ""

    @property
    def passed(self) -> bool:
        return not self.problems

    def shown(self) -> dict[str, Any]:
        return {"gate": self.name, "passed": self.passed, "why": self.why, "problems": list(self.problems)}


@dataclass(frozen=True)
class Api:
    """What the API server answered; `problem` says why it did not.

    `metrics` has the deprecated APIs that each API server was asked for since it started; `managers` who wrote objects
    by one of them; `probes` the answers to changes that were tried without being made.
    """

    problem: str = ""
    nodes: Sequence[Object] = ()
    pods: Sequence[Object] = ()
    budgets: Sequence[Object] = ()
    definitions: Sequence[Object] = ()
    services: Sequence[Object] = ()
    webhooks: Sequence[Object] = ()
    namespaces: Sequence[Object] = ()
    backends: Mapping[str, int] = field(default_factory=dict)
    metrics: Sequence[Sequence[Mapping[str, str]]] = ()
    managers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    probes: Sequence[Mapping[str, str]] = ()


@dataclass(frozen=True)
class Machine:
    """A node of the inventory: `role`, whether it answered, and the facts of upgrade_facts."""

    name: str
    role: str
    answered: bool
    facts: Mapping[str, Any]

    def version(self, program: str) -> str:
        """The version of a program that runs there, or else of the one that is installed; empty if there is none."""
        ran = self.facts.get("running", {}).get(program, {}).get("version")
        return str(ran or self.facts.get("installed", {}).get(program) or "")

    def emulated(self, program: str) -> str:
        """The minor version that a program was told to emulate, such as 1.36; empty where it was not told."""
        flags = self.facts.get("running", {}).get(program, {}).get("flags") or {}
        # kube-apiserver names its parts: kube=1.36 or kube:1.36.
        found = numbers(str(flags.get("emulated-version") or ""))
        return ".".join(map(str, found[:2]))


@dataclass(frozen=True)
class Asked:
    """Everything that the gates judge. Versions are complete: 1.36.4."""

    runs: str
    target: str
    direction: str
    staged: bool
    released: Sequence[str]
    releases_dir: str
    machines: Sequence[Machine]
    api: Api
    etcd_target: str = ""
    architectures: Sequence[str] = ()
    drained: Sequence[str] | None = None
    flags: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    description: Sequence[str] = ()
    infrastructure: Mapping[str, Any] = field(default_factory=dict)
    verify: Sequence[Any] = ()

    @property
    def answered(self) -> list[Machine]:
        return [machine for machine in self.machines if machine.answered]

    @property
    def control_plane(self) -> list[Machine]:
        return [machine for machine in self.answered if machine.role == "control_plane"]


def minor(version: str) -> tuple[int, ...]:
    return numbers(version)[:2]


def shown(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def some(items: Sequence[str], most: int = 5) -> str:
    """The first of many, and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more
