# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory plugin as its users meet it: ansible-inventory and ansible-playbook against an EC2 API on loopback."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ansible_program
import forward_proxy
import pytest
import yaml
from ansible_program import ROOT
from moto_server import Server, launch, moto_server

# What would come out if Ansible evaluated it.
EVIL = "{{ lookup('ansible.builtin.pipe', 'echo EVALUATED') }}"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with moto_server() as running:
        ec2 = running.client("ec2")
        launch(ec2, ["demo-control-plane-0"], **{"k8sgu.io/role": "control_plane", "k8sgu.io/pool": "control_plane"})
        launch(ec2, ["demo-worker-0"], **{"k8sgu.io/pod-cidr": "10.200.1.0/24", "team": "blue"})
        launch(ec2, ["demo-worker-1"], team=EVIL, expression="lookup('ansible.builtin.pipe', 'echo EVALUATED')")
        stopped, ended = launch(ec2, ["demo-stopped", "demo-ended"])
        ec2.stop_instances(InstanceIds=[stopped])
        ec2.terminate_instances(InstanceIds=[ended])
        launch(ec2, ["other-worker-0"], cluster="other")
        launch(running.client("ec2", "eu-west-1"), ["demo-worker-9"])
        launch(ec2, [None, "nameless-1", EVIL], cluster="nameless")
        launch(ec2, ["twin", "twin"], cluster="twins")
        launch(ec2, ["worker", "all", "ungrouped", "pool_workers", "cluster_odd", "odd-1"], cluster="odd")
        launch(ec2, ["blue", "odd-2"], cluster="keyed", team="blue")
        ec2.run_instances(ImageId="ami-03cf127a", MinCount=1, MaxCount=1, InstanceType="m5.large")  # nobody's
        yield running


