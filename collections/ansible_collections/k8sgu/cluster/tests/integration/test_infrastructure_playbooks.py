# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""infrastructure.yml and destroy.yml against an EC2 API on loopback: who works is said first, and a wrong name removes
nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ansible_program
import pytest
import yaml
from ec2_account import AMI, account, picture, run
from moto_server import Server, reset

TASKS = ansible_program.ROOT / "collections/ansible_collections/k8sgu/cluster/roles/infrastructure/tasks"
WHO = "Get the AWS account and identity"


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with account() as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    reset(running)
    return running


def play(playbook: str, state: Path, *arguments: str, **variables: Any) -> tuple[int, str]:
    """Exit status and output of a playbook without a terminal."""
    place = {"k8sgu_cluster_name": "demo", "k8sgu_region": "us-east-1", "k8sgu_state_dir": str(state)}
    extra = {**place, "k8sgu_admin_cidrs": ["203.0.113.7/32"], **variables}
    # Without localhost, so that Ansible takes its own Python for it and looks for no other.
    inventory = state.parent / f"{state.name}.yml"
    inventory.write_text(json.dumps({"all": {"children": {"control_plane": {}, "etcd": {}, "worker": {}}}}))
    return ansible_program.run_playbook(playbook, inventory, *arguments, variables=extra)


def tasks(output: str) -> list[str]:
    """The names of the tasks that began, in order. Ansible itself puts the check of a role's arguments first."""
    lines = [line for line in output.splitlines() if line.startswith("TASK [")]
    names = [line[len("TASK [") : line.rindex("]")].rpartition(" : ")[2] for line in lines]
    return [name for name in names if not name.startswith("Validating arguments")]


@pytest.mark.parametrize("name", ["main", "absent"])
def test_who_calls_is_the_roles_first_question(name: str) -> None:
    first = yaml.safe_load((TASKS / f"{name}.yml").read_text())[0]
    assert first["ansible.builtin.import_tasks"] == "caller.yml"


@pytest.mark.parametrize(
    "given",
    [{"confirm": "other"}, {"confirm": ""}, {"confirm": "Demo"}, {}],
    ids=["wrong", "empty", "nearly", "nobody to ask"],
)
def test_without_the_clusters_name_nothing_is_removed(server: Server, tmp_path: Path, given: dict[str, str]) -> None:
    run()
    before, calls = picture(server), len(server.calls)
    status, output = play("destroy", tmp_path, **given)
    made = server.calls[calls:]
    assert status != 0 and "Nothing was removed" in output and "-e confirm=demo" in output, output[-3000:]
    assert made == [] and picture(server) == before


def test_with_the_clusters_name_everything_is_removed(server: Server, tmp_path: Path) -> None:
    give_the_default_vpc_a_gateway(server)
    before = picture(server)
    run()
    status, output = play("destroy", tmp_path, confirm="demo")
    assert status == 0 and picture(server) == before, output[-3000:]
    order = tasks(output)
    assert order[0] == "Require the cluster's name as confirmation" and order[1] == WHO
    assert output.index("account 123456789012") < output.index("Remove everything")


def give_the_default_vpc_a_gateway(server: Server) -> None:
    """As EC2's and the lab's has one; moto's has none."""
    ec2 = server.client("ec2")
    (vpc,) = [each["VpcId"] for each in ec2.describe_vpcs()["Vpcs"] if each["IsDefault"]]
    gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    (table,) = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"]
    ec2.create_route(RouteTableId=table["RouteTableId"], DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)


def test_the_plan_is_shown_after_who_makes_it(server: Server, tmp_path: Path) -> None:
    before = picture(server)
    status, output = play("infrastructure", tmp_path, "--check", "--diff", k8sgu_image=AMI, k8sgu_key_name="")
    assert status == 0 and picture(server) == before, output[-3000:]
    # The play before it judges the description, without AWS.
    assert tasks(output.partition("PLAY [Infrastructure]")[2])[0] == WHO
    who, plan = output.index("account 123456789012"), output.index("create instance/demo-control-plane-0")
    assert who < plan


@pytest.mark.parametrize("check", [["--check"], []])
def test_nodes_that_would_admit_nobody_are_not_made(server: Server, tmp_path: Path, check: list[str]) -> None:
    """They would be billed, and the run would wait for SSH in vain."""
    before, calls = picture(server), len(server.calls)
    status, output = play("infrastructure", tmp_path, *check, k8sgu_image=AMI, k8sgu_admin_cidrs=[])
    made = server.calls[calls:]
    assert status != 0 and "k8sgu_admin_cidrs: empty" in output and "nothing was changed" in output, output[-3000:]
    assert made == [] and picture(server) == before


