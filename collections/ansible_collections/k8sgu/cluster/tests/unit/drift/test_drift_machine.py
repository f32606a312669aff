# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What components say in check mode becomes drift, and so does what none of them knows."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._component.model import (
    Artifact,
    Component,
    Directory,
    File,
    Link,
    Unit,
    User,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.node import Current
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.plan import Impossible, plan
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.record import Record
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.run import owned
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.systemd import UnitState
from ansible_collections.k8sgu.cluster.plugins.module_utils._component.undo import PathState
from ansible_collections.k8sgu.cluster.plugins.module_utils._drift import facts, machine
from ansible_collections.k8sgu.cluster.plugins.module_utils._drift.findings import WAYS

PROGRAM = "/opt/k8sgu/etcd/3.6/etcd"
CONFIG, UNIT, LINK = "/etc/etcd/etcd.env", "/etc/systemd/system/etcd.service", "/opt/k8sgu/etcd/current"
ETCD = Component(
    name="etcd",
    artifacts=[Artifact(PROGRAM, "files/etcd", "a" * 64, 10)],
    packages=["conntrack"],
    user=User("etcd", "etcd", "/var/lib/etcd"),
    directories=[Directory("/var/lib/etcd", "etcd", "etcd", 0o700)],
    files=[File(CONFIG, b"A=1\n"), File("/etc/etcd/read", b"1", effect="reload"), File("/etc/etcd/gone", None)],
    links=[Link(LINK, "3.6")],
    units=[Unit("etcd.service", b"[Service]\n[Install]\n"), Unit("old.service", None, False, "absent")],
    on_change=[["sysctl", "--system"]],
)
RUNNING = UnitState(load="loaded", active="active", sub="running", enabled="enabled")


def current(**more: Any) -> Current:
    """A node on which everything is another way than the component has it."""
    paths = {
        CONFIG: PathState("file", 0, 0, 0o666, b"A=2\n"),
        "/etc/etcd/read": PathState("file", 0, 0, 0o644, b"2"),
        "/etc/etcd/gone": PathState("file", 0, 0, 0o644, b"3"),
        LINK: PathState("link", target="3.5"),
        UNIT: PathState("file", 0, 0, 0o644, b""),
        "/etc/systemd/system/old.service": PathState("file", 0, 0, 0o600, b""),
        "/var/lib/etcd": PathState("directory", 0, 0, 0o755),
    }
    stopped = UnitState(load="loaded", active="inactive", enabled="disabled", needs_reload=True)
    units = {"etcd.service": stopped, "old.service": RUNNING}
    ids = {"root": 0, "etcd": 7}
    return dataclasses.replace(Current(paths=paths, units=units, uids=ids, gids=ids, record=Record()), **more)


def result(component: Component, found: Current) -> dict[str, Any]:
    """What the module returns in check mode."""
    faults: list[str] = []
    try:
        made = plan(component, found)
    except Impossible as error:
        made, faults = error.rest, error.faults
    said: dict[str, Any] = {"name": component.name, "reasons": made.reasons, **owned(component), "faults": faults}
    return {"components": [said], "failed": bool(faults)}


def told(*results: dict[str, Any]) -> list[tuple[str, str]]:
    found = list(machine.of_components("n", results))
    assert all(finding.kind in WAYS and finding.expected and finding.seen for finding in found)
    return [(finding.kind, finding.where) for finding in found]


def test_every_reason_that_a_component_gives_is_a_kind_of_drift() -> None:
    assert told(result(ETCD, current())) == [
        ("program", f"n:{PROGRAM}"),
        ("package", "n:conntrack"),
        *[("account", f"n:{command}") for command in _account_commands()],
        ("directory", "n:/var/lib/etcd"),
        ("link", f"n:{LINK}"),
        ("file", f"n:{CONFIG}"),
        ("file", "n:/etc/etcd/read"),
        ("file", "n:/etc/etcd/gone"),
        ("file", f"n:{UNIT}"),
        ("file", "n:/etc/systemd/system/old.service"),
        ("unit-disabled", "n:etcd.service"),
        ("unit-stopped", "n:etcd.service"),
        ("unit-enabled", "n:old.service"),
        ("unit-running", "n:old.service"),
    ]


def _account_commands() -> list[str]:
    reasons = plan(ETCD, current()).reasons
    return [reason.partition(": ")[2] for reason in reasons if reason.startswith("account: ")]


def test_the_kinds_are_those_of_all_verbs() -> None:
    assert set(machine.KINDS.values()) <= set(WAYS) and set(machine.EXPECTED) == set(machine.KINDS.values())


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [
        # What follows from a change of a file is told with it.
        (["file /a: content differs", "restart a.service: /a changed"], [("file", "n:/a")]),
        (["restart a.service: it was started with another /a"], [("unit-stale", "n:a.service")]),
        (["reload a.service: it has not yet read its changed files"], [("unit-stale", "n:a.service")]),
        (["run sysctl --system: not yet run for these files"], [("unit-stale", "n:sysctl --system")]),
        (["enable a.service again: its [Install] section changed"], [("unit-disabled", "n:a.service")]),
    ],
)
def test_reasons(reasons: list[str], expected: list[tuple[str, str]]) -> None:
    assert told({"components": [{"name": "a", "reasons": reasons}]}) == expected


