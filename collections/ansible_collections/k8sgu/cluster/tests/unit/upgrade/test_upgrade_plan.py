# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where an upgrade leads and what is left of it, for clusters before, in the middle and after it."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.k8sgu.cluster.plugins.filter.upgrade_leftovers import upgrade_leftovers
from ansible_collections.k8sgu.cluster.plugins.filter.upgrade_steps import upgrade_steps
from ansible_collections.k8sgu.cluster.plugins.filter.upgrade_way import upgrade_way

OLD, NEW = "1.36.4", "1.37.2"
ETCD = {OLD: "3.6.14", NEW: "3.7.3"}
RUNTIME = {OLD: "2.3.4", NEW: "2.4.2"}


def release(version: str) -> dict[str, Any]:
    names = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy")
    return {
        "components": {
            **{name: {"version": version} for name in names},
            "etcd": {"version": ETCD.get(version, "3.6.14")},
            "containerd": {"version": RUNTIME.get(version, "2.3.4")},
            # In both releases, and not in use here.
            "flannel": {"version": "0.28.10"},
        }
    }


def test_only_what_runs_and_the_release_before_stay() -> None:
    there = {
        "programs": {"etcd": "3.7.3", "kubelet": NEW, "runc": "1.4.3"},
        "kept": {
            "etcd": ["3.5.9", "3.6.12", "3.6.14", "3.7.3"],
            "kubelet": ["1.35.9", "1.36.2", OLD, NEW],
            # A version of the user's own runs.
            "runc": ["1.4.2", "1.4.3"],
            # Nobody's, as far as is known.
            "flannel": ["0.27"],
        },
    }
    releases = [release(NEW), release(OLD)]
    gone = upgrade_leftovers(there, releases, {"kubelet": OLD, "etcd": "3.6.14"}, OLD)
    assert gone == ["etcd/3.5.9", "etcd/3.6.12", "kubelet/1.35.9", "kubelet/1.36.2", "runc/1.4.2"]
    # The file of the minor version has another patch by now than the one that ran.
    stays = upgrade_leftovers(there, releases, {"kubelet": "1.36.2", "etcd": "3.6.12"}, "1.36.2")
    assert stays == ["etcd/3.5.9", "kubelet/1.35.9", "runc/1.4.2"]
    # An earlier run changed this node already, and was cut off.
    assert "kubelet/1.36.2" not in upgrade_leftovers(there, releases, {"kubelet": NEW}, "1.36.2")
    assert upgrade_leftovers({**there, "kept": {}}, releases, {}, OLD) == []


def node(name: str, control: str = "", etcd: str = "", below: str = OLD, **membership: Any) -> dict[str, Any]:
    """A node with the release of its control plane, of its etcd, and of what every node runs."""
    member = name.startswith("cp")
    programs = {"kubelet": below, "kube-proxy": below, "containerd": RUNTIME[below]}
    if member:
        control, etcd = control or OLD, etcd or OLD
        programs.update(
            {"kube-apiserver": control, "kube-controller-manager": control, "kube-scheduler": control},
            etcd=ETCD[etcd],
        )
    kept = membership.pop("kept", sorted({OLD, control} - {""}) if member else [])
    return {
        "name": name,
        "control_plane": member,
        "etcd": member,
        "membership": {"programs": programs, "kept": {"kube-apiserver": kept}, "emulates": "", **membership},
    }


def cluster(*nodes: dict[str, Any]) -> dict[str, Any]:
    return {"nodes": list(nodes)}


BEFORE = cluster(node("cp-0"), node("worker-0"), node("worker-1"))
# The control plane is new and behaves as the old one.
EMULATING = cluster(node("cp-0", NEW, NEW, emulates="1.36"), node("worker-0"), node("worker-1"))
AFTER = cluster(node("cp-0", NEW, NEW, NEW), node("worker-0", below=NEW), node("worker-1", below=NEW))
CUT_OFF = cluster(node("cp-0", NEW, NEW), node("worker-0", below=NEW), node("worker-1"))


def ways(found: Any, wanted: str, **options: bool) -> tuple[str, str, str]:
    way = upgrade_way(found, wanted, **options)
    assert not way["problem"]
    return way["origin"], way["target"], way["emulated"]


def left(found: Any, wanted: str, cordoned: Any = (), **options: bool) -> dict[str, list[str]]:
    way = upgrade_way(found, wanted, **options)
    steps = upgrade_steps(found, way, release(way["target"]), cordoned)
    return {part: sorted(names) for part, names in steps.items() if part != "lines"}


@pytest.mark.parametrize("found", [BEFORE, EMULATING])
def test_another_minor_version_behaves_as_the_one_before_until_it_is_finished(found: Any) -> None:
    assert ways(found, NEW) == (OLD, NEW, "1.36")
    assert ways(found, NEW, finish=True) == (OLD, NEW, "")


