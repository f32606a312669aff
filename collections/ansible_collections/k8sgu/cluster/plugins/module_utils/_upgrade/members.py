# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate of etcd: every member answers, no alarm, room, and its own rules for other versions. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd import snapshots, versions
from ansible_collections.k8sgu.cluster.plugins.module_utils._upgrade.model import Asked, Gate, Machine

# Of its quota. Beyond it etcd takes no more writes, and an upgrade writes more than a quiet day.
FULL = 0.8
_LOOK = "look there: systemctl status etcd; journalctl -u etcd"


def etcd(asked: Asked) -> Gate:
    there = [one for one in asked.control_plane if one.facts["etcd"] and not one.facts["etcd"]["problem"]]
    running = {one.name: one for machine in there for one in running_of(machine)}
    told = sorted({one.version for one in running.values()})
    why = f"{len(running)} members of {', '.join(told)} answer" + (
        f"; then {asked.etcd_target}" if asked.etcd_target else ""
    )
    backwards = sorted({one.target for one in running.values() if one.target})
    why += "".join(f"; it is on its way back to {version}" for version in backwards)
    return Gate("etcd", tuple(_problems(asked, there)), why)


def running_of(machine: Machine) -> list[versions.Running]:
    """The members as this one hears them, without their alarms, which are told by name."""
    return [versions.Running(**{**one, "alarms": ()}) for one in machine.facts["etcd"]["running"]]


def _problems(asked: Asked, there: list[Machine]) -> Iterator[str]:
    for machine in asked.control_plane:
        found = machine.facts["etcd"]
        if not found:
            yield f"{machine.name}: its member of etcd was not asked; it is in the group control_plane and not in etcd"
        elif found["problem"]:
            yield f"{machine.name}: its member of etcd does not answer ({found['problem']}); {_LOOK}"
    if not there:
        yield "no member of etcd answered, so nothing is known of it; run it where the control-plane nodes answer"
        return
    # Of the cluster every member says the same, but for one that was cut off.
    yield from dict.fromkeys(text for machine in there for text in _cluster(machine, asked))
    for machine in there:
        yield from _member(machine)


def _cluster(machine: Machine, asked: Asked) -> Iterator[str]:
    found = machine.facts["etcd"]
    for name in found["silent"]:
        yield f"etcd's member {name} does not answer; {_LOOK}"
    if found["alarms_problem"]:
        yield f"etcd does not list its alarms ({found['alarms_problem']}); {_LOOK}"
    for alarm in found["alarms"]:
        way = {
            "NOSPACE": "it takes no more writes; make room (etcdctl defrag), then etcdctl alarm disarm",
            "CORRUPT": "its data differs from the others'; replace the member",
        }.get(alarm["alarm"], "find out why, then etcdctl alarm disarm")
        yield f"etcd's member {alarm['member']} has the alarm {alarm['alarm']}: {way}"
    if asked.etcd_target:
        problem = versions.ready(running_of(machine), [], asked.etcd_target).problem
        if problem:
            yield problem
        elif found["back"]:
            yield f"etcd refuses to go back to {asked.etcd_target}: {found['back']}; {versions.DOWNGRADES}"


def _member(machine: Machine) -> Iterator[str]:
    found = machine.facts["etcd"]
    if found["quota"] and found["size"] > FULL * found["quota"]:
        yield (
            f"{machine.name}: etcd's database has {mebibytes(found['size'])} of its quota of "
            f"{mebibytes(found['quota'])} ({mebibytes(found['in_use'])} in use); give it a larger one "
            "(k8sgu_etcd_quota_bytes), or free what is not in use: etcdctl defrag"
        )
    disk = machine.facts["disks"].get("snapshot")
    lacking = snapshots.room(found["size"], disk["free"], disk["path"]) if disk else ""
    if lacking:
        yield f"{machine.name}: {lacking}"


def mebibytes(size: float) -> str:
    return f"{size / (1 << 20):.0f} MiB"