def test_a_reason_of_a_new_kind_is_a_fault_of_ours() -> None:
    with pytest.raises(ValueError, match="polish /a: dull"):
        told({"components": [{"name": "a", "reasons": ["polish /a: dull"]}]})


def test_what_makes_a_plan_impossible_hides_nothing() -> None:
    found = current()
    found.paths[UNIT] = PathState("link", target="/dev/null")
    found.paths[LINK] = PathState("file", 0, 0, 0o644, b"")
    said = told(result(ETCD, found))
    assert ("unit-masked", "n:etcd.service") in said and ("in-the-way", f"n:{LINK}") in said
    assert ("file", f"n:{CONFIG}") in said and ("program", f"n:{PROGRAM}") in said


def test_a_masked_unit_of_a_package() -> None:
    component = Component("time", units=[Unit("chrony.service", None)])
    masked = UnitState(load="masked", active="inactive", enabled="masked")
    kinds = told(result(component, Current(units={"chrony.service": masked})))
    assert ("unit-masked", "n:chrony.service") in kinds


def test_a_task_that_failed_otherwise_is_unknown_and_says_why() -> None:
    [finding] = machine.of_components("n", [{"failed": True, "msg": "mirror_dir: there is nothing"}])
    assert (finding.kind, finding.where, finding.seen) == ("unknown", "n", "mirror_dir: there is nothing")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A node with what the component has, and something of each kind that it has not."""
    for name in (
        *("etc/etcd/etcd.env", "etc/etcd/read", "etc/etcd/initial.env", "etc/etcd/pki/stray.crt"),
        *("etc/kubernetes/manifests/old.yml", "etc/other/theirs", "opt/k8sgu/etcd/3.6/etcd"),
        *("var/lib/k8sgu/component/etcd.json", "var/lib/k8sgu/component/older.json"),
        *("etc/systemd/system/etcd.service.d/more.conf", "etc/systemd/system/theirs.service.d/more.conf"),
        "run/systemd/system/etcd.service.d/now.conf",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    record = {"binaries": {}, "started_with": {}}
    (tmp_path / "var/lib/k8sgu/component/absent.json").write_text(json.dumps(record))
    for name, text in (
        ("etcd", "/opt/k8sgu/etcd/current/etcd"),
        ("older", "/opt/k8sgu/older/x"),
        ("var-lib-etcd", "/var/lib/k8sgu/x"),
        ("theirs", "/x"),
    ):
        kind = "mount" if name.startswith("var") else "service"
        (tmp_path / f"etc/systemd/system/{name}.{kind}").write_text(f"[Service]\nExecStart={text}\n")
    (tmp_path / "etc/systemd/system/enabled.service").symlink_to(tmp_path / "etc/systemd/system/older.service")
    (tmp_path / "usr/local/bin").mkdir(parents=True)
    for name, target in (("etcdctl", "/opt/k8sgu/etcd/current/etcdctl"), ("theirs", "/opt/x")):
        (tmp_path / "usr/local/bin" / name).symlink_to(target)
    return tmp_path


def test_what_no_component_knows(root: Path) -> None:
    found = list(machine.left_over("n", facts.show(root), [result(ETCD, current())]))
    assert all(finding.kind in WAYS for finding in found)
    assert [(finding.kind, finding.where) for finding in found] == [
        ("file-unknown", "n:/etc/kubernetes/manifests/old.yml"),
        ("file-unknown", "n:/etc/etcd/pki/stray.crt"),
        ("unit-unknown", "n:/etc/systemd/system/older.service"),
        ("unit-dropin", "n:/etc/systemd/system/etcd.service.d/more.conf"),
        ("unit-dropin", "n:/run/systemd/system/etcd.service.d/now.conf"),
        ("link-unknown", "n:/usr/local/bin/etcdctl"),
        ("component-unknown", "n:older"),
    ]


def test_nothing_is_called_unknown_where_a_role_could_not_be_compared(root: Path) -> None:
    """Its files would be called so."""
    results = [result(ETCD, current()), {"failed": True, "msg": "no"}]
    assert list(machine.left_over("n", facts.show(root), results)) == []


@pytest.mark.parametrize(
    ("etcd", "number"),
    [
        ({}, 0),
        ({"volume": False, "mounted": False}, 0),
        ({"volume": True, "mounted": True}, 0),
        ({"volume": True, "mounted": False}, 1),
    ],
)
def test_a_volume_that_is_not_mounted(etcd: dict[str, bool], number: int) -> None:
    assert len(list(machine.of_volume("n", etcd))) == number
