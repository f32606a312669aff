# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gates of versions: upstream's skew policy, one minor version at a time, and the way back. Pure.

https://kubernetes.io/releases/version-skew-policy/
https://github.com/kubernetes/enhancements/tree/master/keps/sig-architecture/4330-compatibility-versions
"""

from __future__ import annotations

from collections.abc import Iterator

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster.versions import is_release, three
from ansible_collections.k8sgu.cluster.plugins.module_utils._preflight import releases
from ansible_collections.k8sgu.cluster.plugins.module_utils._upgrade.model import (
    BACK,
    Asked,
    Gate,
    Machine,
    minor,
    shown,
)

# Kubelets and kube-proxies may be this many minor versions older than the API servers.
OLDEST_KUBELET = 3
API_SERVER = "kube-apiserver"
CONTROLLERS = ("kube-controller-manager", "kube-scheduler")
ON_NODES = ("kubelet", "kube-proxy")


def release(asked: Asked) -> Gate:
    """There is a release file of the version."""
    problems = releases.check_version(asked.target, list(asked.released), asked.releases_dir)
    return Gate("release", tuple(problems), f"{asked.target} is on the release list")


def hop(asked: Asked) -> Gate:
    """One minor version forward, or back to the release before.

    Back over a minor version is possible after the upgrade was finished too: by upstream's design an API server writes
    nothing that the release before cannot decode (min-compatibility-version). What that loses is told.
    """
    why = f"{asked.runs} to {asked.target}, {asked.direction}"
    finished = [
        machine.name
        for machine in asked.control_plane
        if minor(machine.version(API_SERVER)) == minor(asked.runs) and not machine.emulated(API_SERVER)
    ]
    if asked.direction == BACK and minor(asked.runs) != minor(asked.target) and finished:
        why += (
            f"; objects that only {shown(minor(asked.runs))} serves stay in etcd, and nobody sees them until the next "
            "upgrade; fields that only it knows are lost when their object is written next"
        )
    return Gate("hop", tuple(_hop(asked)), why)


def _hop(asked: Asked) -> Iterator[str]:
    option = f"k8sgu_kubernetes_version: {asked.target}"
    if not is_release(asked.runs) or not is_release(asked.target):
        wrong = asked.target if is_release(asked.runs) else asked.runs
        yield f"{option}: {wrong!r} is not a complete version; give one such as 1.36.4"
        return
    now, then = minor(asked.runs), minor(asked.target)
    if now[0] != then[0]:
        yield f"{option}, and the cluster runs {asked.runs}; no rule of upstream allows another major version"
    elif asked.direction == BACK:
        if three(asked.target) > three(asked.runs):
            yield f"{option} is newer than {asked.runs}, which the cluster runs; leave k8sgu_upgrade_back out"
        elif then[1] < now[1] - 1:
            yield (
                f"{option} is {now[1] - then[1]} minor versions before {asked.runs}; the way back leads to the release "
                f"before alone, {shown((now[0], now[1] - 1))}"
            )
    elif three(asked.target) < three(asked.runs):
        yield (
            f"{option} is older than {asked.runs}, which the cluster runs; to go back, say so: "
            "-e k8sgu_upgrade_back=true"
        )
    elif then[1] > now[1] + 1:
        between = (now[0], now[1] + 1)
        there = [version for version in asked.released if minor(version) == between]
        first = f"upgrade to {there[0]} first" if there else f"a release of {shown(between)} has to be added first"
        yield f"{option} is {then[1] - now[1]} minor versions after {asked.runs}, and none can be skipped; {first}"


def skew(asked: Asked) -> Gate:
    """What runs now, and what will, is within upstream's skew. A mix of the two releases is an upgrade on its way."""
    versions = sorted({m.version(API_SERVER) for m in asked.control_plane if m.version(API_SERVER)}, key=three)
    kubelets = sorted({_kubelet(node) for node in asked.api.nodes if _kubelet(node)}, key=three)
    why = f"API servers {', '.join(versions)}; kubelets {', '.join(kubelets)}"
    return Gate("skew", tuple(_skew(asked, versions)), why)


def _kubelet(node: object) -> str:
    info = (node.get("status") or {}).get("nodeInfo") or {}  # type: ignore[attr-defined]
    return str(info.get("kubeletVersion") or "").lstrip("v")


def _skew(asked: Asked, versions: list[str]) -> Iterator[str]:
    policy = "https://kubernetes.io/releases/version-skew-policy/"
    if not versions:
        yield "no API server's version is known; run it where the control-plane nodes answer over SSH"
        return
    oldest, newest = minor(versions[0]), minor(versions[-1])
    # Kubelets must not be newer than what an API server behaves as.
    behaves = min(_behaves(machine) for machine in asked.control_plane if machine.version(API_SERVER))
    if newest[1] - oldest[1] > 1:
        yield (
            f"the API servers are {', '.join(versions)}, and they may be one minor version apart ({policy}); bring the "
            f"oldest to {shown(newest)} with the release before first"
        )
    ends = (minor(asked.runs), minor(asked.target))
    for machine in asked.answered:
        for program in (API_SERVER, *CONTROLLERS, *ON_NODES):
            version = machine.version(program)
            if not version:
                continue
            where = f"{machine.name}: {program} {version}"
            if program in CONTROLLERS and not newest[1] - 1 <= minor(version)[1] <= newest[1]:
                yield (
                    f"{where}, and the API servers are {', '.join(versions)}: it may be one minor version older, and "
                    f"not newer ({policy}); site.yml with {asked.runs} puts it back"
                )
            elif program == API_SERVER and minor(version) not in ends:
                yield (
                    f"{where} is neither of {asked.runs} nor of {asked.target}; an upgrade that was cut off can go on "
                    f"only to one of its two ends: give {version} and the release beside it"
                )
            elif program in ON_NODES:
                yield from _on_node(where, version, behaves, minor(asked.target), policy)


def _behaves(machine: Machine) -> tuple[int, ...]:
    return minor(machine.emulated(API_SERVER) or machine.version(API_SERVER))


def _on_node(where: str, version: str, oldest: tuple[int, ...], target: tuple[int, ...], policy: str) -> Iterator[str]:
    if minor(version) > oldest:
        yield (
            f"{where} is newer than what the oldest API server behaves as, {shown(oldest)}, and must not be "
            f"({policy}); bring that API server to {shown(minor(version))}, or this program back to {shown(oldest)}"
        )
    elif minor(version)[1] < target[1] - OLDEST_KUBELET:
        yield (
            f"{where} is more than {OLDEST_KUBELET} minor versions older than {shown(target)} ({policy}); bring it to "
            "the others' version first: site.yml"
        )
