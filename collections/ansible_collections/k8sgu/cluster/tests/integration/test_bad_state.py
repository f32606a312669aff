# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks with a state directory of another cluster or of no use, and with flags that contradict the description."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import ansible_program
import pytest

PLAYBOOKS = sorted(path.stem for path in (ansible_program.ROOT / "playbooks").glob("*.yml"))
# This machine in the place of a node: it is read, and what follows is refused.
HERE = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
DEAD = {"ansible_host": "127.0.0.1", "ansible_port": 1}


def inventory(directory: Path, node: dict[str, Any], **variables: Any) -> Path:
    control_plane = {"demo-control-plane-0": {**node, "ec2_private_ip": "10.240.0.10"}}
    worker = {"demo-worker-0": {**node, "ec2_private_ip": "10.240.0.11", **variables}}
    groups = {"control_plane": control_plane, "etcd": {"demo-control-plane-0": {}}, "worker": worker}
    path = directory / "inventory.yml"
    # JSON is YAML.
    path.write_text(json.dumps({"all": {"children": {name: {"hosts": hosts} for name, hosts in groups.items()}}}))
    return path


def play(playbook: str, hosts: Path, **variables: Any) -> tuple[int, str]:
    """Exit status and output, whose white space is one space each."""
    given = {"k8sgu_state_dir": str(hosts.parent / "state"), **variables}
    # Nothing of AWS can be asked.
    environment = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    status, output = ansible_program.run_playbook(playbook, hosts, variables=given, environment=environment)
    return status, " ".join(output.split())


# destroy asks AWS first who calls: test_infrastructure_playbooks.py.
@pytest.mark.parametrize("playbook", [name for name in PLAYBOOKS if name != "destroy"])
def test_the_state_of_another_cluster_is_left_alone(tmp_path: Path, playbook: str) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "place.json").write_text(json.dumps({"cluster": "prod", "account": "1", "region": "r", "arn": "a"}))
    status, said = play(playbook, inventory(tmp_path, DEAD))
    told = f"k8sgu_state_dir: {state} holds the cluster prod (place.json), and this is demo: their keys would mix."
    assert status != 0 and told in said and "Put back k8sgu_cluster_name, or choose another k8sgu_state_dir" in said
    assert [path.name for path in state.iterdir()] == ["place.json"] and " changed=0 " in said, said[-3000:]


@pytest.mark.parametrize("playbook", ["infrastructure", "pki", "etcd"])
def test_a_state_directory_that_is_a_file(tmp_path: Path, playbook: str) -> None:
    hosts = inventory(tmp_path, DEAD)
    (tmp_path / "state").write_text("mine")
    status, said = play(playbook, hosts)
    assert status != 0 and f"k8sgu_state_dir: {tmp_path}/state is a file, " in said, said[-3000:]
    assert (tmp_path / "state").read_text() == "mine"


def test_secrets_that_are_open_to_others(tmp_path: Path) -> None:
    secrets = tmp_path / "state" / "secrets"
    secrets.mkdir(parents=True)
    secrets.chmod(0o755)
    status, said = play("control_plane", inventory(tmp_path, DEAD))
    assert status != 0 and f"k8sgu_state_dir: {secrets} is open to other users (mode 0755), " in said, said[-3000:]
    assert f"chmod 0700 {secrets}" in said and "TASK [k8sgu.cluster.cluster_facts : Read the node]" not in said


def test_a_phase_alone_refuses_flags_that_contradict_the_description(tmp_path: Path) -> None:
    flags = {"service-cluster-ip-range": "10.1.0.0/16", "secure-port": 443, "v": 4}
    status, said = play("control_plane", inventory(tmp_path, HERE), k8sgu_apiserver_extra_flags=flags)
    assert status != 0 and "cannot change as asked, and nothing was changed" in said, said[-3000:]
    assert "leave it out and set k8sgu_service_cidr" in said and "secure-port cannot be chosen" in said
    assert not (tmp_path / "state").exists()


def test_a_phase_on_the_controller_alone_refuses_what_the_cluster_was_not_made_with(tmp_path: Path) -> None:
    """By the record there: it connects to no node."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    made = {"k8sgu_pod_cidr": "10.200.0.0/16", "k8sgu_cluster_domain": "cluster.local"}
    (state / "birth.json").write_text(json.dumps({"fixed": made, "members": ["demo-control-plane-0"]}))
    asked = {"k8sgu_pod_cidr": "10.201.0.0/16", "k8sgu_cluster_domain": "other.local", "k8sgu_control_plane_count": 2}
    status, said = play("pki", inventory(tmp_path, DEAD), **asked)
    assert status != 0 and "cannot change as asked, and nothing was changed" in said, said[-3000:]
    for option, value in made.items():
        assert f"{option}: {asked[option]}, and this cluster was made with {value}, which cannot change" in said
    assert "k8sgu_control_plane_count: 2, and this cluster's etcd has 1 member (demo-control-plane-0)" in said
    assert [path.name for path in state.iterdir()] == ["birth.json"] and " changed=0 " in said, said[-3000:]


def test_a_flag_of_one_node_counts_too(tmp_path: Path) -> None:
    hosts = inventory(tmp_path, HERE, k8sgu_kubelet_extra_config={"maxPods": 90})
    status, said = play("worker", hosts)
    assert status != 0 and "k8sgu_kubelet_extra_config: maxPods is what k8sgu_max_pods says" in said, said[-3000:]
    status, said = play("preflight", hosts)
    assert status != 0 and "- k8sgu_kubelet_extra_config: maxPods is what k8sgu_max_pods says" in said, said[-3000:]


@pytest.mark.parametrize(
    ("playbook", "given", "said"),
    [
        ("open_backup", {}, "k8sgu_backup_file: empty; give the backup: -e k8sgu_backup_file=demo-"),
        ("backup", {}, "is made only encrypted: give either a passphrase (K8SGU_BACKUP_PASSPHRASE in the"),
        ("backup", {"k8sgu_backup_passphrase": "a word"}, "no member of etcd answers, so there would be no snapshot"),
        ("restore_drill", {}, "no member of etcd has a snapshot in /var/lib/k8sgu/snapshots, so nothing"),
    ],
)
def test_a_backup_of_nothing(tmp_path: Path, playbook: str, given: dict[str, Any], said: str) -> None:
    status, told = play(playbook, inventory(tmp_path, DEAD), **given)
    assert status != 0 and said in told and "changed=1" not in told, told[-3000:]
    assert not (tmp_path / "state").exists()
