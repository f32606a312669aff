# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Decides which etcd members may start on an empty directory: only those of a cluster that is being born.

A member that starts without data takes its initial addresses for a new cluster's. If the cluster already has members,
such members would form a second cluster of the same name, or forget their votes.
https://etcd.io/docs/v3.6/op-guide/failures/ and https://etcd.io/docs/v3.6/op-guide/runtime-configuration/
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

DATA = "/var/lib/etcd"

Node = Mapping[str, Any]


def check_members(record: Mapping[str, Any], nodes: Sequence[Node], record_file: str) -> list[str]:
    """A problem for each member without data that may not start. `nodes`: as in `living`; `record_file`: its path."""
    members = [node for node in nodes if node["etcd"]]
    read = [node for node in members if node.get("membership")]
    empty = [node for node in read if not _etcd(node)["data"]]
    if not empty:
        return []
    joined = [node for node in read if _etcd(node)["data"] and (_etcd(node)["joined"] or node["membership"]["born"])]
    if joined:
        found = [_beside(node, joined) for node in empty]
    else:
        lived = bool(record) or any(node["membership"]["born"] for node in nodes if node.get("membership"))
        unread = [node["name"] for node in members if not node.get("membership")]
        found = [_alone(node, lived, unread, record_file) for node in empty]
    return [f"{node['name']}: {problem}" for node, problem in zip(empty, found) if problem]


def _etcd(node: Node) -> Mapping[str, Any]:
    etcd: Mapping[str, Any] = node["membership"]["etcd"]
    return etcd


def _beside(node: Node, joined: Sequence[Node]) -> str | None:
    """The problem of a member without data, if other members live."""
    names = ", ".join(other["name"] for other in joined)
    told = next((_etcd(other)["members"] for other in joined if _etcd(other)["members"]), None)
    if told is None:
        return (
            f"etcd has no data in {DATA}, and none of {names}, which have data, lists its members; start etcd "
            "there first (systemctl start etcd; journalctl -u etcd)"
        )
    listed = [one for one in told if node["address"] and one["address"] == node["address"]]
    if any(not one["started"] for one in listed):
        # The cluster's birth was interrupted before this member started: it belongs to it, and has never voted.
        return None
    if listed or any(one["name"] == node["name"] for one in told):
        return (
            f"etcd has no data in {DATA}, but the cluster has this member already ({names}): its data is lost, and it "
            "must not start without; restore the directory. These playbooks cannot replace a member yet; by hand: "
            "https://etcd.io/docs/v3.6/op-guide/runtime-configuration/"
        )
    known = ", ".join(one["name"] or one["address"] for one in told)
    return (
        f"is not a member of this cluster's etcd, which has {len(told)} ({known}); "
        "control-plane nodes cannot be added while it lives; remove it from the group etcd, or put back "
        "k8sgu_control_plane_count"
    )


def _alone(node: Node, lived: bool, unread: Sequence[str], record_file: str) -> str | None:
    """The problem of a member without data, if no member that was read lives."""
    if unread:
        return (
            f"etcd has no data in {DATA}, and whether {', '.join(unread)} has could not be read; run it on the whole "
            "group etcd (without --limit), with all of them running"
        )
    if not lived:
        return None
    return (
        f"etcd has no data in {DATA}, but the cluster has lived: its database is lost; restore the directory from a "
        "backup (etcdutl snapshot restore), or give the data up: playbooks/destroy.yml and then site.yml, or with "
        f"machines of your own reinstall them and remove {record_file}"
    )
