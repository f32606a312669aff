# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps back, by table: what was and what is there in, steps with their reasons out."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import Leaves
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.origin import HOME, UNKNOWN, Origin
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.systemd import UnitState
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.undo import PathState
from ansible_collections.k8sgu.cluster.plugins.module_utils._reset.plan import Now, Plan, plan, still_there

FILE = PathState("file", 0, 0, 0o644, b"ours")
DIRECTORY = PathState("directory", 0, 0, 0o755)
RUNS = UnitState(load="loaded", active="active", sub="running", enabled="enabled")
WAS_NOTHING = {"running": False, "enabled": False}
RAN = {"running": True, "enabled": True}


def origin(**changes: Any) -> Origin:
    return replace(Origin(), **changes)


def leaving(on_change: list[list[str]] | None = None, **kinds: list[str]) -> dict[str, Any]:
    return {"zz": {"on_change": on_change or [], "leaves": asdict(Leaves(**kinds))}}


def steps(made: Plan) -> list[str]:
    return [f"{step.kind} {step.target}" for step in made.steps]


def test_units_stop_in_the_reverse_order_of_their_start_and_then_go() -> None:
    before = origin(
        paths={"/etc/systemd/system/a.service": PathState(), "/etc/systemd/system/b.service": PathState()},
        units={"a.service": WAS_NOTHING, "b.service": WAS_NOTHING},
    )
    now = Now(
        units={"a.service": RUNS, "b.service": RUNS},
        paths=dict.fromkeys(before.paths, FILE),
        cgroups={"b.service": 2},
    )
    assert steps(plan(before, now)) == [
        "stop b.service",
        "stop a.service",
        "end the processes of b.service",
        "disable b.service",
        "disable a.service",
        "remove /etc/systemd/system/b.service",
        "remove /etc/systemd/system/a.service",
    ]
    assert steps(plan(before, Now())) == []


def test_a_unit_that_ran_before_runs_again_without_our_files() -> None:
    was = PathState("file", 0, 0, 0o644, b"theirs")
    before = origin(paths={"/etc/docker/daemon.json": was}, units={"docker.service": RAN})
    now = Now(units={"docker.service": RUNS}, paths={"/etc/docker/daemon.json": FILE})
    assert steps(plan(before, now)) == [
        "stop docker.service",
        "put back /etc/docker/daemon.json",
        "start docker.service",
    ]
    settled = Now(units={"docker.service": RUNS}, paths={"/etc/docker/daemon.json": was})
    assert steps(plan(before, settled)) == []
    # A reset that was cut off between the two.
    assert "start docker.service" in steps(plan(replace(before, resetting=True), settled))


def test_a_directory_of_ours_goes_whole_and_one_on_the_way_only_if_nothing_else_is_in_it() -> None:
    before = origin(
        paths={path: PathState() for path in ("/etc/kubernetes", "/etc/kubernetes/a", "/etc/chrony", "/etc/chrony/a")},
        whole=["/etc/kubernetes"],
    )
    now = Now(
        paths={
            **dict.fromkeys(("/etc/kubernetes", "/etc/chrony"), DIRECTORY),
            **dict.fromkeys(("/etc/kubernetes/a", "/etc/chrony/a"), FILE),
        },
        below={"/etc/kubernetes": ["a", "foreign"], "/etc/chrony": ["a", "foreign"]},
    )
    made = plan(before, now)
    assert steps(made) == ["remove /etc/kubernetes", "remove /etc/chrony/a"]
    assert made.stays == ["/etc/chrony: holds /etc/chrony/foreign, which is not ours"]
    now.below["/etc/chrony"].remove("foreign")
    assert "remove /etc/chrony" in steps(plan(before, now))


def test_what_was_there_before_is_put_back_and_a_directory_keeps_what_is_in_it() -> None:
    before = origin(
        paths={
            "/etc/hosts": PathState("file", 0, 0, 0o644, b"before"),
            "/etc/containerd": PathState("directory", 0, 0, 0o711),
            "/usr/local/bin/crictl": PathState("link", target="/opt/theirs"),
        },
        whole=["/etc/containerd"],
    )
    now = Now(paths={"/etc/hosts": FILE, "/etc/containerd": DIRECTORY, "/usr/local/bin/crictl": PathState()})
    assert steps(plan(before, now)) == [
        "put back /usr/local/bin/crictl",
        "put back /etc/hosts",
        "put back /etc/containerd",
    ]
    assert steps(plan(before, Now(paths=dict(before.paths)))) == []


def test_the_owner_and_the_record_go_last() -> None:
    paths = [HOME, f"{HOME}/formatting.json", "/etc/k8sgu", "/etc/k8sgu/cluster.json", "/etc/a"]
    before = origin(paths={path: PathState() for path in paths}, whole=[HOME, "/etc/k8sgu"])
    now = Now(paths={path: FILE if "." in path or path == "/etc/a" else DIRECTORY for path in paths}, users=["etcd"])
    before.users = ["etcd"]
    assert steps(plan(before, now)) == [
        "remove /etc/a",
        "remove user etcd",
        "at last remove /etc/k8sgu",
        f"at last remove {HOME}",
    ]