@pytest.mark.parametrize("playbook", ["infrastructure", "destroy"])
@pytest.mark.parametrize("differs", [{"account": "111111111111"}, {"region": "eu-west-1"}], ids=["account", "region"])
def test_the_state_of_another_place_is_not_touched(
    server: Server, tmp_path: Path, playbook: str, differs: dict[str, str]
) -> None:
    """One checkout and one cluster's name in two accounts, two regions or two labs."""
    run()
    before, state = picture(server), tmp_path / "two words"
    here = {"account": "123456789012", "region": "us-east-1", "arn": "arn:aws:iam::1:user/a/lab-admin"}
    state.mkdir()
    for name, content in {"place.json": json.dumps({**here, **differs}), "api-endpoint.json": '{"host": "h"}'}.items():
        (state / name).write_text(content)
    calls = len(server.calls)
    status, output = play(playbook, state, k8sgu_image=AMI, confirm="demo")
    assert set(server.calls[calls:]) <= {"GetCallerIdentity", "ListAccessKeys"}
    said = " ".join(output.replace('\\"', '"').split())
    assert status != 0 and picture(server) == before, output[-3000:]
    there = {**here, **differs}
    assert f"of account {there['account']}, region {there['region']} ({there['arn']})" in said, said[-3000:]
    assert "this is account 123456789012, region us-east-1 (arn:aws:" in said
    assert f"rm -r -- '{state}'" in said
    assert sorted(path.name for path in state.iterdir()) == ["api-endpoint.json", "place.json"]


def test_the_state_of_another_cluster_is_not_removed(server: Server, tmp_path: Path) -> None:
    run()
    before, state = picture(server), tmp_path / "state"
    state.mkdir()
    (state / "place.json").write_text(json.dumps({"cluster": "prod", "account": "123456789012", "region": "us-east-1"}))
    status, output = play("destroy", state, confirm="demo")
    assert status != 0 and "holds the cluster prod (place.json), and this is demo" in output, output[-3000:]
    assert picture(server) == before and [path.name for path in state.iterdir()] == ["place.json"]


@pytest.mark.parametrize(
    "differs", [{"ec2_account": "222222222222"}, {"ec2_region": "us-east-1"}], ids=["account", "region"]
)
def test_nodes_of_another_place_are_left_alone(tmp_path: Path, differs: dict[str, str]) -> None:
    """A phase alone, which asks AWS nothing: the nodes say of which account and region they are."""
    state, hosts = tmp_path / "state", tmp_path / "hosts.yml"
    state.mkdir()
    (state / "place.json").write_text(json.dumps({"account": "111111111111", "region": "eu-west-1", "arn": "arn:a"}))
    node = {"ansible_host": "127.0.0.1", "ansible_port": 1, "ec2_private_ip": "10.240.0.4"}
    place = {"ec2_account": "111111111111", "ec2_region": "eu-west-1", **differs}
    members = {"hosts": {"demo-control-plane-0": {**node, **place}}}
    hosts.write_text(json.dumps({"all": {"children": {"control_plane": members, "etcd": members, "worker": {}}}}))
    status, output = ansible_program.run_playbook("pki", hosts, variables={"k8sgu_state_dir": str(state)})
    said = " ".join(output.split())
    assert status != 0 and [path.name for path in state.iterdir()] == ["place.json"], output[-3000:]
    there = f"account {place['ec2_account']}, region {place['ec2_region']}"
    assert f"of account 111111111111, region eu-west-1 (arn:a), but the nodes are in {there}." in said


def test_further_options_reach_the_module(server: Server, tmp_path: Path) -> None:
    further = {
        "subnet_prefix": 26,
        "nat_gateways": "per_zone",
        "instance_profiles": False,
        "load_balancer_scheme": "internal",
        "kms_key_id": "alias/volumes",
    }
    given = {"k8sgu_image": AMI, "k8sgu_private_nodes": True, "k8sgu_zones": ["us-east-1a", "us-east-1b"]}
    counts = {"k8sgu_control_plane_count": 3, "k8sgu_worker_count": 0}
    flags = ("--check", "--diff", "-v")
    status, output = play("infrastructure", tmp_path, *flags, k8sgu_ec2_options=further, **given, **counts)
    assert status == 0, output[-3000:]
    assert output.count("create nat-gateway/") == 2 and "10.240.0.64/26 in us-east-1b" in output
    assert "create load-balancer" in output and "create iam-role/" not in output
    assert "kms:ResourceAliases" in output


