# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of ansible-playbook that would leave a part of a playbook out, and those that are as good as none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.plugin_utils._calls import (
    Call,
    Play,
    depends_on_plays,
    includes_controller,
    notes,
    problems,
)

CONTROL_PLANE = frozenset({"cp-0", "cp-1", "cp-2"})
WORKERS = frozenset({"w-0", "w-1"})
EVERYBODY = CONTROL_PLANE | WORKERS
PLAYS = (
    Play("Description", controller=True, tags=frozenset({"infrastructure", "preflight"})),
    Play("Preflight", EVERYBODY, tags=frozenset({"preflight"})),
    Play("Certificates", controller=True, tags=frozenset({"pki"})),
    Play("Database", CONTROL_PLANE, tags=frozenset({"etcd"})),
    Play("Workers", EVERYBODY, tags=frozenset({"worker"})),
)
UNTAGGED = (Play("Remove", controller=True),)


def call(*plays: Play, **given: Any) -> Call:
    """A call whose tags leave every play a task, unless a play says otherwise."""
    return Call(plays=plays or PLAYS, **{"chosen": EVERYBODY, **given})


def tagged(*tags: str) -> tuple[Play, ...]:
    """The plays as --tags leaves them."""
    return tuple(replace(play, runs=bool(play.tags & set(tags))) for play in PLAYS)


@pytest.mark.parametrize(
    ("patterns", "included"),
    [
        (["w-0", "localhost"], True),
        (["all", "!w-0", "localhost"], True),
        (["localhost", "&localhost"], True),
        (["all"], False),
        (["*"], False),
        (["local*"], False),
        (["!w-0"], False),
        (["localhost", "!localhost"], False),
        (["localhost", "worker", "&zone_a"], False),
    ],
)
def test_the_controller_is_only_in_a_limit_that_names_it(patterns: list[str], included: bool) -> None:
    assert includes_controller(patterns) is included


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"limit": ("w-0", "localhost"), "chosen": frozenset({"w-0"})},
        {"limit": ("all", "!w-0", "localhost"), "chosen": EVERYBODY - {"w-0"}},
        # An inventory may have a host of this name.
        {"limit": ("all",), "chosen": EVERYBODY | {"localhost"}},
        {"tags": ("all",)},
        {"tags": ("pki", "etcd")},
        {"skip_tags": ("notest", "molecule-notest", "molecule-idempotence-notest")},
        {"connection": "ssh", "become_user": "root", "strategy": "linear"},
        {"strategy": "ansible.builtin.debug", "extra_variables": frozenset({"k8sgu_worker_count", "ansible_user"})},
    ],
)
def test_calls_that_skip_nothing_run(given: dict[str, Any]) -> None:
    assert problems(call(**given)) == []


@pytest.mark.parametrize(
    ("plays", "given", "said"),
    [
        (
            PLAYS,
            {"limit": ("w-0",), "chosen": {"w-0"}},
            "leaves out what is done on the controller: Description, Certificates. Give --limit 'w-0,localhost',",
        ),
        (PLAYS, {"limit": ("!w-0",), "chosen": EVERYBODY - {"w-0"}}, "Give --limit 'all,!w-0,localhost'"),
        (PLAYS, {"limit": ("worker", "&zone_a"), "chosen": {"w-1"}}, "Give --limit 'w-1,localhost'"),
        (
            PLAYS,
            {"limit": ("localhost", "w-7"), "chosen": set()},
            "names no node of the inventory that this is for, so it would be left out: Preflight, Database, Workers. ",
        ),
        (PLAYS, {"limit": ("localhost",), "chosen": set()}, "the controller's part alone: --tags infrastructure,pki."),
        (tagged("etcd"), {"tags": ("etcd",), "limit": ("w-0",), "chosen": {"w-0"}}, "it would be left out: Database."),
        (UNTAGGED, {"limit": ("w-0", "localhost"), "limitable": False}, "this playbook is about the whole cluster"),
        (PLAYS, {"tags": ("pkj",)}, "--tags pkj: there is no such tag; did you mean pki? there are etcd, infra"),
        (PLAYS, {"skip_tags": ("verfy",)}, "--skip-tags verfy: there is no such tag; there are"),
        (UNTAGGED, {"tags": ("pki",)}, "--tags pki: there is no such tag; this playbook has none"),
        (tagged(), {"tags": ("pki",), "skip_tags": ("pki",)}, "--tags pki --skip-tags pki: leaves nothing to be done"),
        (PLAYS, {"start_at_task": "Install"}, "--start-at-task 'Install': skips what later tasks need"),
        (PLAYS, {"step_unanswered": True}, "--step: "),
        (PLAYS, {"strategy": "free"}, "ANSIBLE_STRATEGY: with free"),
        (PLAYS, {"strategy": "ansible.builtin.host_pinned"}, "ANSIBLE_STRATEGY: with ansible.builtin.host_pinned"),
        (PLAYS, {"connection": "local"}, "--connection local: every node would be this machine"),
        (PLAYS, {"connection": "ansible.builtin.local"}, "--connection local: "),
        (PLAYS, {"become_user": "admin"}, "--become-user admin: what is done on nodes needs root"),
        (PLAYS, {"extra_variables": {"ansible_connection"}}, "--extra-vars ansible_connection: would apply"),
        (PLAYS, {"extra_variables": {"ansible_check_mode"}}, "--extra-vars ansible_check_mode: has no effect"),
        (PLAYS, {"extra_variables": {"serial"}}, "--extra-vars serial: has no effect"),
    ],
)  # fmt: skip
def test_calls_that_would_skip_something_are_refused(plays: tuple[Play, ...], given: dict[str, Any], said: str) -> None:
    sets = {key: frozenset(value) if isinstance(value, set) else value for key, value in given.items()}
    found = problems(call(*plays, **sets))
    assert len(found) == 1 and said in found[0], found


