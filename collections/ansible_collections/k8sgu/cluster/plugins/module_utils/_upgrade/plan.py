# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an upgrade leads, and what is left of it, as pure functions of what the nodes show.

What is done is read from the nodes, so an upgrade that was cut off goes on, in either direction. The order is
upstream's: https://kubernetes.io/releases/version-skew-policy/#supported-component-upgrade-order
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Collection, Iterable, Mapping, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster.versions import numbers
from ansible_collections.k8sgu.cluster.plugins.module_utils._preflight.living import running
from ansible_collections.k8sgu.cluster.plugins.module_utils._upgrade import model
from ansible_collections.k8sgu.cluster.plugins.module_utils._upgrade.model import BACK, FORWARD

# Every other program runs on each node, beside pods: it is changed when these are elsewhere.
CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
ETCD = ("etcd",)

Values = Mapping[str, Any]
Nodes = Sequence[Values]


def minor(version: str) -> str:
    """`1.36` of `1.36.4`."""
    return model.shown(model.minor(version))


@dataclass(frozen=True)
class Way:
    """From which release to which. `origin` equals `target` if there is nothing to change.

    emulated: the minor version as which the control plane of the target is to behave; empty if as what it is. As long
    as it does, kubelets stay as they are: they must not be newer than what the API server behaves as.
    """

    origin: str
    target: str
    direction: str = FORWARD
    emulated: str = ""
    problem: str = ""


def way(nodes: Nodes, wanted: str, back: bool, finish: bool) -> Way:
    """The way for nodes as in living.Nodes, all of them read. `wanted` is the description's version."""
    there = list(running(nodes))
    if not there:
        return Way(
            wanted,
            wanted,
            problem="no node of this cluster runs Kubernetes yet, so there is nothing to upgrade; run site.yml",
        )
    if back and finish:
        return Way(
            there[-1],
            there[-1],
            problem="k8sgu_upgrade_back, k8sgu_upgrade_finish: one goes back and the other forward; give one of them",
        )
    return _back(nodes, there, wanted) if back else _forward(nodes, there, wanted, finish)


def _forward(nodes: Nodes, there: list[str], wanted: str, finish: bool) -> Way:
    oldest, newest = there[0], there[-1]
    if numbers(newest) > numbers(wanted):
        way_out = f"give {newest} or a newer release"
        if wanted in (oldest, before(nodes, newest)):
            way_out += f"; to go back to {wanted}, which it ran before, add k8sgu_upgrade_back: true"
        return Way(
            newest,
            wanted,
            problem=f"k8sgu_kubernetes_version: {wanted} is older than {newest}, which this cluster runs; {way_out}",
        )
    emulated = "" if finish or minor(oldest) == minor(wanted) else minor(oldest)
    return Way(oldest, wanted, FORWARD, emulated)


def _back(nodes: Nodes, there: list[str], wanted: str) -> Way:
    oldest, newest = there[0], there[-1]
    if oldest == newest and numbers(newest) < numbers(wanted):
        # An earlier run has come to its end.
        return Way(newest, newest, BACK)
    target = oldest if oldest != newest else before(nodes, newest)
    if not target:
        problem = (
            f"k8sgu_upgrade_back: this cluster runs {newest}, and no release before it is on its control-plane nodes; "
            "nothing is known that it could go back to"
        )
        return Way(newest, newest, BACK, problem=problem)
    if wanted not in (newest, target):
        problem = (
            f"k8sgu_upgrade_back: k8sgu_kubernetes_version is {wanted}, and this cluster runs {newest} and ran "
            f"{target} before; give one of these"
        )
        return Way(newest, target, BACK, problem=problem)
    return Way(newest, target, BACK)


def before(nodes: Nodes, version: str) -> str:
    """The newest release before this one that every control-plane node still has; empty if there is none."""
    sets = [set(node["membership"]["kept"].get("kube-apiserver", ())) for node in nodes if node["control_plane"]]
    both = set.intersection(*sets) if sets else set()
    return max((one for one in both if numbers(one) < numbers(version)), key=numbers, default="")


def leftovers(
    membership: Values, releases: Collection[Values], ran: Mapping[str, str], origin: str
) -> dict[str, list[str]]:
    """{component: versions} on a node that neither run nor are needed to go back.

    releases: the files of the release that runs, and of the one before, which may have another patch than `origin`.
    ran: {component: version} of the node before this run, which an earlier run may have changed.
    """
    found: dict[str, list[str]] = {}
    for component, versions in membership["kept"].items():
        runs = membership["programs"].get(component)
        needed = {
            *(str(one["components"][component]["version"]) for one in releases if component in one["components"]),
            *(ran.get(component, origin), origin),
        }
        # Where nothing is linked, whose it is is not known.
        left = [version for version in versions if runs and version != runs and version not in needed]
        if left:
            found[component] = left
    return found


def node_programs(node: Values) -> list[str]:
    """The programs of a node that are changed when its pods are elsewhere."""
    return [name for name in node["membership"]["programs"] if name not in (*ETCD, *CONTROL_PLANE)]


def differing(node: Values, release: Values, names: Iterable[str]) -> dict[str, list[str]]:
    """{program: [version that runs, version of the release]} where they differ."""
    found = {}
    for name in names:
        runs = node["membership"]["programs"].get(name)
        wanted = str((release["components"].get(name) or {}).get("version", ""))
        if runs and wanted and runs != wanted:
            found[name] = [runs, wanted]
    return found


def remaining(nodes: Nodes, release: Values, going: Way, cordoned: Collection[str] = ()) -> dict[str, Any]:
    """What is left: `etcd`, `control_plane`, `nodes` and `later`, each {node: {program: [from, to]}}.

    cordoned: nodes that a run which was cut off had emptied; they are done only when they serve again. `later` is what
    waits until the upgrade is finished.
    """
    left: dict[str, Any] = {"etcd": {}, "control_plane": {}, "nodes": {}, "later": {}}
    for node in nodes:
        emulates = bool(node["membership"]["emulates"])
        for part, names in (("etcd", ETCD), ("control_plane", CONTROL_PLANE)):
            found = differing(node, release, names)
            if found or (part == "control_plane" and emulates and not going.emulated and going.direction == FORWARD):
                left[part][node["name"]] = found
        found = differing(node, release, node_programs(node))
        if found or node["name"] in cordoned:
            left["later" if going.emulated else "nodes"][node["name"]] = found
    return left


def lines(going: Way, left: Values) -> list[str]:
    """The plan in words, a line for each change with its reason, in the order in which they are made."""
    one_by_one = "one after the other, each proven before the next"
    reasons = {
        "etcd": one_by_one,
        "control_plane": f"{one_by_one}; it behaves as {going.emulated} until the upgrade is finished"
        if going.emulated
        else one_by_one,
        "nodes": "drained, changed, proven, and only then given pods",
        "later": f"later, with k8sgu_upgrade_finish: true, since the API servers behave as {going.emulated}",
    }
    otherwise = {
        "control_plane": f"behaves as {minor(going.target)} and no longer as the release before",
        "nodes": "give it its pods back",
        "later": "give it its pods back",
    }
    order = list(reasons) if going.direction == FORWARD else ["nodes", "control_plane", "etcd"]
    return [
        f"{name}: {what or otherwise[part]}  # {reasons[part]}"
        for part in order
        for name, programs in left[part].items()
        for what in [", ".join(f"{program} {runs} -> {wanted}" for program, (runs, wanted) in programs.items())]
    ]
