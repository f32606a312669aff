# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The plan, by table: current state in, changes with their reasons out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._component import record as records
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.accounts import Account
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import (
    Artifact,
    Component,
    ComponentError,
    Directory,
    File,
    Health,
    Job,
    Link,
    Unit,
    User,
    decode,
    encode,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.node import Current
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.packages import package_states
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.plan import Action, fetching, plan
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.record import Record
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.systemd import UnitState
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.undo import PathState, Undo

PROGRAM = Artifact("/opt/k8sgu/etcd/3.6/etcd", "files/etcd", "a" * 64, 10)
UNIT = Unit("etcd.service", b"[Service]\nExecStart=/x\n[Install]\nWantedBy=multi-user.target\n")
CONFIG = File("/etc/etcd/etcd.yml", b"name: a\n", group="etcd", mode=0o640)
RELOADED = File("/etc/etcd/reloaded", b"1", effect="reload")
QUIET = File("/etc/etcd/quiet", b"1", effect="nothing")
ETCD = Component(
    name="etcd",
    artifacts=[PROGRAM],
    user=User("etcd", "etcd", "/var/lib/etcd"),
    directories=[Directory("/var/lib/etcd", "etcd", "etcd", 0o700)],
    files=[CONFIG, RELOADED, QUIET],
    links=[Link("/opt/k8sgu/etcd/current", "3.6")],
    units=[UNIT],
    on_change=[["sysctl", "--system"]],
)
RUNNING = UnitState(load="loaded", active="active", sub="running", enabled="enabled")


def settled(component: Component = ETCD, **changes: Any) -> Current:
    """The node after a complete run, with some changes."""
    paths = {
        f.dest: PathState("file", 0, 7 if f.group == "etcd" else 0, f.mode, f.content or b"") for f in component.files
    }
    paths.update({link.dest: PathState("link", target=link.target) for link in component.links})
    paths.update({u.path: PathState("file", 0, 0, 0o600, u.content or b"") for u in component.units})
    paths.update({d.path: PathState("directory", 7, 7, d.mode) for d in component.directories})
    record = Record(
        started_with={unit.name: records.restart_items(component, unit) for unit in component.units},
        reloaded_with=records.reload_items(component),
        commands_for=records.command_items(component),
    )
    current = Current(
        paths=paths,
        binaries={artifact.path: artifact.sha256 for artifact in component.artifacts},
        account=Account("etcd", "/var/lib/etcd"),
        groups=frozenset({"etcd"}),
        uids={"root": 0, "etcd": 7},
        gids={"root": 0, "etcd": 7},
        units={unit.name: RUNNING for unit in component.units},
        record=record,
    )
    return replace(current, **changes)


def with_path(path: str, state: PathState) -> Current:
    current = settled()
    return replace(current, paths={**current.paths, path: state})


EMPTY = replace(
    settled(),
    paths=dict.fromkeys(settled().paths, PathState()),
    binaries={},
    account=None,
    groups=frozenset(),
    uids={"root": 0, "etcd": None},
    gids={"root": 0, "etcd": None},
    units={"etcd.service": UnitState()},
    record=Record(),
)


def test_nothing_to_do_on_a_settled_node() -> None:
    assert not plan(ETCD, settled()).changed
    assert plan(ETCD, settled()).diff == []


def test_fetching_brings_programs_alone() -> None:
    assert not fetching(ETCD, settled()).changed
    result = fetching(ETCD, EMPTY)
    assert (result.fetch, result.reasons) == ([PROGRAM], [f"program {PROGRAM.path}: missing"])
    assert not (result.files or result.links or result.actions or result.user_commands)


def test_everything_to_do_on_an_empty_node() -> None:
    result = plan(ETCD, EMPTY)
    assert result.fetch == [PROGRAM]
    assert [command[0] for command in result.user_commands] == ["groupadd", "useradd"]
    assert [d.path for d in result.directories] == ["/var/lib/etcd"]
    assert {f.dest for f in result.files} == {CONFIG.dest, RELOADED.dest, QUIET.dest, UNIT.path}
    assert result.daemon_reload
    assert result.enable == ["etcd.service"]
    assert result.actions == [Action("etcd.service", "start")]
    assert result.on_change == [["sysctl", "--system"]]
    assert [entry["before"] for entry in result.diff] == [""] * 4


@pytest.mark.parametrize(
    ("current", "actions", "reason"),
    [
        (
            with_path(CONFIG.dest, PathState("file", 0, 7, 0o640, b"old")),
            ["restart"],
            "restart etcd.service: /etc/etcd/etcd.yml",
        ),
        (
            with_path(UNIT.path, PathState("file", 0, 0, 0o600, b"[Install]")),
            ["restart"],
            "etcd.service: content differs",
        ),
        (with_path(RELOADED.dest, PathState("file", 0, 0, 0o644, b"0")), ["reload"], "reload etcd.service"),
        (with_path(QUIET.dest, PathState("file", 0, 0, 0o644, b"0")), [], "/etc/etcd/quiet: content differs"),
        (
            with_path(CONFIG.dest, PathState("file", 0, 0, 0o600, b"name: a\n")),
            [],
            "group 0 instead of etcd, mode 0600",
        ),
        (with_path(CONFIG.dest, PathState()), ["restart"], "/etc/etcd/etcd.yml: missing"),
        (
            with_path("/opt/k8sgu/etcd/current", PathState("link", target="3.5")),
            ["restart"],
            "points to 3.5 instead of 3.6",
        ),
        (with_path("/var/lib/etcd", PathState("directory", 0, 7, 0o755)), [], "owner 0 instead of etcd, mode 0755"),
        (settled(binaries={PROGRAM.path: "b" * 64}), ["restart"], "content differs from the mirror's"),
        (
            settled(units={"etcd.service": replace(RUNNING, active="failed")}),
            ["start"],
            "start etcd.service: it is failed",
        ),
        (settled(units={"etcd.service": replace(RUNNING, enabled="disabled")}), [], "enable etcd.service"),
        (
            settled(units={"etcd.service": replace(RUNNING, needs_reload=True)}),
            [],
            "unit files changed since it read them",
        ),
        (settled(record=Record()), ["restart"], "it is not known what it was started with"),
        (settled(interrupted=Undo()), ["restart"], "an earlier run was interrupted"),
        (settled(account=Account("etcd", "/home")), [], "usermod --home /var/lib/etcd etcd"),
    ],
)
def test_one_difference_leads_to_one_change(current: Current, actions: list[str], reason: str) -> None:
    result = plan(ETCD, current)
    assert [action.verb for action in result.actions] == actions
    assert reason in "\n".join(result.reasons)


def test_a_unit_started_with_something_else_is_restarted_though_no_file_changes() -> None:
    current = settled()
    current.record.started_with["etcd.service"][CONFIG.dest] = "of old"
    result = plan(ETCD, current)
    assert result.actions == [Action("etcd.service", "restart")]
    assert not result.files
    assert "it was started with another /etc/etcd/etcd.yml" in result.reasons[-1]


@pytest.mark.parametrize(
    ("changes", "verb", "reason"),
    [
        ({}, "reload", "reload etcd.service: /etc/etcd/reloaded changed"),
        ({"healthy": False}, "restart", "restart etcd.service: /etc/etcd/reloaded changed, and it is not healthy"),
        ({"units": {UNIT.name: replace(RUNNING, active="activating")}}, "restart", "and it is not healthy"),
        ({"units": {UNIT.name: replace(RUNNING, active="reloading")}}, "reload", "reload etcd.service"),
    ],
)
def test_only_what_works_is_reloaded(changes: dict[str, Any], verb: str, reason: str) -> None:
    result = plan(ETCD, replace(with_path(RELOADED.dest, PathState("file", 0, 0, 0o644, b"0")), **changes))
    assert result.actions == [Action(UNIT.name, verb)]
    assert reason in result.reasons[-1]


def test_a_reload_that_was_cut_off_is_made_later_and_restarts_nothing() -> None:
    was = PathState("file", 0, 0, 0o644, b"0")
    current = settled(interrupted=Undo({RELOADED.dest: was}, {UNIT.name: {"running": True, "enabled": True}}))
    # The file is in its place, and nobody has read it.
    current.record.reloaded_with = {RELOADED.dest: records.sha256(b"0")}
    result = plan(ETCD, current)
    assert result.actions == [Action(UNIT.name, "reload")]
    assert not result.files
    current = replace(current, interrupted=Undo({RELOADED.dest: was, CONFIG.dest: was}))
    assert plan(ETCD, current).actions == [Action(UNIT.name, "restart")]


def test_what_of_a_file_restarts_is_told_apart() -> None:
    def component(content: bytes, restart_on: str) -> Component:
        return replace(ETCD, files=[replace(RELOADED, content=content, restart_on=restart_on)])

    current = settled(component(b"1", "a"))
    assert not plan(component(b"1", "a"), current).changed
    assert plan(component(b"2", "a"), current).actions == [Action(UNIT.name, "reload")]
    for changed in (component(b"2", "b"), component(b"1", "b")):
        result = plan(changed, current)
        assert result.actions == [Action(UNIT.name, "restart")]
        assert f"it was started with another {RELOADED.dest}" in result.reasons[-1]


def test_units_stop_in_reverse_order_and_only_when_running() -> None:
    units = [replace(UNIT, name=f"{name}.service", state="stopped", enabled=False) for name in "abc"]
    component = Component("x", units=units)
    states = {unit.name: replace(RUNNING, enabled="disabled") for unit in units}
    states["b.service"] = replace(RUNNING, active="inactive", enabled="disabled")
    result = plan(component, settled(component, units=states))
    assert result.actions == [Action("c.service", "stop"), Action("a.service", "stop")]


@pytest.mark.parametrize("active", ["inactive", "activating", "failed", "deactivating"])
def test_a_unit_on_demand_is_placed_and_neither_started_nor_stopped(active: str) -> None:
    unit = replace(UNIT, name="x.service", content=b"[Service]\nType=oneshot\n", state="on_demand")
    component = Component("x", units=[unit])
    states = {unit.name: UnitState("loaded", active, enabled="static")}
    assert not plan(component, settled(component, units=states)).changed
    changed = plan(component, replace(settled(component, units=states), paths={unit.path: PathState()}))
    assert [file.dest for file in changed.files] == [unit.path] and changed.daemon_reload
    assert not (changed.actions or changed.enable or changed.disable)


def test_a_change_of_one_units_file_leaves_the_others_alone() -> None:
    other = replace(UNIT, name="other.service")
    component = replace(ETCD, units=[UNIT, other])
    current = settled(component)
    paths = {**current.paths, other.path: PathState("file", 0, 0, 0o600, b"[Service]\n[Install]\nWantedBy=x")}
    result = plan(component, replace(current, paths=paths))
    assert result.actions == [Action("other.service", "restart")]
    assert result.enable == ["other.service"]  # its [Install] section changed


@pytest.mark.parametrize(
    ("component", "current", "fault"),
    [
        (replace(ETCD, files=[replace(CONFIG, owner="ghost")]), settled(), "owner ghost does not exist"),
        (ETCD, with_path(CONFIG.dest, PathState("directory")), "is a directory where a file should be"),
        (ETCD, with_path(CONFIG.dest, PathState("link", target="/x")), "is a link where a file should be"),
        (ETCD, with_path(UNIT.path, PathState("link", target="/dev/null")), "systemctl unmask etcd.service"),
        (ETCD, with_path("/var/lib/etcd", PathState("file")), "is a file, not a directory"),
        (ETCD, with_path("/opt/k8sgu/etcd/current", PathState("file")), "is a file where a link should be"),
        (
            Component("x", units=[Unit("no.service", None)]),
            Current(units={"no.service": UnitState()}),
            "unit no.service does not exist on the node",
        ),
        (
            Component("x", units=[Unit("no.service", None)]),
            Current(units={"no.service": UnitState(load="masked")}),
            "masked on the node",
        ),
    ],
)
def test_obstacles_are_named(component: Component, current: Current, fault: str) -> None:
    with pytest.raises(ComponentError) as caught:
        plan(component, current)
    assert fault in str(caught.value)


def test_an_account_that_an_earlier_component_makes_counts_as_existing() -> None:
    component = Component("x", files=[File("/etc/x", b"", owner="kube")])
    current = Current(paths={"/etc/x": PathState()}, uids={"kube": None}, gids={"root": 0})
    with pytest.raises(ComponentError):
        plan(component, current)
    assert plan(component, current, frozenset({"kube"})).changed


def test_secrets_are_not_in_the_diff() -> None:
    key = File("/etc/key", b"-----BEGIN PRIVATE KEY-----\nnew", mode=0o600)
    token = File("/etc/token", b"new-token", secret=True)
    component = Component("x", files=[key, token])
    before = {
        "/etc/key": PathState("file", 0, 0, 0o600, b"-----BEGIN PRIVATE KEY-----\nold"),
        "/etc/token": PathState("file", 0, 0, 0o644, b"old-token"),
    }
    result = plan(component, Current(paths=before, uids={"root": 0}, gids={"root": 0}))
    assert len(result.diff) == 2
    for entry in result.diff:
        assert entry["before"] != entry["after"]
        for side in ("before", "after"):
            assert "BEGIN" not in entry[side]
            assert "token\n" not in entry[side]
            assert "secret" in entry[side]


def test_a_job_survives_the_way_to_the_node() -> None:
    binary = File("/x", b"\xff\x00", secret=True, effect="reload", validate="true %s", restart_on="a")
    served = [{"address": "127.0.0.1:1", "certificate": "/c"}]
    health = Health(url="https://127.0.0.1/", ca="/ca", serves=served, timeout=3)
    job = Job(
        [replace(ETCD, files=[binary, CONFIG, File("/gone", None)], health=health)],
        "http://m",
        "http://p:1",
        "/staged",
        5,
    )
    assert decode(encode(job)) == job


def test_packages_are_distinguished_by_their_status() -> None:
    status = "Package: a\nStatus: install ok installed\n\nPackage: ab\nStatus: deinstall ok config-files\n\n"
    assert package_states(["a", "ab", "b"], status) == {
        "a": "install ok installed",
        "ab": "deinstall ok config-files",
        "b": "",
    }
    component = Component("x", packages=["a", "ab", "b"])
    assert plan(component, Current(packages=package_states(component.packages, status))).packages == ["ab", "b"]