def test_all_problems_are_reported_at_once() -> None:
    found = problems(call(limit=("w-0",), tags=("pkj",), start_at_task="Install", connection="local"))
    assert [problem.split(maxsplit=1)[0] for problem in found] == [
        "--limit",
        "--tags",
        "--start-at-task",
        "--connection",
    ]


def test_options_for_nodes_are_no_problem_if_only_the_controller_is_used() -> None:
    assert problems(call(*UNTAGGED, connection="local", become_user="admin")) == []
    assert problems(call(*tagged("etcd"), tags=("etcd",), limit=("cp-0",), chosen=frozenset({"cp-0"}))) == []


def test_what_is_skipped_on_purpose_is_reported() -> None:
    assert notes(call()) == notes(call(skip_tags=("notest",))) == []
    limited = call(limit=("w-0", "localhost"), chosen=frozenset({"w-0"}))
    assert notes(limited) == ["--limit 'w-0,localhost': neither changes nor checks: cp-0, cp-1, cp-2, w-1"]
    skipped = tuple(replace(play, runs="preflight" not in play.tags) for play in PLAYS)
    [said] = notes(call(*skipped, skip_tags=("preflight",)))
    assert said.startswith("--skip-tags preflight: leaves out Description, Preflight; neither the description nor")


def test_a_variable_that_nothing_reads_is_reported_if_no_preflight_does() -> None:
    told = ("k8sgu_x: there is no such variable",)
    assert problems(call(*UNTAGGED, unknown_variables=told)) == ["--extra-vars k8sgu_x: there is no such variable"]
    assert problems(call(unknown_variables=told)) == []


def test_a_plain_call_is_judged_without_reading_its_playbooks() -> None:
    assert not depends_on_plays(Call(tags=("all",), connection="ssh", become_user="root", strategy="linear"))
    for given in ({"limit": ("all",)}, {"tags": ("pki",)}, {"skip_tags": ("pki",)}, {"connection": "local"}):
        assert depends_on_plays(Call(**given)), given


HALF = {"all": 3, "ungrouped": 0, "control_plane": 1, "etcds": 1, "workers": 1}
EMPTY = {"control_plane": 0, "etcd": 0, "worker": 0}


def test_an_inventory_without_the_groups_is_refused() -> None:
    for inventory in ("nodes", "groups"):
        [said] = problems(Call(inventory=inventory, groups=HALF, sources=("hosts.yml",)))
        lacking = "lacks the groups etcd and worker (it has etcds for etcd and workers for worker), so what is done on"
        assert said.startswith(f"inventory hosts.yml: {lacking}"), said
        assert "inventories/aws" in said and "docs/interfaces.md" in said
    [said] = problems(Call(inventory="nodes", groups={"control_plane": 1, "etcd": 1}, sources=("a", "b")))
    assert said.startswith("inventory a, b: lacks the group worker, so"), said
    # In check mode too: nothing will ever list the nodes.
    assert problems(Call(inventory="nodes", groups={"all": 0}, check=True)) != []
    assert problems(Call(inventory="any", groups={"all": 0})) == []


def test_an_inventory_without_nodes_is_refused_where_nodes_are_wanted() -> None:
    [said] = problems(Call(inventory="nodes", groups=EMPTY, sources=("aws",)))
    assert said.startswith("inventory aws: no node is in control_plane and etcd, so what is done on nodes"), said
    assert "playbooks/infrastructure.yml first" in said and "ansible-inventory --graph" in said
    [said] = problems(Call(inventory="nodes", groups={**EMPTY, "control_plane": 1}))
    assert "no node is in etcd, so" in said
    # Kubelets run on the control plane too.
    assert problems(Call(inventory="nodes", groups={"control_plane": 1, "etcd": 1, "worker": 0})) == []
    assert problems(Call(inventory="groups", groups=EMPTY)) == problems(Call(inventory="any", groups=EMPTY)) == []


def test_in_check_mode_nodes_may_be_planned() -> None:
    planned = Call(inventory="nodes", groups=EMPTY, sources=("aws",), check=True)
    assert problems(planned) == []
    [said] = notes(planned)
    assert said.startswith("inventory aws: no node is in control_plane and etcd yet; what is done on nodes is left out")
    assert notes(Call(inventory="groups", groups=EMPTY, check=True)) == []


@pytest.mark.parametrize(("runs", "refused"), [({"Certificates"}, False), ({"Certificates", "Database"}, True)])
def test_tags_that_leave_the_controllers_part_alone_want_no_nodes(runs: set[str], refused: bool) -> None:
    wanted = {"Preflight": "nodes", "Database": "nodes", "Certificates": "any"}
    plays = tuple(replace(one, inventory=wanted.get(one.name, ""), runs=one.name in runs) for one in PLAYS)
    assert bool(problems(call(*plays, inventory="nodes", groups={}))) == refused
