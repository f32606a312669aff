# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate of the user's own flags: the release's programs say themselves what they know. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.k8sgu.cluster.plugins.module_utils._upgrade.model import Asked, Gate, some

PROGRAMS = {
    "k8sgu_apiserver_extra_flags": "kube-apiserver",
    "k8sgu_controller_manager_extra_flags": "kube-controller-manager",
    "k8sgu_scheduler_extra_flags": "kube-scheduler",
    "k8sgu_kube_proxy_extra_flags": "kube-proxy",
    "k8sgu_kubelet_extra_config": "kubelet",
}


def flags(asked: Asked) -> Gate:
    known = _known(asked)
    if not known:
        why = "asked once the release's programs are on the nodes"
        return Gate(
            "flags", (f"no node has {asked.target}'s programs, which say what they know",) if asked.staged else (), why
        )
    # The same for many hosts is told once, with those that have it.
    told: dict[str, list[str]] = {}
    for host, given in sorted(asked.flags.items()):
        for text in _unknown(given, known, asked.target):
            told.setdefault(text, []).append(host)
    hosts = len(asked.flags)
    problems = [text.replace("\0", "" if len(where) == hosts else f" ({some(where)})") for text, where in told.items()]
    problems += [
        f"{name}: {asked.target}'s program does not say what it knows: {item['problem']}"
        for name, item in sorted(known.items())
        if "problem" in item
    ]
    problems += [
        f"{machine.name}: {asked.target}'s kubelet does not take /var/lib/kubelet/config.yaml: "
        f"{machine.facts['kubelet_config']['problem']}; correct k8sgu_kubelet_extra_config, and run site.yml first"
        for machine in asked.answered
        if machine.facts["kubelet_config"]["problem"]
    ]
    return Gate("flags", tuple(problems), f"{', '.join(sorted(known))} of {asked.target} know all that are given")


def _known(asked: Asked) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for machine in asked.answered:
        for name, item in machine.facts["known"].items():
            if name not in found or "problem" in found[name]:
                found[name] = item
    return found


def _unknown(given: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]], target: str) -> Iterator[str]:
    for option, program in PROGRAMS.items():
        knows, values = known.get(program), given.get(option) or {}
        if not knows or "problem" in knows or not isinstance(values, Mapping):
            continue
        if option.endswith("_config"):
            gates = [str(name) for name in values.get("featureGates") or {}]
        else:
            names = {str(name).replace("_", "-"): value for name, value in values.items()}
            for name in sorted(set(names) - set(knows["flags"])):
                yield (
                    f"{option}\0: {target}'s {program} knows no flag {name}{_near(name, knows['flags'])}; take it out, "
                    "and run site.yml before the upgrade"
                )
            gates = _gates(str(names.get("feature-gates") or ""))
        for name in gates:
            if name not in knows["gates"]:
                yield (
                    f"{option}\0: {target}'s {program} knows no feature gate {name}{_near(name, knows['gates'])}; it "
                    "may have become what the program always does; take it out, and run site.yml before the upgrade"
                )


def _gates(value: str) -> list[str]:
    """The names in A=true,kube:B=false."""
    pairs = (pair.partition("=")[0].strip() for pair in value.split(",") if pair.strip())
    return [pair.rpartition(":")[2] for pair in pairs]


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f" (did you mean {near[0]}?)" if near else ""