def test_rules_interfaces_and_sets_are_ours_by_their_names() -> None:
    before = origin(
        components=leaving(
            interfaces=["cni0", "flannel.*"], tables=["ip k8sgu"], chains=["KUBE-*"], sets=["inet6:KUBE-*"]
        )
    )
    now = Now(
        interfaces=["cni0", "flannel.1", "ens5"],
        tables=["ip k8sgu", "inet fail2ban", "ip nat"],
        empty_tables=["ip nat"],
        chains=[("iptables", "nat", "KUBE-SERVICES"), ("iptables", "nat", "INPUT"), ("iptables", "filter", "f2b")],
        sets=["inet6:KUBE-DST", "mine"],
    )
    assert steps(plan(before, now)) == [
        "remove interface cni0",
        "remove interface flannel.1",
        "remove nftables table ip k8sgu",
        "remove nftables table ip nat",
        "remove iptables chain iptables nat KUBE-SERVICES",
        "remove ipset inet6:KUBE-DST",
    ]


def test_packages_that_came_with_us_go_unless_another_needs_them() -> None:
    before = origin(packages=["conntrack", "nftables", "ipset"])
    now = Now(packages=["bash", "conntrack", "nftables"], needed={"nftables": "firewalld"})
    made = plan(before, now)
    assert steps(made) == ["purge package conntrack"]
    assert made.stays == ["package nftables: firewalld needs it, which is not ours"]


def test_a_volume_is_emptied_before_it_is_unmounted_and_stays() -> None:
    unit = "/etc/systemd/system/var-lib-etcd.mount"
    before = origin(
        paths={"/var/lib/etcd": PathState(), unit: PathState()},
        whole=["/var/lib/etcd"],
        units={"var-lib-etcd.mount": WAS_NOTHING},
    )
    now = Now(
        units={"var-lib-etcd.mount": RUNS},
        paths={"/var/lib/etcd": DIRECTORY, unit: FILE},
        mounts=["/", "/var/lib", "/var/lib/etcd"],
        volumes={"/var/lib/etcd": "the volume of a in demo"},
        below={"/var/lib/etcd": [".k8sgu.json", "lost+found", "member"]},
    )
    made = plan(before, now)
    assert steps(made)[:2] == ["empty the volume at /var/lib/etcd", "unmount /var/lib/etcd"]
    assert "stop var-lib-etcd.mount" not in steps(made)
    now.below["/var/lib/etcd"].remove("member")
    assert steps(plan(before, now))[0] == "unmount /var/lib/etcd"


def test_settings_and_swap_are_as_they_were() -> None:
    before = origin(sysctls={"net.ipv4.ip_forward": "0", "net.bridge.x": "", "a.b": "1\t2"}, swap=["/swapfile"])
    now = Now(sysctls={"net.ipv4.ip_forward": "1", "net.bridge.x": "1", "a.b": "1 2"})
    assert steps(plan(before, now)) == ["set net.ipv4.ip_forward=0", "turn on swap /swapfile"]


def test_what_read_our_files_reads_once_more_unless_it_went_with_them() -> None:
    before = origin(
        paths={"/etc/timesync.conf": PathState(), "/usr/local/lib/k8sgu/prune": PathState()},
        components=leaving([["systemctl", "try-restart", "systemd-timesyncd*"], ["/usr/local/lib/k8sgu/prune"]]),
    )
    assert steps(plan(before, Now(paths={"/etc/timesync.conf": FILE}))) == [
        "remove /etc/timesync.conf",
        "run systemctl try-restart systemd-timesyncd*",
    ]
    assert steps(plan(before, Now())) == []


def test_on_a_node_without_a_record_of_its_first_day_what_is_needed_stays() -> None:
    before = origin(
        paths={"/etc/hosts": PathState(UNKNOWN), "/etc/kubernetes": PathState(UNKNOWN)},
        whole=["/etc/kubernetes"],
        incomplete=["node"],
    )
    made = plan(before, Now(paths={"/etc/hosts": FILE, "/etc/kubernetes": DIRECTORY}))
    assert steps(made) == ["remove /etc/kubernetes"]
    assert "built before k8sgu recorded" in made.stays[0] and "packages stay" in made.stays[0]
    assert made.stays[1].startswith("/etc/hosts: what it held before is not known")


@pytest.mark.parametrize(("load", "told"), [("loaded", 1), ("not-found", 0)])
def test_a_unit_of_another_place_with_our_name_is_told(load: str, told: int) -> None:
    before = origin(paths={"/etc/systemd/system/etcd.service": PathState()}, units={"etcd.service": WAS_NOTHING})
    found = still_there(before, Now(units={"etcd.service": UnitState(load=load)}))
    assert found == ["unit etcd.service: from elsewhere, and left as it is"] * told
