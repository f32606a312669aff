# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of ansible-playbook that would skip a part are refused before the first task, with what to do instead."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import ansible_program

REFUSED = [
    ("site", ["--limit=demo-worker-0"], "Give --limit 'demo-worker-0,localhost'"),
    ("site", ["--limit=@site.retry"], "Give --limit 'demo-worker-1,localhost'"),
    ("site", ["--check", "--limit=!demo-worker-0"], "Give --limit 'all,!demo-worker-0,localhost'"),
    ("site", ["--limit=demo-worker-0,localhost", "--tags=etcd"], "it would be left out: Database."),
    ("site", ["--tags=contol_plane"], "--tags contol_plane: there is no such tag; did you mean control_plane?"),
    ("site", ["--skip-tags=verfy"], "--skip-tags verfy: there is no such tag; did you mean verify?"),
    ("site", ["--start-at-task=etcd : Install"], "--start-at-task 'etcd : Install'"),
    ("site", ["--connection=local", "--become-user=admin"], "--become-user admin: "),
    ("site", ["--extra-vars=ansible_connection=local"], "--extra-vars ansible_connection: "),
    ("pki", ["--limit=demo-control-plane-0"], "leaves out what is done on the controller: Certificates."),
    ("etcd", ["--limit=worker"], "it would be left out: Database."),
    ("etcd", ["--step"], "--step: "),
    ("cluster_dns", ["--limit=control_plane"], "leaves out what is done on the controller: Cluster DNS."),
    (
        "certificate_report",
        ["--limit=worker"],
        "leaves out what is done on the controller: Certificates of the cluster.",
    ),
    ("audit_report", ["--limit=control_plane"], "leaves out what is done on the controller: Audit report."),
    ("network_policy", ["--limit=control_plane"], "leaves out what is done on the controller: NetworkPolicy."),
    (
        "audit_report",
        ["--extra-vars=k8sgu_audit_sinse=1d"],
        "there is no such variable; did you mean k8sgu_audit_since?",
    ),
    ("verify", ["--tags=verfy"], "there are verify"),
    ("security_report", ["--limit=worker,localhost"], "this playbook is about the whole cluster; leave --limit out"),
    ("rotate_encryption_key", ["--limit=control_plane,localhost"], "this playbook is about the whole cluster"),
    ("rotate_encryption_key", ["--tags=control_plane"], "this playbook has none and is done as a whole"),
    ("destroy", ["--limit=demo-worker-0", "--extra-vars=confirm=demo"], "this playbook is about the whole cluster"),
    ("destroy", ["--start-at-task=Remove", "--extra-vars=confirm=demo"], "--start-at-task 'Remove'"),
]


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    """An inventory of nodes that no test connects to."""
    groups = {
        "control_plane": ["demo-control-plane-0"],
        "etcd": ["demo-control-plane-0"],
        "worker": ["demo-worker-0", "demo-worker-1"],
    }
    children = {group: {"hosts": {name: {} for name in names}} for group, names in groups.items()}
    path = tmp_path / "inventory.yml"
    # JSON is YAML.
    path.write_text(
        json.dumps({"all": {"children": children, "vars": {"ansible_host": "127.0.0.1", "ansible_port": 1}}})
    )
    return path