class Inventory:
    """One inventory file in a directory of its own, and what Ansible says of it."""

    def __init__(self, base: Path, environment: dict[str, str]) -> None:
        self.base, self.directory, self.environment = base, base / "inventory", environment
        self.directory.mkdir()
        environment["ANSIBLE_CONFIG"] = str(ROOT / "ansible.cfg")
        environment["ANSIBLE_LOCAL_TEMP"] = str(base / "tmp")

    def write(self, variables: dict[str, Any] | None = None, name: str = "ec2.config", **options: Any) -> None:
        given = {"plugin": "k8sgu.cluster.ec2", "clusters": ["demo"], **options}
        (self.directory / name).write_text(yaml.safe_dump(given))
        if variables:
            (self.directory / "group_vars").mkdir(exist_ok=True)
            (self.directory / "group_vars" / "all.yml").write_text(yaml.safe_dump(variables))

    def run(
        self, *arguments: str, program: str = "ansible-inventory", environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return ansible_program.run(
            program, "-i", self.directory, *arguments, caller=self.environment, environment=environment
        )

    def list(self, *arguments: str, warnings: tuple[str, ...] = ()) -> dict[str, Any]:
        done = self.run("--list", *arguments)
        assert done.returncode == 0, done.stderr
        if not warnings:
            assert done.stderr == ""
        for warning in warnings:
            assert warning in " ".join(done.stderr.split())
        listed: dict[str, Any] = unwrapped(json.loads(done.stdout))
        return listed

    def refused(self, *arguments: str) -> str:
        """The error, on one line; it is said once by this plugin and by no other."""
        done = self.run("--list", *arguments)
        assert done.returncode != 0
        said = " ".join(done.stderr.split())
        assert said.count("[WARNING]") == 1, said
        assert "'yaml' plugin" not in said and "Traceback" not in said
        return said


def unwrapped(value: Any) -> Any:
    """`value` without the marks by which ansible-inventory says of a string that it is not a template."""
    if isinstance(value, dict):
        if set(value) == {"__ansible_unsafe"}:
            return value["__ansible_unsafe"]
        return {key: unwrapped(item) for key, item in value.items()}
    return [unwrapped(item) for item in value] if isinstance(value, list) else value


@pytest.fixture
def inventory(tmp_path: Path, server: Server) -> Inventory:
    return Inventory(tmp_path, server.environment())


def test_one_cluster(inventory: Inventory) -> None:
    inventory.write()
    listed = inventory.list()
    assert listed["control_plane"]["hosts"] == listed["etcd"]["hosts"] == ["demo-control-plane-0"]
    assert listed["worker"]["hosts"] == listed["pool_workers"]["hosts"] == ["demo-worker-0", "demo-worker-1"]
    assert listed["cluster_demo"]["hosts"] == ["demo-control-plane-0", "demo-worker-0", "demo-worker-1"]
    worker = listed["_meta"]["hostvars"]["demo-worker-0"]
    assert worker["ansible_host"] == worker["ec2_public_ip"] != worker["ec2_private_ip"]
    assert worker["ansible_user"] == "ubuntu"
    assert worker["ec2_pod_cidr"] == "10.200.1.0/24"
    assert worker["ec2_account"] == "123456789012"
    assert worker["ec2_region"] == "us-east-1" and worker["ec2_zone"].startswith("us-east-1")
    assert (worker["ec2_cluster"], worker["ec2_role"], worker["ec2_pool"]) == ("demo", "worker", "workers")
    assert worker["ec2_tags"] == {"team": "blue"}
    assert "ec2_instance" not in worker


def test_every_cluster_where_none_is_named(inventory: Inventory) -> None:
    inventory.write(clusters=[], filters={"tag:Name": ["demo-worker-0", "other-worker-0"]})
    assert set(inventory.list()["_meta"]["hostvars"]) == {"demo-worker-0", "other-worker-0"}


def test_an_empty_account_is_an_empty_inventory_with_the_groups_that_plays_name(inventory: Inventory) -> None:
    inventory.write(clusters=["nothing"])
    done = inventory.run("--graph")
    assert done.returncode == 0 and done.stderr == ""
    assert {"|--@control_plane:", "|--@etcd:", "|--@worker:"} <= set(done.stdout.split())


def test_states_addresses_and_names_on_request(inventory: Inventory) -> None:
    inventory.write(states=["stopped"], connect_by=["private_ip"], hostnames=["instance_id"], login_user="admin")
    [(name, variables)] = inventory.list()["_meta"]["hostvars"].items()
    assert name == variables["ec2_instance_id"]
    assert variables["ansible_host"] == variables["ec2_private_ip"]
    assert variables["ansible_user"] == "admin"


def test_several_regions(inventory: Inventory) -> None:
    inventory.write(regions=["us-east-1", "eu-west-1"])
    hosts = inventory.list()["_meta"]["hostvars"]
    assert hosts["demo-worker-9"]["ec2_region"] == "eu-west-1"
    assert hosts["demo-worker-0"]["ec2_region"] == "us-east-1"


def test_everything_on_request(inventory: Inventory) -> None:
    inventory.write(hostvars="full")
    whole = inventory.list()["_meta"]["hostvars"]["demo-worker-0"]["ec2_instance"]
    assert whole["image_id"] == "ami-03cf127a" and whole["state"]["name"] == "running"
    assert whole["tags"]["Name"] == "demo-worker-0"
    assert whole["launch_time"].startswith("20")


def test_options_are_templates_over_group_vars_and_extra_variables(inventory: Inventory) -> None:
    inventory.write({"which": "other"}, clusters=["{{ which }}"], regions=["{{ lookup('env', 'AWS_DEFAULT_REGION') }}"])
    assert set(inventory.list()["_meta"]["hostvars"]) == {"other-worker-0"}
    assert "demo-worker-0" in inventory.list("-e", "which=demo")["_meta"]["hostvars"]


def test_composed_variables_and_groups(inventory: Inventory) -> None:
    inventory.write(
        compose={"short": "inventory_hostname.split('-')[-1]", "of_pool": "ec2_pool ~ '!'"},
        groups={"blue": "ec2_tags.team | default('') == 'blue'"},
        keyed_groups=[{"key": "ec2_role", "prefix": "r"}, {"key": "ec2_tags.team", "prefix": "team"}],
    )
    listed = inventory.list()
    assert listed["_meta"]["hostvars"]["demo-worker-0"]["short"] == "0"
    assert listed["_meta"]["hostvars"]["demo-worker-0"]["of_pool"] == "workers!"
    assert listed["blue"]["hosts"] == ["demo-worker-0"]
    assert listed["r_worker"]["hosts"] == ["demo-worker-0", "demo-worker-1"]
    assert listed["team_blue"]["hosts"] == ["demo-worker-0"]


@pytest.mark.parametrize("cached", [False, True])
def test_a_tags_value_never_becomes_a_template(inventory: Inventory, cached: bool) -> None:
    cache = {"cache": True, "cache_plugin": "jsonfile", "cache_connection": str(inventory.base / "cache")}
    inventory.write(
        {"by_reference": "{{ ec2_tags.team }}"},
        compose={"composed": "ec2_tags.team", "twice": "ec2_tags.team ~ ''"},
        keyed_groups=[{"key": "ec2_tags.team", "prefix": "team"}],
        hostvars="full",
        **(cache if cached else {}),
    )
    if cached:
        inventory.list()
    play = [
        {
            "hosts": "demo-worker-1",
            "gather_facts": False,
            "tasks": [
                {
                    "ansible.builtin.copy": {
                        "dest": str(inventory.base / "seen"),
                        "content": "{{ [ec2_tags.team, by_reference, composed, twice, ec2_instance.tags.team, "
                        "hostvars['demo-worker-1'].ec2_tags.team, group_names] | to_json }}",
                    },
                    "delegate_to": "localhost",
                    "vars": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable},
                },
                {
                    "ansible.builtin.debug": {"msg": "EXECUTED"},
                    "when": "ec2_tags.expression",
                    "ignore_errors": True,
                },
            ],
        }
    ]
    (inventory.base / "play.yml").write_text(yaml.safe_dump(play))
    done = inventory.run(str(inventory.base / "play.yml"), program="ansible-playbook")
    *values, groups = json.loads((inventory.base / "seen").read_text())
    assert values == [EVIL] * 6
    assert any(name.startswith("team_") for name in groups)
    # As a condition it would be an expression; it is refused as one instead.
    assert "msg: EXECUTED" not in [line.strip() for line in done.stdout.splitlines()], done.stdout
    assert "ignored=1" in done.stdout, done.stdout


