# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides which etcd members may start on an empty directory, and how: in a cluster that is being born, or by joining.

A member that starts without data takes its initial addresses for a new cluster's. If the cluster already has members,
such members would form a second cluster of the same name, or forget their votes. So they join: etcd adds them first.
https://etcd.io/docs/v3.6/op-guide/failures/ and https://etcd.io/docs/v3.6/op-guide/runtime-configuration/
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from ansible_collections.k8sgu.cluster.plugins.module_utils._etcd.plan import RESTORE, quorum
from ansible_collections.k8sgu.cluster.plugins.module_utils._volume.options import ETCD_DATA as DATA

UNMOUNTED = (
    f"the volume of {DATA} is not mounted, and its data must not pass for lost; systemctl start var-lib-etcd.mount "
    "(systemctl status says why not); if the volume is gone for good, remove /etc/systemd/system/var-lib-etcd.mount "
    "and run site.yml: the member joins anew"
)

Node = Mapping[str, Any]


def check_members(
    record: Mapping[str, Any], nodes: Sequence[Node], record_file: str, restoring: bool = False
) -> list[str]:
    """A problem for each member that may not start. `nodes`: as in `living`; `record_file`: its path.

    restoring: a restore that was begun is being completed.
    """
    members = [node for node in nodes if node["etcd"]]
    read = [node for node in members if node.get("membership")]
    begun = [node for node in read if _etcd(node).get("restoring")]
    if begun and not restoring:
        return [_unrestored(node) for node in begun]
    empty = [node for node in read if _is_empty(node)]
    hidden = [node for node in read if _hidden(node)]
    joined = _joined(read)
    two = _two_clusters(joined)
    if two:
        return [two]
    found = [(node, _stale(node, joined)) for node in read if _etcd(node)["data"]]
    if joined:
        found += [(node, _beside(node, members, joined)) for node in empty]
    elif empty:
        lived = bool(record) or any(node["membership"]["born"] for node in nodes if node.get("membership"))
        unread = [node["name"] for node in members if not node.get("membership")]
        found += [(node, _alone(node, lived, unread, record_file)) for node in empty]
    found += [(node, UNMOUNTED) for node in hidden]
    return [f"{node['name']}: {problem}" for node, problem in found if problem]


def _unrestored(node: Node) -> str:
    return (
        f"{node['name']}: a restore of {_etcd(node)['restoring']} was begun and has not come to its end, so that "
        "members of etcd may be without data; complete it: playbooks/restore.yml"
    )


def _is_empty(node: Node) -> bool:
    return not _etcd(node)["data"] and not _hidden(node)


def _hidden(node: Node) -> bool:
    """Whether the member's data is on a volume that is not mounted. One that never had a quorum has none to lose."""
    etcd = _etcd(node)
    return bool(etcd["joined"] and etcd.get("volume") and not etcd.get("mounted") and not etcd["data"])


def joining(nodes: Sequence[Node]) -> list[str]:
    """Names of the nodes that join a living etcd, in the order in which they do: one is a learner at a time."""
    read = [node for node in nodes if node["etcd"] and node.get("membership")]
    told = _told(_joined(read))
    if told is None:
        return []
    half = [node["name"] for node in read if _etcd(node)["data"] and any(one["learner"] for one in _own(node, told))]
    new = [node["name"] for node in read if _is_empty(node) and not _in_birth(node, told)]
    return sorted(half) + sorted(new)


def teller(nodes: Sequence[Node]) -> str:
    """Name of a node whose etcd lists its members and has a vote; empty without one."""
    read = [node for node in nodes if node["etcd"] and node.get("membership")]
    for node in _joined(read):
        told = _etcd(node)["members"]
        if told and not any(one["learner"] for one in _own(node, told)):
            return str(node["name"])
    return ""


def _etcd(node: Node) -> Mapping[str, Any]:
    etcd: Mapping[str, Any] = node["membership"]["etcd"]
    return etcd


def _joined(read: Sequence[Node]) -> list[Node]:
    """The nodes whose member was in a quorum."""
    return [node for node in read if _etcd(node)["data"] and (_etcd(node)["joined"] or node["membership"]["born"])]