def play(playbook: str, inventory: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    variables = {"k8sgu_state_dir": str(inventory.parent / "state"), "k8sgu_admin_cidrs": ["203.0.113.7/32"]}
    status, output = ansible_program.run_playbook(
        playbook, inventory, *arguments, variables=variables, environment=environment
    )
    return status, output


@pytest.mark.parametrize(("playbook", "arguments", "said"), REFUSED)
def test_a_call_that_would_leave_something_out_is_refused(
    inventory: Path, playbook: str, arguments: list[str], said: str
) -> None:
    retry = inventory.with_name("site.retry")
    retry.write_text("demo-worker-1\n")
    status, output = play(playbook, inventory, *(one.replace("@site.retry", f"@{retry}") for one in arguments))
    assert status != 0 and said in output and "Nothing was changed." in output, output[-3000:]
    assert "TASK [" not in output and not (inventory.parent / "state").exists()


# The whole, a phase, and a report: that every playbook begins in the same way is held by tests/unit/calls.
@pytest.mark.parametrize("playbook", ["site", "infrastructure", "worker", "certificate_report"])
def test_an_inventory_without_the_groups_is_refused(inventory: Path, playbook: str) -> None:
    """Ansible passes over a play without hosts, and the run would end well."""
    inventory.write_text(inventory.read_text().replace('"worker":', '"workers":'))
    status, output = play(playbook, inventory)
    said = " ".join(output.split())
    assert f"inventory {inventory}: lacks the group worker (it has workers for worker), so" in said, output[-3000:]
    assert status != 0 and "docs/interfaces.md" in said and "Nothing was changed." in said
    assert "TASK [" not in output and not (inventory.parent / "state").exists()


@pytest.mark.parametrize("playbook", ["preflight", "worker", "certificate_report"])
def test_an_inventory_without_nodes_is_refused(inventory: Path, playbook: str) -> None:
    inventory.write_text(json.dumps({"all": {"children": {"control_plane": {}, "etcd": {}, "worker": {}}}}))
    status, output = play(playbook, inventory)
    said = " ".join(output.split())
    assert f"inventory {inventory}: no node is in control_plane and etcd, so" in said, output[-3000:]
    assert status != 0 and "playbooks/infrastructure.yml first" in said and "No node was changed." in said
    assert "TASK [" not in output and not (inventory.parent / "state").exists()


def test_without_nodes_drift_tells_what_is_missing_and_without_a_cluster_that_there_is_none(inventory: Path) -> None:
    """All machines of a cluster may be gone, which is drift."""
    inventory.write_text(json.dumps({"all": {"children": {"control_plane": {}, "etcd": {}, "worker": {}}}}))
    status, output = play("drift", inventory)
    said = " ".join(output.split())
    state = inventory.parent / "state"
    assert status != 0 and f"k8sgu_state_dir: {state} does not exist, so no cluster was made from here" in said
    assert "run site.yml first" in said and not state.exists()
    state.mkdir()
    status, output = play("drift", inventory)
    assert status != 0 and "no control-plane node answered with etcd's members" in output, output[-3000:]
    assert (state / "drift.json").exists()


def test_hosts_on_the_command_line_are_no_inventory_of_a_cluster(tmp_path: Path) -> None:
    state = {"k8sgu_state_dir": str(tmp_path / "state")}
    status, output = ansible_program.run_playbook("site", "localhost,", variables=state)
    assert status != 0 and "inventory localhost,: lacks the groups control_plane, etcd and worker, so" in output
    # What is done on the controller alone wants none.
    status, output = ansible_program.run_playbook("site", "localhost,", "--tags=artifacts", "--check", variables=state)
    assert "lacks the group" not in output and "Fill the mirror" in output, output[-3000:]


def test_nodes_that_do_not_wait_for_each_other_are_refused(inventory: Path) -> None:
    status, output = play("site", inventory, ANSIBLE_STRATEGY="free")
    assert status != 0 and "ANSIBLE_STRATEGY: with free" in output and "TASK [" not in output, output[-3000:]


def test_calls_that_only_list_are_not_checked(inventory: Path) -> None:
    status, output = play("site", inventory, "--list-tasks", "--tags=etcd,nothing")
    assert status == 0 and "etcd : Install etcd" in output, output[-3000:]


def test_the_controller_stays_who_it_is(inventory: Path) -> None:
    """--become applies to nodes only: on the controller, a program that cannot make anyone root would fail."""
    status, output = play("description", inventory, "--become", ANSIBLE_BECOME_EXE="/bin/false")
    assert status == 0 and "Check the description" in output, output[-3000:]


def test_nodes_that_are_skipped_on_purpose_are_named(inventory: Path) -> None:
    _status, output = play("verify", inventory, "--limit=demo-worker-0")
    said = "--limit 'demo-worker-0': neither changes nor checks: demo-control-plane-0, demo-worker-1"
    assert said in " ".join(output.split()) and "PLAY [Verify]" in output, output[-3000:]


def test_checks_of_all_nodes_include_those_outside_the_limit(tmp_path: Path) -> None:
    """Also one that does not answer, which is taken to hold keys. Facts are read as where Ansible injects none."""
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts = {"node-0": here, "node-1": here, "node-2": {"ansible_host": "127.0.0.1", "ansible_port": 1}}
    (tmp_path / "inventory.yml").write_text(json.dumps({"all": {"children": {"control_plane": {"hosts": hosts}}}}))
    collection = ansible_program.ROOT / "collections/ansible_collections/k8sgu/cluster"
    play = {
        "hosts": "control_plane",
        "gather_facts": False,
        "any_errors_fatal": True,
        "vars_files": [str(collection / "roles/control_plane/vars/main.yml")],
        "roles": ["k8sgu.cluster.cluster_facts"],
        "tasks": [
            {
                "ansible.builtin.assert": {
                    "that": [
                        "k8sgu_node.architecture | length > 0",
                        "ansible_play_hosts == ['node-0']",
                        "hostvars['node-1'].ansible_facts.k8sgu_node == k8sgu_node",
                        "hostvars['node-2'].ansible_facts.k8sgu_node is not defined",
                        "control_plane_key_holders == ['node-2']",
                    ]
                }
            }
        ],
    }
    (tmp_path / "play.yml").write_text(json.dumps([play]))
    done = ansible_program.run(
        "ansible-playbook",
        "--inventory=inventory.yml",
        "--limit=node-0",
        "play.yml",
        cwd=tmp_path,
        environment={**ansible_program.own_configuration(tmp_path), "ANSIBLE_INJECT_FACT_VARS": "False"},
    )
    assert done.returncode == 0 and "All assertions passed" in done.stdout, done.stdout[-3000:] + done.stderr