def test_a_bucket_for_backups_reaches_the_module(server: Server, tmp_path: Path) -> None:
    given = {"k8sgu_backup_bucket": "demo-backups", "k8sgu_backup_bucket_days": 7, "k8sgu_worker_count": 0}
    status, output = play("infrastructure", tmp_path, "--check", "--diff", "-v", k8sgu_image=AMI, **given)
    assert status == 0, output[-3000:]
    assert "create bucket  #" in output and "update bucket/lifecycle" in output, output[-3000:]
    assert "name: demo-backups" in output and "origin: made" in output


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"k8sgu_backup_bucket": "demo.backups"}, "k8sgu_backup_bucket: 'demo.backups' has a dot"),
        ({"k8sgu_backup_bucket": "demo-backups", "k8sgu_backup_bucket_days": -1}, "k8sgu_backup_bucket_days: -1 days"),
        (
            {"k8sgu_backup_bucket": "demo-backups", "k8sgu_ec2_options": {"instance_profiles": False}},
            "instance_profiles: false; leave out one of the two",
        ),
    ],
)
def test_a_bucket_that_cannot_be_is_refused_before_aws_is_changed(
    server: Server, tmp_path: Path, given: dict[str, Any], said: str
) -> None:
    before = picture(server)
    status, output = play("infrastructure", tmp_path, k8sgu_image=AMI, **given)
    assert status != 0 and said in " ".join(output.split()), output[-3000:]
    assert picture(server) == before and server.client("s3").list_buckets()["Buckets"] == []


def test_a_removal_says_which_bucket_stays(server: Server, tmp_path: Path) -> None:
    give_the_default_vpc_a_gateway(server)
    before = picture(server)
    run(backup_bucket="demo-backups")
    status, output = play("destroy", tmp_path, confirm="demo", k8sgu_backup_bucket="demo-backups")
    assert status == 0 and picture(server) == before, output[-3000:]
    assert "The bucket demo-backups stays, with the backups of demo in it" in output, output[-3000:]
    (command,) = [line.strip() for line in output.splitlines() if "boto3.resource" in line]
    assert command.startswith("python3 -c \"import boto3; bucket = boto3.resource('s3').Bucket('demo-backups'); ")
    assert command.endswith('bucket.delete()"')
    assert [item["Name"] for item in server.client("s3").list_buckets()["Buckets"]] == ["demo-backups"]


@pytest.mark.parametrize(
    ("further", "said"),
    [
        ({"nat_gateway": "one"}, "Supported parameters include: bastion, check_permissions, control_plane_policy"),
        ({"nat_gateways": "two"}, "must be one of: one, per_zone, none, got: two"),
        ({"subnet_prefix": "wide"}, "subnet_prefix"),
    ],
)
def test_a_further_option_that_there_is_not_is_refused_before_aws_is_asked(
    server: Server, tmp_path: Path, further: dict[str, Any], said: str
) -> None:
    calls = len(server.calls)
    status, output = play("infrastructure", tmp_path, "--check", k8sgu_image=AMI, k8sgu_ec2_options=further)
    assert status != 0 and said in output, output[-3000:]
    assert "k8sgu_ec2_options" in output and server.calls[calls:] == []


def test_a_removal_without_permissions_for_iam(server: Server, tmp_path: Path) -> None:
    before = picture(server)
    run(instance_profiles=False)
    further = {"instance_profiles": False, "check_permissions": False}
    status, output = play("destroy", tmp_path, "-v", confirm="demo", k8sgu_ec2_options=further)
    assert status == 0 and picture(server) == before, output[-3000:]
    assert "iam:CreateRole" not in output and "permissions_checked_by" not in output