def test_a_hit_of_the_cache_costs_no_call(inventory: Inventory, server: Server) -> None:
    inventory.write(cache=True, cache_plugin="jsonfile", cache_connection=str(inventory.base / "cache"))
    before = len(server.calls)
    first = inventory.list()
    assert server.calls[before:] == ["DescribeInstances"]
    assert inventory.list() == first
    assert server.calls[before:] == ["DescribeInstances"]
    inventory.list("--flush-cache")
    assert server.calls[before:] == ["DescribeInstances"] * 2
    inventory.write(
        cache=True, cache_plugin="jsonfile", cache_connection=str(inventory.base / "cache"), states=["stopped"]
    )
    assert set(inventory.list()["_meta"]["hostvars"]) == {"demo-stopped"}


def test_nameless_instances_are_named_in_a_warning(inventory: Inventory) -> None:
    inventory.write(clusters=["nameless"])
    said = ("left out, since hostnames (tag:Name) gives them no name", "i-", EVIL, "add instance_id to hostnames")
    listed = inventory.list(warnings=said)
    assert set(listed["_meta"]["hostvars"]) == {"nameless-1"}


def test_instances_named_like_groups_are_named_in_a_warning(inventory: Inventory) -> None:
    inventory.write(clusters=["odd"])
    names = ("worker", "all", "ungrouped", "pool_workers", "cluster_odd")
    listed = inventory.list(warnings=tuple(f"(not usable: tag:Name '{name}', a group's name)" for name in names))
    assert listed["worker"]["hosts"] == listed["pool_workers"]["hosts"] == listed["cluster_odd"]["hosts"] == ["odd-1"]
    inventory.write(clusters=["odd"], hostnames=["tag:Name", "instance_id"])
    assert len(inventory.list()["worker"]["hosts"]) == 6