def test_another_patch_is_what_it_is_at_once() -> None:
    assert ways(BEFORE, "1.36.5") == (OLD, "1.36.5", "")


def test_nodes_wait_until_the_control_plane_behaves_as_the_new_release() -> None:
    nodes = ["cp-0", "worker-0", "worker-1"]
    waiting = {"nodes": [], "later": nodes}
    assert left(BEFORE, NEW) == {"etcd": ["cp-0"], "control_plane": ["cp-0"], **waiting}
    assert left(EMULATING, NEW) == {"etcd": [], "control_plane": [], **waiting}
    # The programs are the same; what they behave as is not.
    assert left(EMULATING, NEW, finish=True) == {"etcd": [], "control_plane": ["cp-0"], "nodes": nodes, "later": []}
    everything = {"etcd": ["cp-0"], "control_plane": ["cp-0"], "nodes": nodes, "later": []}
    assert left(BEFORE, NEW, finish=True) == everything


def test_one_that_was_cut_off_goes_on_in_either_direction() -> None:
    assert left(CUT_OFF, NEW, finish=True)["nodes"] == ["cp-0", "worker-1"]
    assert ways(CUT_OFF, NEW, back=True) == (NEW, OLD, "")
    assert left(CUT_OFF, NEW, back=True) == {
        "etcd": ["cp-0"],
        "control_plane": ["cp-0"],
        "nodes": ["worker-0"],
        "later": [],
    }


def test_a_node_that_was_emptied_is_done_when_it_serves_again() -> None:
    assert left(AFTER, NEW, finish=True)["nodes"] == []
    assert left(AFTER, NEW, cordoned=["worker-1"], finish=True)["nodes"] == ["worker-1"]


def test_nothing_is_left_at_either_end() -> None:
    nothing: dict[str, list[str]] = {"etcd": [], "control_plane": [], "nodes": [], "later": []}
    assert ways(AFTER, NEW, finish=True) == ways(AFTER, NEW) == (NEW, NEW, "")
    assert left(AFTER, NEW, finish=True) == left(AFTER, NEW) == nothing
    # The description still has the new version after the cluster went back.
    assert ways(BEFORE, NEW, back=True) == (OLD, OLD, "")
    assert left(BEFORE, NEW, back=True) == nothing


@pytest.mark.parametrize("wanted", [OLD, NEW])
def test_back_is_the_release_before_whichever_of_the_two_is_described(wanted: str) -> None:
    assert ways(AFTER, wanted, back=True) == ways(EMULATING, wanted, back=True) == (NEW, OLD, "")


@pytest.mark.parametrize(
    ("found", "wanted", "options", "problem"),
    [
        (AFTER, OLD, {}, "is older than 1.37.2, which this cluster runs; give 1.37.2 or a newer release; to go back"),
        (AFTER, "1.35.0", {}, "give 1.37.2 or a newer release"),
        (AFTER, "1.36.9", {"back": True}, "this cluster runs 1.37.2 and ran 1.36.4 before; give one of these"),
        (cluster(node("cp-0", NEW, NEW, NEW, kept=[NEW])), NEW, {"back": True}, "no release before it is on its"),
        (AFTER, NEW, {"back": True, "finish": True}, "one goes back and the other forward"),
        (cluster(), NEW, {}, "nothing to upgrade; run site.yml"),
    ],
)  # fmt: skip
def test_a_way_that_there_is_not_is_told(found: Any, wanted: str, options: dict[str, bool], problem: str) -> None:
    assert problem in upgrade_way(found, wanted, **options)["problem"]


def test_the_plan_is_told_in_the_order_in_which_it_is_made() -> None:
    def told(found: Any, **options: bool) -> list[str]:
        way = upgrade_way(found, NEW, **options)
        return [str(line) for line in upgrade_steps(found, way, release(way["target"]))["lines"]]

    forward = told(BEFORE)
    assert forward[0].startswith("cp-0: etcd 3.6.14 -> 3.7.3  # one after the other")
    assert forward[1].startswith("cp-0: kube-apiserver 1.36.4 -> 1.37.2, kube-controller-manager 1.36.4")
    assert "behaves as 1.36 until" in forward[1]
    assert "later, with k8sgu_upgrade_finish" in forward[2]
    assert "behaves as 1.37 and no longer as the release before" in told(EMULATING, finish=True)[0]
    back = told(AFTER, back=True)
    assert [line.split(" ")[1] for line in back] == ["kubelet"] * 3 + ["kube-apiserver", "etcd"]


def test_only_the_forms_that_are_meant() -> None:
    for wrong in (lambda: upgrade_way("x", NEW), lambda: upgrade_steps(BEFORE, "x", {})):
        with pytest.raises(AnsibleFilterError):
            wrong()