def test_who_cannot_be_told_makes_nothing(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    status, output = play("infrastructure", tmp_path / "state", k8sgu_image=AMI)
    assert status != 0 and "no credentials" in output, output[-3000:]
    assert tasks(output)[-1] == WHO and not (tmp_path / "state").exists()


@pytest.mark.parametrize("size", [0, -2])
def test_a_batch_of_no_worker_is_refused_before_any_change(server: Server, tmp_path: Path, size: int) -> None:
    before = picture(server)
    status, output = play("infrastructure", tmp_path, k8sgu_image=AMI, k8sgu_ec2_options={"drain_batch": size})
    assert status != 0 and f"k8sgu_ec2_options.drain_batch: {size} workers at a time are none" in output, output[-3000:]
    assert picture(server) == before and not (tmp_path / "ssh").exists()


def test_host_keys_of_machines_that_are_gone_are_forgotten(server: Server, tmp_path: Path) -> None:
    state, small = tmp_path / "state", {"k8sgu_image": AMI, "k8sgu_worker_count": 0}
    status, output = play("infrastructure", state, **small)
    assert status == 0, output[-3000:]
    reservations = server.client("ec2").describe_instances()["Reservations"]
    (alive,) = [instance["InstanceId"] for entry in reservations for instance in entry["Instances"]]
    kept = [f"{alive} ssh-ed25519 AAAA", "jump.example.org ssh-ed25519 AAAA"]
    known = state / "ssh" / "known_hosts"
    known.write_text("\n".join([f"{alive}0 ssh-ed25519 AAAA", *kept, "i-0123456789abcdef0 ssh-rsa AAAA", ""]))
    status, output = play("infrastructure", state, **small, k8sgu_tags={"team": "blue"})
    assert status == 0 and known.read_text().splitlines() == kept, output[-3000:]


MUTE = {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_connection": "ssh"}
ALIVE = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}


def waited(folder: Path, mute: str) -> tuple[int, str]:
    """Waits for a control-plane node and three workers, of which some never answer, and goes on."""
    (folder / "play.yml").write_text(WAIT)
    groups = {"control_plane": ["demo-control-plane-0"], "worker": [f"demo-worker-{number}" for number in range(3)]}
    groups["etcd"] = groups["control_plane"]
    hosts = {
        name: {**(MUTE if re.search(mute, name) else ALIVE), "ec2_instance_id": f"i-{name[-1]}"}
        for name in groups["control_plane"] + groups["worker"]
    }
    children = {group: {"hosts": {name: hosts[name] for name in names}} for group, names in groups.items()}
    inventory = folder / "inventory.yml"
    inventory.write_text(json.dumps({"all": {"children": children}}))
    extra = json.dumps({"infrastructure_ssh_timeout": 20, "k8sgu_state_dir": str(folder)})
    done = ansible_program.run(
        "ansible-playbook", f"--inventory={inventory}", f"--extra-vars={extra}", folder / "play.yml", timeout=300
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def test_workers_that_do_not_answer_are_left_out_and_named(tmp_path: Path) -> None:
    """The others go on without them, in later plays too, and the run ends as failed."""
    status, said = waited(tmp_path, "worker-[12]")
    assert status != 0, said[-3000:]
    for name in ("demo-worker-1", "demo-worker-2"):
        assert f"{name} did not answer over SSH within 20 s" in said, said[-3000:]
    assert "terminate its instance (i-1, i-2) and run again" in said, said[-3000:]
    assert "msg: here demo-control-plane-0 demo-worker-0 " in said, said[-3000:]
    assert "msg: later demo-control-plane-0 demo-worker-0 of demo-control-plane-0 demo-worker-0 " in said, said[-3000:]


def test_without_a_control_plane_node_nothing_is_changed(tmp_path: Path) -> None:
    status, said = waited(tmp_path, "control-plane|worker-1")
    assert status != 0 and "demo-control-plane-0, demo-worker-1 did not answer over SSH within 20 s" in said
    assert "no node was changed: 0 of 1 control-plane nodes answer" in said, said[-3000:]
    assert "--limit 'all:localhost:!demo-control-plane-0:!demo-worker-1'" in said and "its instance (i-0, i-1)" in said
    assert "msg: here" not in said and "msg: later" not in said, said[-3000:]


WAIT = """
- hosts: control_plane:worker
  gather_facts: false
  any_errors_fatal: true
  tasks:
    - ansible.builtin.import_role: {name: k8sgu.cluster.infrastructure, tasks_from: wait}
    - ansible.builtin.debug: {msg: "here {{ ansible_play_hosts | sort | join(' ') }}"}
      run_once: true

- hosts: "{{ query('k8sgu.cluster.hosts', 'control_plane:worker') }}"
  gather_facts: false
  any_errors_fatal: true
  tasks:
    - ansible.builtin.debug:
        msg: "later {{ ansible_play_hosts | sort | join(' ') }} of {{ ansible_play_hosts_all | sort | join(' ') }}"
      run_once: true
"""