@pytest.mark.parametrize(
    "options",
    [
        {"keyed_groups": [{"key": "ec2_tags.team", "prefix": "", "separator": ""}]},
        {"groups": {"blue": "true"}, "compose": {"one": "ec2_zone"}},
        {"keyed_groups": [{"key": "ec2_zone", "parent_group": "blue"}]},
    ],
    ids=["keyed group", "group", "parent group"],
)
def test_a_composed_group_named_like_an_instance_is_an_error_that_names_it(
    inventory: Inventory, options: dict[str, Any]
) -> None:
    inventory.write(clusters=["keyed"], **options)
    said = inventory.refused()
    assert "a group would be named like an instance: 'blue' (i-" in said and "put instance_id into hostnames" in said
    # Who goes on after an inventory that failed goes on without its hosts.
    done = inventory.run("--list", environment={"ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "false"})
    assert done.returncode == 0 and json.loads(done.stdout)["_meta"]["hostvars"] == {}


def test_a_fault_of_composing_names_the_instance(inventory: Inventory) -> None:
    inventory.write(keyed_groups=[{"key": "ec2_role", "prefix": "", "separator": "", "parent_group": "control_plane"}])
    assert "at 'demo-control-plane-0' (i-" in inventory.refused()


def test_what_nodes_share_is_kept_on_groups_and_a_play_sees_no_difference(inventory: Inventory) -> None:
    inventory.write(clusters=["keyed"])
    merged = inventory.list()["_meta"]["hostvars"]
    exported = unwrapped(json.loads(inventory.run("--list", "--export").stdout))
    assert {name: variables["ec2_tags"] for name, variables in merged.items()} == {
        "blue": {"team": "blue"},
        "odd-2": {"team": "blue"},
    }
    own = {"ansible_host", "ec2_instance_id", "ec2_private_ip", "ec2_public_ip"}
    assert [set(variables) for variables in exported["_meta"]["hostvars"].values()] == [own, own]
    assert exported["cluster_keyed"]["vars"]["ec2_tags"] == {"team": "blue"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"clusters": ["twins"]}, "two instances are named 'twin': i-"),
        ({"cluster": "demo"}, "unknown option cluster (it is clusters here)"),
        ({"region": "us-east-1", "keyed_group": []}, "unknown option keyed_group (did you mean keyed_groups?)"),
        ({"clusters": ["Demo!"]}, "clusters: 'Demo!' cannot be a cluster's name: give 1 to 28"),
        ({"clusters": [1234]}, "clusters: 1234, which is not text in YAML, cannot be a cluster's name: give 1 to 28"),
        (
            {"clusters": ["{{ none }}"]},
            "clusters ({{ none }}): null, which is not text in YAML, cannot be a",
        ),
        ({"hostnames": ["name"]}, "hostnames: 'name' is not a source of names"),
        ({"states": ["asleep"]}, "asleep"),
        ({"regions": ["us-nowhere-1"]}, "region: 'us-nowhere-1' is not a region of AWS"),
        ({"regions": ["us-east-1", "us-nowhere-1"]}, "'us-nowhere-1' is not a region of AWS"),
        ({"profile": "nobody"}, "profile: The config profile (nobody) could not be found"),
        ({"endpoint_url": "http://127.0.0.1:9"}, "check the network, region and endpoint_url"),
        ({"endpoint_url": "{{ nothing }}"}, "'nothing' is undefined"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_bad_input_is_one_error_that_names_it(inventory: Inventory, options: dict[str, Any], expected: str) -> None:
    inventory.write(**options)
    assert expected in inventory.refused()


def test_no_credentials(inventory: Inventory) -> None:
    inventory.write()
    inventory.environment.pop("AWS_ACCESS_KEY_ID")
    assert "no credentials (Unable to locate credentials); set AWS_PROFILE" in inventory.refused()


@pytest.mark.parametrize(
    "shell",
    [{"K8SGU_LAB": "not-there"}, {"EC2LAB_NAME": "not-there"}, {"K8SGU_LAB": "not-there", "EC2LAB_NAME": "remembered"}],
    ids="-".join,
)
def test_the_lab_that_is_named_is_asked(inventory: Inventory, shell: dict[str, str]) -> None:
    """And not the API that the shell remembers, here one that answers."""
    inventory.directory = ROOT / "inventories" / "lab"
    inventory.environment.update(shell)
    assert "there is no lab not-there" in inventory.refused()


def test_the_labs_inventory_follows_the_shell(inventory: Inventory) -> None:
    inventory.directory = ROOT / "inventories" / "lab"
    inventory.environment["AWS_REGION"] = "us-east-1"
    assert "demo-worker-0" in inventory.list()["_meta"]["hostvars"]


def test_the_inventory_for_aws_asks_the_region_of_the_environment(inventory: Inventory) -> None:
    inventory.directory = ROOT / "inventories" / "aws"
    inventory.environment["AWS_REGION"] = "eu-west-1"
    assert set(inventory.list()["_meta"]["hostvars"]) == {"demo-worker-9"}


@pytest.mark.parametrize(
    ("admins", "private"),
    [
        (["10.0.1.0/24"], True),
        (["172.31.4.5/32", "192.168.0.0/16", "100.64.0.0/10"], True),
        (["10.0.1.0/24", "203.0.113.7/32"], False),
        (["172.32.0.0/16"], False),
        (["0.0.0.0/0"], False),
        ([], False),
    ],
)
def test_administrators_inside_reach_nodes_by_private_addresses(
    inventory: Inventory, admins: list[str], private: bool
) -> None:
    inventory.directory = shutil.copytree(ROOT / "inventories" / "aws", inventory.base / "aws")
    inventory.environment["AWS_REGION"] = "us-east-1"
    (inventory.directory / "group_vars" / "all" / "admins.yml").write_text(json.dumps({"k8sgu_admin_cidrs": admins}))
    (inventory.directory / "group_vars" / "all" / "cluster.yml").rename(
        inventory.directory / "group_vars" / "all" / "a.yml"
    )
    found = inventory.list()["_meta"]["hostvars"]["demo-worker-0"]
    assert found["ansible_host"] == found["ec2_private_ip" if private else "ec2_public_ip"]


def test_a_proxy_is_not_asked_for_an_api_that_the_command_excepts(inventory: Inventory) -> None:
    """As `ec2lab env` does it. The proxy of everything else is down here."""
    told = inventory.base / "tell"
    told.touch(mode=0o755)
    inventory.write(environment_command=[str(told)])
    settings = {name: inventory.environment[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
    settings.update(AWS_ENDPOINT_URL=inventory.environment.pop("AWS_ENDPOINT_URL"), AWS_REGION="us-east-1")

    def tell(**more: str) -> None:
        lines = [f"echo export {name}={value}" for name, value in {**settings, **more}.items()]
        told.write_text("\n".join(["#!/bin/sh", *lines, ""]))

    with forward_proxy.dead() as dead:
        inventory.environment.update(forward_proxy.variables(dead))
        tell()
        said = inventory.refused()
        assert "Failed to connect to proxy URL" in said and "name the API's host in NO_PROXY" in said
        tell(NO_PROXY="localhost,127.0.0.1", no_proxy="localhost,127.0.0.1")
        assert "demo-worker-0" in inventory.list()["_meta"]["hostvars"]


def test_a_command_tells_where_to_go_for_the_rest_of_the_run(inventory: Inventory, server: Server) -> None:
    """The lookup on the controller sees what the inventory's command has told."""
    told = inventory.base / "tell"
    told.write_text(
        f"#!{sys.executable}\n"
        f"print('export AWS_ENDPOINT_URL={server.url}')\n"
        "for name in ('AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY'): print(f'export {name}=told')\n"
        "print('export AWS_REGION=us-east-1')\n"
    )
    told.chmod(0o755)
    inventory.write(environment_command=[str(told)])
    inventory.environment.pop("AWS_ENDPOINT_URL")
    play = [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "tasks": [
                {"ansible.builtin.assert": {"that": "lookup('env', 'AWS_ACCESS_KEY_ID') == 'told'"}},
                {"k8sgu.cluster.caller_identity": {}, "register": "caller"},
                {"ansible.builtin.assert": {"that": f"caller.endpoint_url == '{server.url}'"}},
                {"ansible.builtin.assert": {"that": "groups['worker'] | length == 2"}},
            ],
        }
    ]
    path = inventory.base / "play.yml"
    path.write_text(yaml.safe_dump(play))
    done = inventory.run(str(path), "-c", "local", program="ansible-playbook")
    assert done.returncode == 0, done.stdout + done.stderr
