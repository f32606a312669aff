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
WAY = "take it out, and run site.yml before the upgrade"


def flags(asked: Asked) -> Gate:
    known = _known(asked)
    if not known:
        why = "asked once the release's programs are on the nodes"
        return Gate(
            "flags", (f"no node has {asked.target}'s programs, which say what they know",) if asked.staged else (), why
        )
    # The same for many hosts is told once, with those that have it.
    told: dict[str, list[str]] = {}
    names = {machine.name for machine in asked.machines}
    for host, given in sorted((host, given) for host, given in asked.flags.items() if host in names):
        for text in _unknown(given, known, asked.target):
            told.setdefault(text, []).append(host)
    for machine in asked.answered:
        for option, program in PROGRAMS.items():
            for why in machine.facts["refused_gates"].get(program, {}).values():
                told.setdefault(f"{option}\0: {asked.target}'s {program}: {why}; {WAY}", []).append(machine.name)
    problems = [
        text.replace("\0", "" if len(where) == len(names) else f" ({some(where)})") for text, where in told.items()
    ]
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
        flags, values = known.get(program, {}).get("flags"), given.get(option) or {}
        if flags is None or not isinstance(values, Mapping) or option.endswith("_config"):
            continue
        for name in sorted({str(name).replace("_", "-") for name in values} - set(flags)):
            near = difflib.get_close_matches(name, flags, 1)
            yield (
                f"{option}\0: {target}'s {program} knows no flag {name}"
                f"{f' (did you mean {near[0]}?)' if near else ''}; {WAY}"
            )


def feature_gates(given: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """{program: {feature gate: value}} of a host's flags; the kubelet's are in its configuration, which it reads."""
    found: dict[str, dict[str, str]] = {}
    for option, program in PROGRAMS.items():
        values = given.get(option) or {}
        if not isinstance(values, Mapping) or option.endswith("_config"):
            continue
        text = next(
            (str(value) for name, value in values.items() if str(name).replace("_", "-") == "feature-gates"), ""
        )
        for pair in filter(None, (pair.strip() for pair in text.split(","))):
            name, _equals, value = pair.partition("=")
            found.setdefault(program, {})[name] = value
    return found
