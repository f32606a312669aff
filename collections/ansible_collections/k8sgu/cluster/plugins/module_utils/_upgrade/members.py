# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate of etcd: every member answers, no alarm, room, and its own rules for other versions. Pure.

https://etcd.io/docs/v3.6/upgrades/ and https://etcd.io/docs/v3.6/downgrades/
"""

from __future__ import annotations

from collections.abc import Iterator

from ansible_collections.k8sgu.cluster.plugins.module_utils._upgrade.model import (
    BACK,
    Asked,
    Gate,
    Machine,
    minor,
    shown,
)

# Of its quota. Beyond it etcd takes no more writes, and an upgrade writes more than a quiet day.
FULL = 0.8
# A snapshot is as large as the database's file; as much again, since the database goes on growing.
SNAPSHOT_ROOM = 2
_LOOK = "look there: systemctl status etcd; journalctl -u etcd"


def etcd(asked: Asked) -> Gate:
    there = [
        machine for machine in asked.control_plane if machine.facts["etcd"] and not machine.facts["etcd"]["problem"]
    ]
    versions = ", ".join(sorted({machine.facts["etcd"]["version"] for machine in there}))
    why = f"{len(there)} members of {versions} answer" + (f"; then {asked.etcd_target}" if asked.etcd_target else "")
    backwards = sorted({machine.facts["etcd"]["downgrade"] for machine in there if machine.facts["etcd"]["downgrade"]})
    why += "".join(f"; a downgrade to {version} is on its way" for version in backwards)
    return Gate("etcd", tuple(_problems(asked, there)), why)


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
    told = dict.fromkeys(text for machine in there for text in _cluster(machine, asked))
    yield from told
    for machine in there:
        yield from _member(machine)
        yield from _rules(machine, asked)


def _cluster(machine: Machine, asked: Asked) -> Iterator[str]:
    found = machine.facts["etcd"]
    for name, why in sorted(found["unhealthy"].items()):
        yield f"etcd's member {name} does not answer ({why}); {_LOOK}"
    for one in found["members"]:
        if one["learner"]:
            name = one["name"] or format(one["id"], "x")
            yield f"etcd's member {name} is a learner, without a vote; run playbooks/etcd.yml"
    if found["alarms_problem"]:
        yield f"etcd does not list its alarms ({found['alarms_problem']}); {_LOOK}"
    for alarm in found["alarms"]:
        way = {
            "NOSPACE": "it takes no more writes; make room (etcdctl defrag), then etcdctl alarm disarm",
            "CORRUPT": "its data differs from the others'; replace the member",
        }.get(alarm["alarm"], "find out why, then etcdctl alarm disarm")
        yield f"etcd's member {alarm['member']} has the alarm {alarm['alarm']}: {way}"
    if found["downgrade"] and abs(minor(found["downgrade"])[1] - minor(asked.etcd_target or found["downgrade"])[1]) > 1:
        yield (
            f"etcd is on its way back to {found['downgrade']}, and {asked.target} has {asked.etcd_target}; end that "
            "first: etcdctl downgrade cancel"
        )


def _member(machine: Machine) -> Iterator[str]:
    found = machine.facts["etcd"]
    if not found["leader"]:
        yield f"{machine.name}: its member of etcd knows no leader; {_LOOK}"
    if found["errors"] and not found["alarms"]:
        yield f"{machine.name}: its member of etcd reports {'; '.join(found['errors'])}; {_LOOK}"
    if found["quota"] and found["size"] > FULL * found["quota"]:
        yield (
            f"{machine.name}: etcd's database has {mebibytes(found['size'])} of its quota of "
            f"{mebibytes(found['quota'])} ({mebibytes(found['in_use'])} in use); give it a larger one "
            "(k8sgu_etcd_quota_bytes), or free what is not in use: etcdctl defrag"
        )
    disk = machine.facts["disks"]["snapshot"]
    if disk["free"] < SNAPSHOT_ROOM * found["size"]:
        yield (
            f"{machine.name}: {disk['path']} has {mebibytes(disk['free'])} free, and a snapshot of etcd needs "
            f"{mebibytes(SNAPSHOT_ROOM * found['size'])}; make room there"
        )


def _rules(machine: Machine, asked: Asked) -> Iterator[str]:
    found = machine.facts["etcd"]
    now, then = minor(found["version"]), minor(asked.etcd_target)
    if not then:
        return
    what = f"{machine.name}: etcd {found['version']}, and {asked.target} has {asked.etcd_target}"
    if now[0] != then[0] or abs(now[1] - then[1]) > 1:
        yield f"{what}; etcd goes one minor version at a time; take the release in between first"
    elif then < now and asked.direction != BACK:
        yield f"{what}, an older one; etcd goes back only with its own downgrade: -e k8sgu_upgrade_back=true"
    elif then < now and minor(found["cluster_version"]) == now and found["back"]:
        yield f"{what}; etcd refuses to go back to {shown(then)}: {found['back']}"


def mebibytes(size: float) -> str:
    return f"{size / (1 << 20):.0f} MiB"
