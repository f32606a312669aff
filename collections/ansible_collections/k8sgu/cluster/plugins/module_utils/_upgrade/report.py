# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks the API server, and judges by every gate; all problems are told together."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.errors import MirrorError
from ansible_collections.k8sgu.cluster.plugins.module_utils._mirror.release import Release, find_release
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.libraries import (
    CRYPTOGRAPHY,
    YAML,
    LibraryMissing,
    require,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._options.module import Call, Module
from ansible_collections.k8sgu.cluster.plugins.module_utils._pki import certificate_scan
from ansible_collections.k8sgu.cluster.plugins.module_utils._preflight.releases import released
from ansible_collections.k8sgu.cluster.plugins.module_utils._upgrade import (
    api,
    description,
    flags,
    members,
    nodes,
    objects,
    versions,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._upgrade.model import Api, Asked, Gate, Machine
from ansible_collections.k8sgu.cluster.plugins.module_utils._upgrade.options import ARGUMENT_SPECS


class Refused(Exception):
    """The upgrade is refused; the text has every problem."""


class NotAsked(Exception):
    """An option cannot be used; the text says what to do."""


def run(call: Call) -> dict[str, Any]:
    """The module's result. Raises LibraryMissing, NotAsked and Refused."""
    require(CRYPTOGRAPHY, YAML)
    options = call.options
    scan: list[dict[str, str]] = []
    if options["state_dir"]:
        found, errors = certificate_scan.find([options["state_dir"]])
        if errors:
            raise NotAsked(f"state_dir: cannot be read: {'; '.join(errors)}")
        scan = [item._asdict() for item in found]
    machines = machines_of(options["nodes"])
    servers = sum(1 for one in machines if one.answered and "kube-apiserver" in one.facts["running"])
    answer = api.read(options["kubeconfig"], options["patience"], servers, options["target"])
    cluster = asked(options, machines, answer)
    gates = judge(cluster, scan, datetime.datetime.now(datetime.timezone.utc))
    problems = [problem for gate in gates for problem in gate.problems]
    result = {
        "changed": False,
        "gates": [gate.shown() for gate in gates],
        "problems": problems,
        "count": len(problems),
        "fetched": not nodes.files(replace(cluster, staged=True)).problems,
        "refusal": refusal(options["target"], problems) if problems else "",
        "table": table(gates),
    }
    if problems and options["refuse"]:
        raise Refused(result["refusal"])
    return result


def machines_of(option: Mapping[str, Any]) -> list[Machine]:
    return [
        Machine(name, str(item["role"]), bool(item.get("facts")), item.get("facts") or {})
        for name, item in sorted(option.items())
    ]


def asked(options: Mapping[str, Any], machines: Sequence[Machine], answer: Api) -> Asked:
    release: Release | None = None
    # The gate `release` tells of one that is not there.
    with contextlib.suppress(MirrorError):
        release = find_release(options["releases_dir"], options["target"])
    etcd = next((item.version for item in release.components if item.name == "etcd"), "") if release else ""
    return Asked(
        runs=options["runs"],
        target=options["target"],
        direction=options["direction"],
        staged=options["staged"],
        released=released(Path(options["releases_dir"])),
        releases_dir=options["releases_dir"],
        machines=machines,
        api=answer,
        etcd_target=etcd,
        architectures=release.architectures if release else (),
        drained=options["drained"],
        flags=options["flags"],
        description=options["description"],
        infrastructure=options["infrastructure"],
        verify=options["verify"],
    )


def judge(what: Asked, controller: Sequence[Mapping[str, str]], now: datetime.datetime) -> list[Gate]:
    """Every gate, in the order in which a reader would mend what is wrong. `controller`: its certificates."""
    gates = [
        versions.release(what),
        versions.hop(what),
        nodes.reached(what),
        objects.answered(what),
        versions.skew(what),
        description.description(what),
        description.verify(what),
        members.etcd(what),
        nodes.architecture(what),
        nodes.certificates(what, controller, now),
        nodes.disk(what),
        nodes.files(what),
        flags.flags(what),
    ]
    if not what.api.problem:
        gates += [
            nodes.ready(what),
            objects.removed_apis(what),
            objects.stored_versions(what),
            objects.aggregated(what),
            objects.webhooks(what),
            nodes.budgets(what),
        ]
    return gates


def refusal(target: str, problems: Sequence[str]) -> str:
    count = f"{len(problems)} problem{'' if len(problems) == 1 else 's'}"
    text = "\n".join(f"- {problem}" for problem in problems)
    return f"{count} on the way to {target}, and nothing was changed:\n{text}"


def table(gates: Sequence[Gate]) -> list[str]:
    """One line for each gate: its name, whether it was passed, and what was seen."""
    width = max(len(gate.name) for gate in gates)
    lines = []
    for gate in gates:
        more = f" (and {len(gate.problems) - 1} more)" if len(gate.problems) > 1 else ""
        seen = f"{gate.problems[0]}{more}" if gate.problems else gate.why
        lines.append(f"{gate.name.ljust(width)}  {'passed ' if gate.passed else 'refused'}  {seen}")
    return lines


MODULE = Module(ARGUMENT_SPECS["upgrade_gates"], run, (LibraryMissing, NotAsked, Refused))
