# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What components in check mode, and a look around, say of one node. Pure functions."""

from __future__ import annotations

import re
from typing import Any, Iterator, Mapping, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._drift.findings import Finding

# What is ours and in no component: what a member's first start needed, and the unit of etcd's own volume.
ELSEWHERE = frozenset(("/etc/etcd/initial.env", "/etc/systemd/system/var-lib-etcd.mount"))
# "file /etc/etcd/etcdctl.env: content differs", as component gives its reasons.
REASON = re.compile(r"(?P<verb>\w+)(?: (?P<place>.+?))?: (?P<why>.+)", re.DOTALL)
KINDS = {
    **{verb: verb for verb in ("program", "package", "account", "directory", "file", "link")},
    "start": "unit-stopped",
    "stop": "unit-running",
    "enable": "unit-disabled",
    "disable": "unit-enabled",
    "restart": "unit-stale",
    "reload": "unit-stale",
    "systemd": "unit-stale",
    "run": "unit-stale",
}
EXPECTED = {
    "program": "the release's",
    "package": "installed",
    "account": "there",
    "directory": "as the role makes it",
    "file": "as the role writes it",
    "link": "as the role makes it",
    "unit-stopped": "running",
    "unit-running": "not running",
    "unit-disabled": "enabled",
    "unit-enabled": "not enabled",
    "unit-stale": "running with its present files",
}
# What follows from a change of these is told with them.
CAUSES = frozenset(("program", "file", "link", "package"))


def of_components(node: str, results: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """`results` are what `component` returned in check mode, one for each task."""
    for result in results:
        components = result.get("components") or []
        if result.get("failed") and not any(component.get("faults") for component in components):
            yield Finding("unknown", node, "an answer", str(result.get("msg", "no answer")).strip())
        for component in components:
            yield from _of_component(node, component)


def _of_component(node: str, component: Mapping[str, Any]) -> Iterator[Finding]:
    found = list(_reasons(node, component["reasons"]))
    changed = any(finding.kind in CAUSES for finding in found)
    yield from (finding for finding in found if not (changed and finding.kind == "unit-stale"))
    for fault in component.get("faults", ()):
        place, _colon, why = fault.partition(": ")
        if " is masked" in f" {fault}":
            unit = place.rsplit("/", 1)[-1] if why else fault.split()[1]
            yield Finding("unit-masked", f"{node}:{unit}", "running", "masked")
        else:
            yield Finding("in-the-way", f"{node}:{place}", "what the role puts there", why or fault)


def _reasons(node: str, reasons: Sequence[str]) -> Iterator[Finding]:
    for reason in reasons:
        match = REASON.fullmatch(reason)
        if match is None or match["verb"] not in KINDS:
            raise ValueError(f"component gave a reason of a new kind: {reason}")
        kind = KINDS[match["verb"]]
        place = (match["place"] or match["why"]).rpartition(" again")[0] or match["place"] or match["why"]
        yield Finding(kind, f"{node}:{place}", EXPECTED[kind], match["why"])


def left_over(node: str, shown: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """What no component knows. `shown` is what drift_facts read."""
    if any(result.get("failed") and not result.get("components") for result in results):
        return  # What the ones that cannot be compared know is not known.
    components = [component for result in results for component in result.get("components") or []]
    paths = {path for component in components for path in component["paths"]} | ELSEWHERE
    units = {unit for component in components for unit in component["units"]}
    names = {component["name"] for component in components}
    for path in shown["files"]:
        if path not in paths:
            yield Finding("file-unknown", f"{node}:{path}", "no file that no role knows", "it is there")
    for path in shown["units"]:
        if path not in paths:
            yield Finding("unit-unknown", f"{node}:{path}", "no unit that no role knows", "it starts something of ours")
    for path in shown["dropins"]:
        unit = path.rsplit("/", 2)[1][: -len(".d")]
        if unit in units and path not in paths:
            yield Finding("unit-dropin", f"{node}:{path}", f"{unit} as the role writes it", "it changes the unit")
    for path in shown["links"]:
        if path not in paths:
            yield Finding(
                "link-unknown", f"{node}:{path}", "no link that no role knows", "it leads to a program of ours"
            )
    for name in shown["records"]:
        if name not in names:
            yield Finding("component-unknown", f"{node}:{name}", "no component that no role knows", "it was installed")


def of_volume(node: str, etcd: Mapping[str, Any]) -> Iterator[Finding]:
    if etcd.get("volume") and not etcd.get("mounted"):
        yield Finding("volume-not-mounted", f"{node}:/var/lib/etcd", "etcd's own volume", "the root disk")