def _told(joined: Sequence[Node]) -> Sequence[Mapping[str, Any]] | None:
    """The members that etcd lists; None if no node answers."""
    return next((_etcd(node)["members"] for node in joined if _etcd(node)["members"]), None)


def _own(node: Node, told: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [one for one in told if (one["name"] == node["name"] if one["name"] else one["address"] == node["address"])]


def _in_birth(node: Node, told: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the cluster's birth was cut off before this member started: it belongs to it, and has never voted."""
    return any(
        not one["started"] and not one["learner"] and one["address"] == node["address"]
        for one in told
        if node["address"]
    )


def _names(told: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(sorted(one["name"] or one["address"] for one in told)) or "none"


def _two_clusters(joined: Sequence[Node]) -> str:
    """The problem of members that do not list each other. A list lags a moment, so only what is disjoint counts."""
    telling = [(node, _etcd(node)["members"]) for node in joined if _etcd(node)["members"]]
    for node, told in telling:
        for other, others in telling:
            if not _own(other, told) and not _own(node, others):
                return (
                    f"{node['name']} and {other['name']} are members of two different etcd clusters ({_names(told)}; "
                    f"{_names(others)}): nothing is changed. Find out which one has the cluster's data (on each node: "
                    "etcdctl endpoint status), and stop etcd on the nodes of the other"
                )
    return ""


def _stale(node: Node, joined: Sequence[Node]) -> str:
    """The problem of a node with the data of a member that was removed."""
    others = [other for other in joined if other["name"] != node["name"]]
    told = _told(others)
    if told is None or _own(node, told) or any(one["address"] == node["address"] for one in told):
        return ""
    return (
        f"etcd has data in {DATA}, but is no member (any more) of this cluster's etcd, which has {len(told)} "
        f"({_names(told)}); it must not start with this data. Move it away (mv {DATA}/member /root/etcd-member) and "
        "run this again: the node then joins and gets the data of the others. If it leaves the cluster, run "
        "playbooks/infrastructure.yml instead"
    )


def _beside(node: Node, members: Sequence[Node], joined: Sequence[Node]) -> str:
    """The problem of a member without data, if other members live."""
    told = _told(joined)
    if told is None:
        return (
            f"etcd has no data in {DATA}, and none of {', '.join(other['name'] for other in joined)}, which have data, "
            "lists its members; start etcd there first (systemctl start etcd; journalctl -u etcd)"
        )
    if _in_birth(node, told):
        return ""
    voters = [one for one in told if not one["learner"]]
    answering = [other for other in joined if _etcd(other)["members"] is not None and _own(other, voters)]
    needed = quorum(len(voters))
    if len(answering) >= needed:
        return ""
    there = {other["name"] for other in answering}
    silent = [one for one in voters if one["name"] not in there]
    unread = [other["name"] for other in members if not other.get("membership")]
    return (
        f"etcd has no data in {DATA}, and the cluster's etcd has lost its quorum: {len(answering)} of {len(voters)} "
        f"members answer ({', '.join(sorted(there)) or 'none'}), and {needed} are needed"
        + (f"; {', '.join(sorted(unread))} could not be read" if unread else "")
        + f". Start etcd on {_names(silent)} (systemctl start etcd; journalctl -u etcd), then run this again. Where "
        f"the data of a majority is lost, {RESTORE}"
    )


def _alone(node: Node, lived: bool, unread: Sequence[str], record_file: str) -> str:
    """The problem of a member without data, if no member that was read lives."""
    if unread:
        return (
            f"etcd has no data in {DATA}, and whether {', '.join(unread)} has could not be read; run it on the whole "
            "group etcd (without --limit), with all of them running"
        )
    if not lived:
        return ""
    return (
        f"etcd has no data in {DATA}, but the cluster has lived: its database is lost; {RESTORE}, or give the data "
        "up: playbooks/destroy.yml and then site.yml, or with "
        f"machines of your own reinstall them and remove {record_file}"
    )
