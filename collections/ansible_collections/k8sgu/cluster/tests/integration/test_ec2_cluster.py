# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ec2_cluster against an EC2 API on loopback: what a user sees in the account after runs and a removal."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import ansible_program
import pytest
from ansible_program import ROOT
from ec2_account import AMI, ARM_AMI, KEY, NEWER_AMI, OTHER_KEY, OWNER, account, mutations, options, picture, pool, run
from moto_server import Server, reset

from ansible_collections.k8sgu.cluster.plugins.module_utils._cluster import names as name_rules
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import context, names, session
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import DescriptionError
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.run import RunFailed, converge
from ec2lab.api.consistency import Lag

BIN = Path(sys.executable).parent
ZONES = ["us-east-1a", "us-east-1b"]
POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*"}],
}
HA = [pool("control_plane", 3, etcd_volume_size=10), pool("workers", 1), pool("gpu", 1, instance_type="m5.xlarge")]
LAYOUTS: dict[str, dict[str, Any]] = {
    "one control-plane node": {},
    "three behind a public load balancer": {
        "zones": ZONES,
        "pools": HA,
        "admin_cidrs": ["203.0.113.0/24"],
        "node_port_cidrs": ["203.0.113.0/24"],
        "control_plane_policy": POLICY,
        "tags": {"team": "blue"},
    },
    "private, one NAT gateway, inner load balancer": {"zones": ZONES, "pools": HA, "private_nodes": True},
    "private, seen from outside": {"private_nodes": True, "admin_cidrs": ["203.0.113.0/24"]},
    "private, a NAT gateway in each zone": {"zones": ZONES, "private_nodes": True, "nat_gateways": "per_zone"},
    "private, no way out": {"private_nodes": True, "nat_gateways": "none"},
    "vxlan, no instance profiles": {"pod_network": "vxlan", "instance_profiles": False},
    "an image by pattern": {"image": {"owner": OWNER, "name": "debian-*-amd64-*"}},
}

# Together they have everything that there can be.
COMPARED = ("three behind a public load balancer", "private, seen from outside", "private, a NAT gateway in each zone")
# They make nothing that another of them does not.
ALIKE = ("private, no way out", "vxlan, no instance profiles", "an image by pattern")


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with account() as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    reset(running)
    return running


def instances(server: Server) -> dict[str, dict[str, Any]]:
    """What EC2 shows of the nodes, by name."""
    found = [item for entry in server.client("ec2").describe_instances()["Reservations"] for item in entry["Instances"]]
    return {
        tag["Value"]: item
        for item in found
        if item["State"]["Name"] not in ("terminated", "shutting-down")
        for tag in item["Tags"]
        if tag["Key"] == "Name"
    }


@pytest.mark.parametrize("layout", COMPARED)
def test_a_comparison_of_what_was_just_made_tells_nothing_and_changes_nothing(server: Server, layout: str) -> None:
    run(**LAYOUTS[layout])
    before = picture(server)
    aws = session.Aws(session.Connection())
    compared = run(aws=aws, state="compared", **LAYOUTS[layout])
    assert compared["differences"] == compared["plan"] == [] and not compared["changed"]
    assert mutations(aws.calls) == [] and picture(server) == before
    assert {item["name"] for item in compared["instances"]} == set(compared["described"]) == set(instances(server))


def test_a_comparison_tells_what_was_done_by_hand(server: Server) -> None:
    """Each kind of thing, also what no plan touches, and not by a call that changes anything."""
    made = run()
    ec2 = server.client("ec2")
    ours = {"Key": "k8sgu.io/cluster/demo", "Value": "owned"}
    subnet, vpc = made["subnet_ids"][0], made["vpc_id"]
    group = made["security_groups"]["worker"]

    def launch(name: str, *tags: dict[str, str], **more: Any) -> str:
        named = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": name}, *tags]}]
        answer = ec2.run_instances(
            ImageId=AMI,
            InstanceType="m5.large",
            MinCount=1,
            MaxCount=1,
            SubnetId=subnet,
            TagSpecifications=named,
            **more,
        )
        return str(answer["Instances"][0]["InstanceId"])

    stray, twin, outside = (
        launch("stray", ours),
        launch("demo-worker-1", ours),
        launch("jump", SecurityGroupIds=[group]),
    )
    anyone = [{"CidrIp": "0.0.0.0/0"}]
    ec2.authorize_security_group_ingress(
        GroupId=group, IpPermissions=[{"IpProtocol": "tcp", "FromPort": 8080, "ToPort": 8080, "IpRanges": anyone}]
    )
    ec2.revoke_security_group_egress(GroupId=group, IpPermissions=[{"IpProtocol": "-1", "IpRanges": anyone}])
    volume = ec2.create_volume(AvailabilityZone="us-east-1a", Size=1)["VolumeId"]
    snapshot = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    interface = ec2.create_network_interface(SubnetId=subnet)["NetworkInterface"]["NetworkInterfaceId"]
    ec2.create_tags(Resources=[volume, snapshot, interface], Tags=[ours])
    [table] = ec2.describe_route_tables(Filters=[{"Name": "tag:k8sgu.io/role", "Values": ["public"]}])["RouteTables"]
    gateway = next(route["GatewayId"] for route in table["Routes"] if route.get("GatewayId", "").startswith("igw-"))
    ec2.create_route(RouteTableId=table["RouteTableId"], DestinationCidrBlock="172.16.0.0/16", GatewayId=gateway)
    worker = instances(server)["demo-worker-0"]["InstanceId"]
    ec2.terminate_instances(InstanceIds=[worker])

    before = picture(server)
    aws = session.Aws(session.Connection())
    compared = run(aws=aws, state="compared")
    assert mutations(aws.calls) == [] and picture(server) == before
    name = names.security_group("demo", "worker")
    found = {(item["kind"], item["where"]) for item in compared["differences"]}
    assert found == {
        ("instance-unknown", "instance/stray"),
        ("instance-unknown", "instance/demo-worker-1"),
        ("instance-outside", f"{outside} (jump)"),
        ("instance-missing", "instance/demo-worker-0"),
        ("route-changed", "route/public/10.200.1.0/24"),
        ("route-added", f"{table['RouteTableId']}/172.16.0.0/16"),
        ("rule-added", name),
        ("rule-missing", name),
        ("volume-left", f"volume/{volume}"),
        ("resource-unknown", f"snapshot/{snapshot}"),
        ("resource-unknown", f"network-interface/{interface}"),
    }
    assert {stray, twin} <= {item["instance_id"] for item in compared["instances"]}
    assert vpc == made["vpc_id"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_check_run_check_run_remove(server: Server, layout: str) -> None:
    """Check mode changes nothing and foretells the run; a second run does nothing; removal restores the account."""
    before = picture(server)
    promised = run(check_mode=True, **LAYOUTS[layout])
    assert promised["changed"] and picture(server) == before
    lines = [f"{step['action']} {step['resource']}  # {step['reason']}" for step in promised["plan"]]
    assert len(lines) > 10 and promised["diff"]["after"].splitlines() == lines and promised["diff"]["before"] == ""
    done = run(**LAYOUTS[layout])
    assert done["plan"] == promised["plan"]
    after = picture(server)
    assert after != before
    assert run(check_mode=True, **LAYOUTS[layout])["plan"] == []
    again = run(**LAYOUTS[layout])
    assert again["plan"] == [] and again["diff"]["after"] == "" and not again["changed"] and picture(server) == after
    promised = run(check_mode=True, state="absent")
    assert promised["changed"] and picture(server) == after
    assert run(state="absent")["plan"] == promised["plan"]
    assert picture(server) == before
    assert not run(state="absent")["changed"]


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout not in ALIKE])
def test_check_run_check_run_remove_while_aws_is_behind(
    server: Server, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a call has made the next calls do not know, and what was removed still holds others for some calls."""
    monkeypatch.setattr(context, "FIRST_PAUSE_S", 0.01)
    before = picture(server)
    run(**LAYOUTS[layout])
    expected = picture(server)
    reset(server)
    server.lag = Lag(calls=2)
    promised = run(check_mode=True, **LAYOUTS[layout])
    done = run(**LAYOUTS[layout])
    assert done["plan"] == promised["plan"]
    assert len(done["nodes"]) + bool(done["bastion"]) == len(instances(server))
    assert not run(**LAYOUTS[layout])["changed"]
    made = {action for action, _code in server.lag.refused}
    server.lag.calls = 0
    assert picture(server) == expected
    server.lag.calls = 2
    run(state="absent")
    removed = {action for action, _code in server.lag.refused} - made
    server.lag.calls = 0
    assert picture(server) == before
    # Enough was refused for this to say something.
    assert {"RunInstances", "AssociateRouteTable", "ModifyInstanceAttribute", "AddRoleToInstanceProfile"} <= made
    assert {"DeleteSecurityGroup", "DeleteSubnet", "DetachInternetGateway", "DeleteVpc", "DeleteRole"} <= removed


def test_the_longest_name_and_the_most_tags_are_taken(server: Server) -> None:
    """By every service that has a limit: EC2, the load balancer and IAM."""
    before = picture(server)
    name = "c" * name_rules.CLUSTER_LENGTH
    tags = {f"key-{number}": "value" for number in range(name_rules.MOST_TAGS)}
    done = run(name=name, pools=HA, tags=tags)
    [balancer] = server.client("elbv2").describe_load_balancers()["LoadBalancers"]
    assert balancer["LoadBalancerName"] == f"{name}-api" and len(balancer["LoadBalancerName"]) == 32
    [control_plane, _worker] = sorted(
        role["RoleName"] for role in server.client("iam").list_roles(PathPrefix="/k8sgu/")["Roles"]
    )
    assert control_plane == f"k8sgu-{name}-us-east-1-control-plane"
    assert max(len(node["Tags"]) for node in instances(server).values()) == 50
    assert done["changed"] and not run(name=name, pools=HA, tags=tags)["changed"]
    run(name=name, state="absent")
    assert picture(server) == before


def test_what_ec2_shows_of_a_node(server: Server) -> None:
    done = run(pools=HA, zones=ZONES, admin_cidrs=["203.0.113.0/24"])
    ec2 = server.client("ec2")
    found = instances(server)
    assert sorted(found) == [
        "demo-control-plane-0",
        "demo-control-plane-1",
        "demo-control-plane-2",
        "demo-gpu-0",
        "demo-worker-0",
    ]
    assert [node["name"] for node in done["nodes"]] == [
        "demo-control-plane-0",
        "demo-control-plane-1",
        "demo-control-plane-2",
        "demo-worker-0",
        "demo-gpu-0",
    ]
    for item in found.values():
        attribute = ec2.describe_instance_attribute(InstanceId=item["InstanceId"], Attribute="sourceDestCheck")
        assert attribute["SourceDestCheck"]["Value"] is False
        assert item["MetadataOptions"]["HttpTokens"] == "required"
        assert item["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
        assert item["KeyName"] == "k8sgu-demo"
    assert found["demo-control-plane-1"]["Placement"]["AvailabilityZone"] == "us-east-1b"
    volumes = ec2.describe_volumes()["Volumes"]
    assert len(volumes) == 8  # three for etcd
    assert all(volume["Encrypted"] and volume["VolumeType"] == "gp3" for volume in volumes)
    tags = {tag["Key"]: tag["Value"] for tag in found["demo-worker-0"]["Tags"]}
    assert (
        tags["k8sgu.io/cluster/demo"] == "owned"
        and tags["k8sgu.io/role"] == "worker"
        and tags["k8sgu.io/pool"] == "workers"
    )
    routes = [route for table in ec2.describe_route_tables()["RouteTables"] for route in table["Routes"]]
    leads_to = {route["DestinationCidrBlock"]: route.get("InstanceId") for route in routes}
    assert leads_to[tags["k8sgu.io/pod-cidr"]] == found["demo-worker-0"]["InstanceId"]
    elb = server.client("elbv2")
    balancer = elb.describe_load_balancers(Names=["demo-api"])["LoadBalancers"][0]
    assert done["api_endpoint"] == {"host": balancer["DNSName"], "private_host": balancer["DNSName"], "port": 6443}
    assert done["addresses"]["demo-worker-0"] == found["demo-worker-0"]["PublicIpAddress"]


def test_the_aws_command_sees_the_same(server: Server) -> None:
    run()
    query = "Reservations[].Instances[].[Tags[?Key=='Name']|[0].Value, InstanceType, MetadataOptions.HttpTokens]"
    found = subprocess.run(
        [
            BIN / "aws",
            "ec2",
            "describe-instances",
            "--filters",
            "Name=tag:k8sgu.io/cluster/demo,Values=owned",
            "--query",
            query,
            "--output",
            "json",
        ],
        env={**os.environ},
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    assert sorted(json.loads(found.stdout)) == [
        ["demo-control-plane-0", "m5.large", "required"],
        ["demo-worker-0", "m5.large", "required"],
        ["demo-worker-1", "m5.large", "required"],
    ]


@pytest.mark.parametrize("admins", [[], ["203.0.113.0/24"], ["0.0.0.0/0"]])
def test_nothing_is_open_to_the_world_unless_asked_for(server: Server, admins: list[str]) -> None:
    run(admin_cidrs=admins, pools=HA)
    ranges = {
        entry["CidrIp"]
        for group in server.client("ec2").describe_security_groups()["SecurityGroups"]
        for rule in group["IpPermissions"]
        for entry in rule["IpRanges"]
    }
    assert ("0.0.0.0/0" in ranges) == (admins == ["0.0.0.0/0"])


@pytest.mark.parametrize("layout", [{}, {"pools": HA}])
def test_administrators_inside_reach_private_addresses(server: Server, layout: dict[str, Any]) -> None:
    """A group admits a private address on the way to a private one: nodes' public ones are reached from outside."""
    done = run(admin_cidrs=["10.0.1.0/24"], **layout)
    private = {node["name"]: node["private_ip"] for node in done["nodes"]}
    assert done["addresses"] == private and all(node["public_ip"] for node in done["nodes"])
    if layout:
        assert done["load_balancer"]["scheme"] == "internal"
    else:
        assert done["api_endpoint"]["host"] == private["demo-control-plane-0"]
    mixed = run(admin_cidrs=["10.0.1.0/24", "203.0.113.7/32"], allow_replace=True, **layout)
    assert mixed["addresses"] == {node["name"]: node["public_ip"] for node in mixed["nodes"]}


def test_groups_go_by_reference_and_etcd_is_for_the_control_plane(server: Server) -> None:
    groups = run()["security_groups"]
    found = server.client("ec2").describe_security_groups(GroupIds=[groups["control_plane"]])["SecurityGroups"][0]
    # moto keeps one permission for each rule.
    peers = {
        peer
        for rule in found["IpPermissions"]
        if rule["IpProtocol"] in ("tcp", "-1") and rule.get("FromPort", 0) <= 2379 <= rule.get("ToPort", 65535)
        for peer in [pair["GroupId"] for pair in rule["UserIdGroupPairs"]]
        + [entry["CidrIp"] for entry in rule["IpRanges"]]
    }
    assert peers == {groups["control_plane"]}


@pytest.mark.parametrize("gateways", ["one", "per_zone"])
def test_private_nodes_may_reach_a_public_load_balancer(server: Server, gateways: str) -> None:
    """By their NAT gateways' addresses, also where a run ended between the address and the rule."""
    layout = {"private_nodes": True, "nat_gateways": gateways, "zones": ZONES, "admin_cidrs": ["203.0.113.0/24"]}
    done = run(**layout, pools=HA)
    assert done["api_endpoint"]["private_host"] == done["load_balancer"]["dns_name"]

    def admitted() -> list[str]:
        group = done["security_groups"]["api"]
        [found] = server.client("ec2").describe_security_groups(GroupIds=[group])["SecurityGroups"]
        return sorted(peer["CidrIp"] for rule in found["IpPermissions"] for peer in rule["IpRanges"])

    ec2 = server.client("ec2")
    gates = [f"{item['PublicIp']}/32" for item in ec2.describe_addresses()["Addresses"]]
    assert len(gates) == {"one": 1, "per_zone": 2}[gateways]
    assert admitted() == sorted([*gates, "203.0.113.0/24"])
    rule = {"IpProtocol": "tcp", "FromPort": 6443, "ToPort": 6443, "IpRanges": [{"CidrIp": gates[0]}]}
    ec2.revoke_security_group_ingress(GroupId=done["security_groups"]["api"], IpPermissions=[rule])
    assert [step["resource"] for step in run(**layout, pools=HA)["plan"]] == ["rules/api"]
    assert admitted() == sorted([*gates, "203.0.113.0/24"])


def test_private_nodes_find_the_one_control_plane_node_inside(server: Server) -> None:
    done = run(private_nodes=True, admin_cidrs=["203.0.113.0/24"])
    assert done["load_balancer"]["scheme"] == "internet-facing"
    assert done["api_endpoint"]["private_host"] == done["nodes"][0]["private_ip"]


class TestBastion:
    """Private nodes of a new VPC, and administrators who have public addresses."""

    layout: ClassVar[dict[str, Any]] = {"private_nodes": True, "admin_cidrs": ["203.0.113.0/24"]}

    @pytest.fixture
    def door(self, server: Server) -> dict[str, Any]:
        done = run(**self.layout)
        found = instances(server)["demo-bastion"]
        assert done["bastion"] == {
            "name": "demo-bastion",
            "instance_id": found["InstanceId"],
            "public_ip": found["PublicIpAddress"],
        }
        return found

    def test_what_it_is(self, server: Server, door: dict[str, Any]) -> None:
        ec2 = server.client("ec2")
        assert door["InstanceType"] == "t3.micro" and "IamInstanceProfile" not in door
        assert door["SourceDestCheck"] and door["MetadataOptions"]["HttpTokens"] == "required"
        attribute = ec2.describe_instance_attribute(InstanceId=door["InstanceId"], Attribute="userData")
        script = base64.b64decode(attribute["UserData"]["Value"]).decode()
        assert "PermitOpen *:22\n" in script and "AllowTcpForwarding local\n" in script
        groups = {group["GroupName"]: group for group in ec2.describe_security_groups()["SecurityGroups"]}
        [worn] = door["NetworkInterfaces"][0]["Groups"]
        assert worn["GroupName"] == "k8sgu-demo-bastion"
        [rule] = groups["k8sgu-demo-bastion"]["IpPermissions"]
        assert (rule["FromPort"], [peer["CidrIp"] for peer in rule["IpRanges"]]) == (22, ["203.0.113.0/24"])
        for node in ("control-plane", "worker"):
            [ssh] = [rule for rule in groups[f"k8sgu-demo-{node}"]["IpPermissions"] if rule.get("ToPort") == 22]
            assert [pair["GroupId"] for pair in ssh["UserIdGroupPairs"]] == [worn["GroupId"]]

    def test_it_is_started_again(self, server: Server, door: dict[str, Any]) -> None:
        server.client("ec2").stop_instances(InstanceIds=[door["InstanceId"]])
        assert [step["resource"] for step in run(**self.layout)["plan"]] == ["instance/demo-bastion"]
        assert instances(server)["demo-bastion"]["State"]["Name"] == "running"
        assert not run(**self.layout)["changed"]

    def test_it_is_launched_again_and_gets_another_key(self, server: Server, door: dict[str, Any]) -> None:
        server.client("ec2").terminate_instances(InstanceIds=[door["InstanceId"]])
        assert [step["action"] for step in run(**self.layout)["plan"]] == ["create"]
        run(**self.layout, public_key=OTHER_KEY, allow_replace=True)
        again = instances(server)["demo-bastion"]
        assert again["InstanceId"] != door["InstanceId"]
        assert not run(**self.layout, public_key=OTHER_KEY)["changed"]

    def test_it_goes_when_it_is_not_wanted(self, server: Server, door: dict[str, Any]) -> None:
        done = run(**self.layout, bastion=False)
        assert "demo-bastion" not in instances(server) and done["bastion"] == {} and done["leaving"] == []
        assert "k8sgu-demo-bastion" not in [
            group["GroupName"] for group in server.client("ec2").describe_security_groups()["SecurityGroups"]
        ]
        assert not run(**self.layout, bastion=False)["changed"]

    @pytest.mark.parametrize(
        "changes", [{"private_nodes": False}, {"admin_cidrs": []}, {"admin_cidrs": ["10.8.0.0/16"]}]
    )
    def test_none_where_nobody_needs_it(self, server: Server, changes: dict[str, Any]) -> None:
        assert run(**{**self.layout, **changes}, check_mode=True)["bastion"] == {}
        planned = run(**{**self.layout, **changes}, check_mode=True)["plan"]
        assert not [step for step in planned if "bastion" in step["resource"]]


class TestChanges:
    """Changes of the description, each with what it must do and what it must leave alone."""

    def test_more_and_fewer_workers(self, server: Server) -> None:
        run()
        first = instances(server)
        more = run(pools=[pool("control_plane", 1), pool("workers", 4)])
        assert [step["resource"] for step in more["plan"] if step["action"] == "create"] == [
            "instance/demo-worker-2",
            "instance/demo-worker-3",
            "route/public/10.200.3.0/24",
            "route/public/10.200.4.0/24",
        ]
        run(pools=[pool("control_plane", 1), pool("workers", 1)])
        found = instances(server)
        assert sorted(found) == ["demo-control-plane-0", "demo-worker-0"]
        assert all(found[name]["InstanceId"] == first[name]["InstanceId"] for name in found)

    def test_one_to_three_control_plane_nodes_and_back(self, server: Server) -> None:
        run()
        before = picture(server)
        run(pools=[pool("control_plane", 3), pool("workers", 2)])
        assert len(server.client("elbv2").describe_load_balancers()["LoadBalancers"]) == 1
        for left in (2, 1):  # etcd's members go one in a run
            done = run()
            assert done["changed"]
            assert len([name for name in instances(server) if "control-plane" in name]) == left
            balancers = server.client("elbv2").describe_load_balancers()["LoadBalancers"]
            # It serves as long as there are several, and is where clients find them as long as it serves.
            assert len(balancers) == (1 if left > 1 else 0) and bool(done["load_balancer"]) == (left > 1)
            address = (
                balancers[0]["DNSName"] if balancers else instances(server)["demo-control-plane-0"]["PublicIpAddress"]
            )
            assert done["api_endpoint"]["host"] == address
        assert picture(server) == before

    def test_a_health_check_that_somebody_changed(self, server: Server) -> None:
        three = {"pools": [pool("control_plane", 3), pool("workers", 0)]}
        run(**three)
        elb, before = server.client("elbv2"), picture(server)
        (group,) = elb.describe_target_groups()["TargetGroups"]
        assert (group["HealthCheckIntervalSeconds"], group["HealthCheckTimeoutSeconds"]) == (5, 4)
        elb.modify_target_group(
            TargetGroupArn=group["TargetGroupArn"], HealthCheckTimeoutSeconds=3, HealthyThresholdCount=5
        )
        (step,) = run(**three)["plan"]
        assert step["resource"] == "target-group/health-check" and "HealthCheckTimeoutSeconds 3 -> 4" in step["reason"]
        assert elb.describe_target_groups()["TargetGroups"] == [group] and picture(server) == before
        assert not run(**three)["changed"]

    def test_another_range_for_administrators(self, server: Server) -> None:
        run(admin_cidrs=["203.0.113.0/24"])
        changed = run(admin_cidrs=["198.51.100.0/24"])
        assert [(step["action"], step["resource"]) for step in changed["plan"]] == [
            ("update", "rules/control_plane"),
            ("delete", "rules/control_plane"),
            ("update", "rules/worker"),
            ("delete", "rules/worker"),
        ]
        assert not run(admin_cidrs=["198.51.100.0/24"])["changed"]

    def test_etcds_volume_grows_and_changes_no_other_way_while_the_cluster_lives(self, server: Server) -> None:
        def etcd_on(size: int) -> list[dict[str, Any]]:
            return [pool("control_plane", 1, etcd_volume_size=size), pool("workers", 0)]

        run(pools=etcd_on(2))
        grown = run(pools=etcd_on(4), lives=True)
        assert [(step["action"], step["resource"]) for step in grown["plan"]] == [
            ("update", "volume/demo-control-plane-0/etcd")
        ]
        assert not run(pools=etcd_on(4), lives=True)["changed"]
        before = picture(server)
        for size, why in ((3, "cannot shrink; put back 4"), (0, "its data cannot move; put back 4")):
            for check_mode in (True, False):
                wanted = rf"etcd_volume_size: {size} GiB, .* demo-control-plane-0 has etcd on vol-.*{why} \(k8sgu_etcd"
                with pytest.raises(RunFailed, match=wanted):
                    run(check_mode, pools=etcd_on(size), lives=True, allow_replace=True)
        assert picture(server) == before

    def test_a_volume_grows_in_place_and_shrinks_only_by_replacement(self, server: Server) -> None:
        run()
        ids = {item["InstanceId"] for item in instances(server).values()}
        bigger = [pool("control_plane", 1), pool("workers", 2, root_volume_size=40)]
        run(pools=bigger)
        sizes = sorted(volume["Size"] for volume in server.client("ec2").describe_volumes()["Volumes"])
        assert sizes == [20, 40, 40] and {item["InstanceId"] for item in instances(server).values()} == ids
        with pytest.raises(RunFailed, match=r"allow_replace: .*root volume 40 GiB -> 20 GiB"):
            run()

    @pytest.mark.parametrize("check_mode", [True, False])
    def test_a_replacement_is_refused_before_anything_is_done(self, server: Server, check_mode: bool) -> None:
        run()
        before = picture(server)
        with pytest.raises(RunFailed, match=r"instance_type m5.large -> m5.xlarge.*allow_replace: true") as failed:
            run(check_mode, pools=[pool("control_plane", 1), pool("workers", 3, instance_type="m5.xlarge")])
        assert failed.value.result["reached"] == [] and failed.value.result["plan"]
        assert picture(server) == before

    def test_a_replacement_when_allowed(self, server: Server) -> None:
        run()
        first = instances(server)
        run(image=NEWER_AMI, allow_replace=True)
        found = instances(server)
        assert sorted(found) == sorted(first)
        assert {item["ImageId"] for item in found.values()} == {NEWER_AMI}
        assert not run(image=NEWER_AMI)["changed"]
        routes = [
            route for table in server.client("ec2").describe_route_tables()["RouteTables"] for route in table["Routes"]
        ]
        assert {route["InstanceId"] for route in routes if "InstanceId" in route} == {
            item["InstanceId"] for item in found.values()
        }

    def test_a_newer_image_of_the_pattern_leaves_nodes_alone(self, server: Server) -> None:
        by_pattern = {"image": {"owner": OWNER, "name": "debian-*-amd64-*"}}
        run()
        assert not run(**by_pattern)["changed"]  # launched from the older one
        run(pools=[pool("control_plane", 1), pool("workers", 3)], **by_pattern)
        assert instances(server)["demo-worker-2"]["ImageId"] == NEWER_AMI

    @pytest.mark.parametrize("fate", ["deprecated", "deregistered"])
    def test_the_end_of_an_image_leaves_nodes_alone(self, server: Server, fate: str) -> None:
        """Publishers deprecate an image after two years at the latest, and may deregister it then."""
        by_pattern = {"image": {"owner": OWNER, "name": "debian-*-amd64-*"}}
        run()
        before = picture(server)
        if fate == "deprecated":
            server.deprecated = {AMI}
        else:
            server.client("ec2").deregister_image(ImageId=AMI)
        for image in ({}, by_pattern):
            again = converge(options(**image), False)
            assert not again.result["changed"] and picture(server) == before
            gone = fate == "deregistered" and bool(image)
            assert [f"{AMI} of demo-control-plane-0, demo-worker-0" in text for text in again.warnings] == [True] * gone
        more = [pool("control_plane", 1), pool("workers", 3)]
        run(pools=more, **by_pattern)
        found = instances(server)
        assert {name: item["ImageId"] for name, item in found.items() if name != "demo-worker-2"} == {
            "demo-control-plane-0": AMI,
            "demo-worker-0": AMI,
            "demo-worker-1": AMI,
        }
        assert found["demo-worker-2"]["ImageId"] == NEWER_AMI

    def test_a_deprecated_image_still_serves_where_it_is_the_one_that_is_meant(self, server: Server) -> None:
        run()
        server.deprecated = {AMI, NEWER_AMI}
        more = [pool("control_plane", 1), pool("workers", 3)]
        for image, id in (({}, AMI), ({"image": {"owner": OWNER, "name": "debian-*-amd64-*"}}, NEWER_AMI)):
            done = converge(options(pools=more, **image), False)
            assert instances(server)["demo-worker-2"]["ImageId"] == id
            assert [f"{id} is deprecated" in text for text in done.warnings] == [True]
            run(**image)  # without the third worker
        with pytest.raises(RunFailed, match=rf"allow_replace: .*image {AMI} -> debian-13-\*"):
            run(image={"owner": OWNER, "name": "debian-13-*"})

    def test_a_launch_from_an_image_that_is_gone(self, server: Server) -> None:
        run()
        server.client("ec2").deregister_image(ImageId=AMI)
        before = picture(server)
        more = [pool("control_plane", 1), pool("workers", 3)]
        with pytest.raises(DescriptionError, match=rf"image: {AMI}: there is no such AMI .*pool of their own"):
            run(pools=more)
        assert picture(server) == before
        run(pools=[pool("control_plane", 1), pool("workers", 2), pool("new", 1, image=NEWER_AMI)])
        assert instances(server)["demo-new-0"]["ImageId"] == NEWER_AMI

    def test_another_key(self, server: Server) -> None:
        run()
        with pytest.raises(RunFailed, match="allow_replace: key-pair"):
            run(public_key=OTHER_KEY)
        assert [step["resource"] for step in run(public_key=OTHER_KEY, allow_replace=True)["plan"]] == ["key-pair"]
        assert not run(public_key=OTHER_KEY)["changed"]

    def test_profiles_go_when_they_are_not_wanted_any_more(self, server: Server) -> None:
        run()
        run(instance_profiles=False)
        iam = server.client("iam")
        assert iam.list_roles()["Roles"] == [] and iam.list_instance_profiles()["InstanceProfiles"] == []
        assert not any("IamInstanceProfile" in item for item in instances(server).values())
        assert not run(instance_profiles=False)["changed"]

    def test_a_policy_comes_and_goes(self, server: Server) -> None:
        run(worker_policy=POLICY)
        iam = server.client("iam")
        role = "k8sgu-demo-us-east-1-worker"
        assert iam.get_role_policy(RoleName=role, PolicyName="k8sgu")["PolicyDocument"] == POLICY
        assert [step["action"] for step in run()["plan"]] == ["delete"]
        assert iam.list_role_policies(RoleName=role)["PolicyNames"] == []


class TestDrift:
    """What was changed by hand is changed back, and what is somebody else's is left alone."""

    @pytest.fixture
    def made(self, server: Server) -> dict[str, Any]:
        run()
        return {"server": server, "ec2": server.client("ec2"), "before": picture(server)}

    def repaired(self, made: dict[str, Any], *resources: str) -> None:
        assert picture(made["server"]) != made["before"], "the change by hand does not show"
        assert [step["resource"] for step in run()["plan"]] == list(resources)
        assert picture(made["server"]) == made["before"]
        assert not run()["changed"]

    def node(self, made: dict[str, Any], name: str = "demo-worker-0") -> str:
        return str(instances(made["server"])[name]["InstanceId"])

    def test_a_stopped_node(self, made: dict[str, Any]) -> None:
        made["ec2"].stop_instances(InstanceIds=[self.node(made)])
        self.repaired(made, "instance/demo-worker-0")

    def test_a_terminated_node(self, made: dict[str, Any]) -> None:
        made["ec2"].terminate_instances(InstanceIds=[self.node(made)])
        self.repaired(made, "instance/demo-worker-0", "route/public/10.200.1.0/24")

    def test_the_source_destination_check(self, made: dict[str, Any]) -> None:
        made["ec2"].modify_instance_attribute(InstanceId=self.node(made), SourceDestCheck={"Value": True})
        self.repaired(made, "source-dest-check/demo-worker-0")

    def test_metadata_options(self, made: dict[str, Any]) -> None:
        made["ec2"].modify_instance_metadata_options(
            InstanceId=self.node(made), HttpTokens="optional", HttpPutResponseHopLimit=2
        )
        self.repaired(made, "metadata-options/demo-worker-0")

    def test_a_rule_too_many(self, made: dict[str, Any]) -> None:
        group = next(
            group["GroupId"]
            for group in made["ec2"].describe_security_groups()["SecurityGroups"]
            if group["GroupName"] == "k8sgu-demo-worker"
        )
        made["ec2"].authorize_security_group_ingress(
            GroupId=group,
            IpPermissions=[{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}],
        )
        self.repaired(made, "rules/worker")

    def test_a_missing_tag(self, made: dict[str, Any]) -> None:
        made["ec2"].delete_tags(Resources=[self.node(made)], Tags=[{"Key": "k8sgu.io/pool"}])
        self.repaired(made, "tags/instance/demo-worker-0")

    def test_a_route_taken_away(self, made: dict[str, Any]) -> None:
        table = next(
            table["RouteTableId"]
            for table in made["ec2"].describe_route_tables()["RouteTables"]
            if any(route["DestinationCidrBlock"] == "10.200.1.0/24" for route in table["Routes"])
        )
        made["ec2"].delete_route(RouteTableId=table, DestinationCidrBlock="10.200.1.0/24")
        self.repaired(made, "route/public/10.200.1.0/24")

    def test_a_profile_taken_away(self, made: dict[str, Any]) -> None:
        found = made["ec2"].describe_iam_instance_profile_associations(
            Filters=[{"Name": "instance-id", "Values": [self.node(made)]}]
        )["IamInstanceProfileAssociations"]
        made["ec2"].disassociate_iam_instance_profile(AssociationId=found[0]["AssociationId"])
        self.repaired(made, "profile/demo-worker-0")

    def test_another_group(self, made: dict[str, Any]) -> None:
        group = made["ec2"].create_security_group(
            GroupName="mine", Description="mine", VpcId=instances(made["server"])["demo-worker-0"]["VpcId"]
        )["GroupId"]
        made["before"] = picture(made["server"])
        made["ec2"].modify_instance_attribute(InstanceId=self.node(made), Groups=[group])
        self.repaired(made, "groups/demo-worker-0")

    def test_what_is_not_ours_stays(self, server: Server) -> None:
        ec2 = server.client("ec2")
        ec2.create_vpc(CidrBlock="10.99.0.0/16")
        ec2.allocate_address(Domain="vpc")
        ec2.import_key_pair(KeyName="mine", PublicKeyMaterial=KEY.encode())
        ec2.run_instances(ImageId=AMI, InstanceType="m5.large", MinCount=1, MaxCount=1)
        before = picture(server)
        run(name="other")
        run(private_nodes=True)
        run(state="absent")
        run(name="other", state="absent")
        assert picture(server) == before

    def test_two_clusters_do_not_see_each_other(self, server: Server) -> None:
        run(name="one")
        run(name="two")
        with_both = picture(server)
        run(name="three", vpc_cidr="10.241.0.0/16")
        run(name="three", state="absent")
        assert picture(server) == with_both
        assert not run(name="one")["changed"] and not run(name="two")["changed"]


class TestExistingNetwork:
    """A VPC, subnets and a key that the user brought."""

    @pytest.fixture
    def brought(self, server: Server) -> dict[str, Any]:
        ec2 = server.client("ec2")
        vpc = ec2.create_vpc(CidrBlock="10.50.0.0/16")["Vpc"]["VpcId"]
        subnets = [
            ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.50.{number}.0/24", AvailabilityZone=zone)["Subnet"]["SubnetId"]
            for number, zone in enumerate(ZONES)
        ]
        table = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
        ec2.associate_route_table(RouteTableId=table, SubnetId=subnets[0])  # the other one uses the main table
        ec2.import_key_pair(KeyName="mine", PublicKeyMaterial=KEY.encode())
        return {"vpc_id": vpc, "subnet_ids": subnets, "key_name": "mine", "public_key": None}

    def test_all_of_it(self, server: Server, brought: dict[str, Any]) -> None:
        before = picture(server)
        done = run(**brought)
        found = instances(server)
        assert {item["KeyName"] for item in found.values()} == {"mine"}
        assert sorted({item["SubnetId"] for item in found.values()}) == sorted(brought["subnet_ids"])
        tables = [
            {route["DestinationCidrBlock"] for route in table["Routes"] if "InstanceId" in route}
            for table in server.client("ec2").describe_route_tables(
                Filters=[{"Name": "vpc-id", "Values": [brought["vpc_id"]]}]
            )["RouteTables"]
        ]
        assert tables == [{"10.200.0.0/24", "10.200.1.0/24", "10.200.2.0/24"}] * 2
        assert not any(step["resource"].startswith(("vpc", "subnet", "internet", "key")) for step in done["plan"])
        assert not run(**brought)["changed"]
        run(**{**brought, "pools": [pool("control_plane", 1), pool("workers", 1)]})
        run(state="absent")
        assert picture(server) == before

    def test_the_vpc_alone(self, server: Server, brought: dict[str, Any]) -> None:
        gateway = server.client("ec2").create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        server.client("ec2").attach_internet_gateway(InternetGatewayId=gateway, VpcId=brought["vpc_id"])
        before = picture(server)
        done = run(vpc_id=brought["vpc_id"])
        # The first two parts of the VPC are taken.
        assert next(step["reason"] for step in done["plan"] if step["resource"].startswith("subnet/")).endswith(
            "10.50.2.0/24 in us-east-1a"
        )
        assert not any(step["resource"] == "internet-gateway" for step in done["plan"])
        assert not run(vpc_id=brought["vpc_id"])["changed"]
        run(state="absent")
        assert picture(server) == before

    @pytest.fixture
    def joined(self, server: Server, brought: dict[str, Any]) -> dict[str, Any]:
        """The same with what companies have: a peered VPC to which the nodes' table leads, and a database's subnet."""
        ec2 = server.client("ec2")
        ec2.associate_vpc_cidr_block(VpcId=brought["vpc_id"], CidrBlock="10.51.0.0/20")
        peer = ec2.create_vpc(CidrBlock="10.90.0.0/16")["Vpc"]["VpcId"]
        link = ec2.create_vpc_peering_connection(VpcId=brought["vpc_id"], PeerVpcId=peer)["VpcPeeringConnection"]
        ec2.accept_vpc_peering_connection(VpcPeeringConnectionId=link["VpcPeeringConnectionId"])
        nodes = self.table_of(server, brought["subnet_ids"][0])["RouteTableId"]
        route = {"RouteTableId": nodes, "VpcPeeringConnectionId": link["VpcPeeringConnectionId"]}
        ec2.create_route(DestinationCidrBlock="10.90.0.0/16", **route)
        subnet = ec2.create_subnet(VpcId=brought["vpc_id"], CidrBlock="10.51.0.0/24", AvailabilityZone=ZONES[0])
        table = ec2.create_route_table(VpcId=brought["vpc_id"])["RouteTable"]["RouteTableId"]
        ec2.associate_route_table(RouteTableId=table, SubnetId=subnet["Subnet"]["SubnetId"])
        return {"route": route, "table": table, "subnet": subnet["Subnet"]["SubnetId"]}

    @staticmethod
    def table_of(server: Server, subnet: str) -> dict[str, Any]:
        filters = [{"Name": "association.subnet-id", "Values": [subnet]}]
        [table] = server.client("ec2").describe_route_tables(Filters=filters)["RouteTables"]
        return dict(table)

    def test_the_users_routes_stay(self, server: Server, brought: dict[str, Any], joined: dict[str, Any]) -> None:
        """And a table that was named gets the pods' routes, until it is not named any more."""
        before = picture(server)

        def destinations(subnet: str) -> list[str]:
            return sorted(route["DestinationCidrBlock"] for route in self.table_of(server, subnet)["Routes"])

        local = ["10.50.0.0/16", "10.51.0.0/20"]
        assert destinations(joined["subnet"]) == local
        assert run(**brought)["network"] == {"vpc_cidrs": ["10.50.0.0/16", "10.51.0.0/20"], "routed_cidrs": []}
        pods = ["10.200.0.0/24", "10.200.1.0/24", "10.200.2.0/24"]
        assert destinations(brought["subnet_ids"][0]) == sorted([*pods, *local, "10.90.0.0/16"])
        assert destinations(joined["subnet"]) == local
        named = {**brought, "pod_route_tables": [joined["table"]]}
        assert run(**named)["network"]["routed_cidrs"] == ["10.51.0.0/24"]
        assert destinations(joined["subnet"]) == sorted([*pods, *local]) and not run(**named)["changed"]
        assert run(**brought)["network"]["routed_cidrs"] == [] and destinations(joined["subnet"]) == local
        run(**named)
        run(state="absent")
        assert picture(server) == before

    @pytest.mark.parametrize("theirs", ["10.200.1.0/24", "10.200.0.0/15", "10.200.1.128/25"])
    def test_a_route_of_somebody_else_to_the_pods_range(
        self, server: Server, brought: dict[str, Any], joined: dict[str, Any], theirs: str
    ) -> None:
        server.client("ec2").create_route(DestinationCidrBlock=theirs, **joined["route"])
        before = picture(server)
        said = f"pod_cidr: 10.200.0.0/16 overlaps {theirs}, to which rtb-[0-9a-f]+ has a route by pcx-[0-9a-f]+; choose"
        with pytest.raises(DescriptionError, match=said):
            run(**brought)
        assert picture(server) == before
        assert run(**{**brought, "pod_network": "vxlan"})["changed"]

    def test_a_way_out_that_the_user_gave_to_private_nodes(self, server: Server) -> None:
        """Without NAT gateways the default route is the user's, to a transit gateway here."""
        layout = {"private_nodes": True, "nat_gateways": "none"}
        done = run(**layout)
        ec2 = server.client("ec2")
        gateway = ec2.create_transit_gateway()["TransitGateway"]["TransitGatewayId"]
        [subnet] = done["subnet_ids"]
        table = self.table_of(server, subnet)["RouteTableId"]
        ec2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", TransitGatewayId=gateway)
        before = picture(server)
        assert not run(**layout)["changed"] and picture(server) == before

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"vpc_cidr": "10.99.0.0/16"}, "vpc_cidr: vpc-[0-9a-f]+ has 10.50.0.0/16, and not 10.99.0.0/16; leave"),
            ({"pod_route_tables": ["rtb-0"]}, "pod_route_tables: there is no route table rtb-0 in vpc-[0-9a-f]+;"),
            ({"pod_route_tables": ["rtb-0"], "pod_network": "vxlan"}, "pod_route_tables: with pod_network: vxlan"),
            ({"pod_route_tables": ["rtb-0"], "vpc_id": None, "subnet_ids": []}, "pod_route_tables: the VPC that is"),
        ],
    )
    def test_what_does_not_fit_it(
        self, server: Server, brought: dict[str, Any], changes: dict[str, Any], message: str
    ) -> None:
        before = picture(server)
        with pytest.raises(DescriptionError, match=message):
            run(**{**brought, **changes})
        assert picture(server) == before
        assert run(**brought, vpc_cidr="10.50.0.0/16")["changed"]


OTHER_VPC = "there is a cluster demo in another VPC"
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a zone that is not there": ({"zones": ["us-east-1z"]}, "zones: there is no zone us-east-1z in us-east-1"),
    "a zone that does not offer the type": (
        {"zones": ["us-east-1e"], "pools": [pool("control_plane", 1, instance_type="m5.large")]},
        r"pools\[0\].instance_type: us-east-1e does not offer m5.large; zones that do: us-east-1a",
    ),
    "a type that is not there": (
        {"zones": ["us-east-1a"], "pools": [pool("control_plane", 1, instance_type="m99.large")]},
        "there is no instance type m99.large",
    ),
    "a type that no zone has": (
        {"pools": [pool("control_plane", 1, instance_type="m99.large")]},
        "no zone of us-east-1 offers all of m99.large",
    ),
    "an AMI that is not there": (
        {"image": "ami-0000000000000dead"},
        "image: ami-0000000000000dead: there is no such AMI",
    ),
    "a pattern without a match": (
        {"image": {"owner": OWNER, "name": "plan9-*"}},
        "image: plan9-.*there is no such AMI",
    ),
    "an AMI of another architecture": (
        {"image": ARM_AMI},
        f"{ARM_AMI} is arm64, and m5.large of pool control_plane takes x86_64",
    ),
    "a root volume smaller than the image": (
        {"pools": [pool("control_plane", 1, root_volume_size=10)]},
        "root_volume_size 10 GiB is smaller than .* 15 GiB",
    ),
    "a volume for etcd on a Xen type": (
        {"pools": [pool("control_plane", 1, instance_type="m4.large", etcd_volume_size=5)]},
        r"pools\[0\].etcd_volume_size: m4.large is a Xen type",
    ),
    "a key pair that is not there": (
        {"key_name": "nobody", "public_key": None},
        "key_name: there is no key pair nobody",
    ),
    "a VPC that is not there": ({"vpc_id": "vpc-00000000000000000"}, "vpc_id: there is no VPC vpc-0000"),
    "a region that is not there": ({"region": "mars-west-1"}, "region: 'mars-west-1' is not a region"),
}


class ExpiredAws(session.Aws):
    """Clients whose every answer is that the credentials have expired."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(session.Connection())

    def client(self, service: str, region: str | None = None) -> Any:
        client = super().client(service, region)
        client.meta.events.register("after-call", self._expired, unique_id="expired")
        return client

    def _expired(self, http_response: Any, parsed: dict[str, Any], **_event: Any) -> None:
        http_response.status_code = 400
        parsed["Error"] = {"Code": self.code, "Message": "The security token included in the request is expired"}


class TestRefused:
    """Bad input: one clear error, and the account as it was."""

    @pytest.mark.parametrize("case", REFUSED)
    def test_by_the_account(self, server: Server, case: str) -> None:
        given, message = REFUSED[case]
        before = picture(server)
        with pytest.raises((DescriptionError, session.AwsError), match=message):
            run(**given)
        assert picture(server) == before

    def test_a_cluster_of_the_name_in_another_vpc(self, server: Server) -> None:
        run()
        vpc = server.client("ec2").create_vpc(CidrBlock="10.50.0.0/16")["Vpc"]["VpcId"]
        before = picture(server)
        with pytest.raises(DescriptionError, match=OTHER_VPC):
            run(vpc_id=vpc)
        assert picture(server) == before

    def test_two_vpcs_with_the_tag(self, server: Server) -> None:
        run()
        tags = [{"Key": "k8sgu.io/cluster/demo", "Value": "owned"}]
        server.client("ec2").create_vpc(
            CidrBlock="10.50.0.0/16", TagSpecifications=[{"ResourceType": "vpc", "Tags": tags}]
        )
        with pytest.raises(DescriptionError, match=r"name: the VPCs .* all carry the tag of cluster demo"):
            run()

    def test_a_vpc_that_a_repeated_call_left(self, server: Server) -> None:
        """Empty and like the one in use: no reason to refuse, and removed."""
        run()
        before = picture(server)
        ec2 = server.client("ec2")
        tags = [{"Key": "k8sgu.io/cluster/demo", "Value": "owned"}, {"Key": "Name", "Value": "demo"}]
        ec2.create_vpc(CidrBlock="10.240.0.0/16", TagSpecifications=[{"ResourceType": "vpc", "Tags": tags}])
        assert [step["action"] for step in run()["plan"]] == ["delete"]
        assert picture(server) == before and not run()["changed"]

    def test_a_range_that_was_added_to_a_vpc(self, server: Server) -> None:
        ec2 = server.client("ec2")
        vpc = ec2.create_vpc(CidrBlock="10.50.0.0/16")["Vpc"]["VpcId"]
        ec2.associate_vpc_cidr_block(VpcId=vpc, CidrBlock="10.200.0.0/20")
        before = picture(server)
        with pytest.raises(DescriptionError, match=r"pod_cidr: 10.200.0.0/16 overlaps the range 10.200.0.0/20 of vpc-"):
            run(vpc_id=vpc)
        assert picture(server) == before

    def test_two_instances_of_one_name(self, server: Server) -> None:
        run()
        twin = instances(server)["demo-worker-0"]
        server.client("ec2").run_instances(
            ImageId=AMI,
            InstanceType="m5.large",
            MinCount=1,
            MaxCount=1,
            SubnetId=twin["SubnetId"],
            TagSpecifications=[{"ResourceType": "instance", "Tags": twin["Tags"]}],
        )
        with pytest.raises(DescriptionError, match="are both named demo-worker-0"):
            run()

    def test_another_range_for_the_vpc(self, server: Server) -> None:
        run()
        with pytest.raises(
            DescriptionError, match=r"vpc_cidr: .* has 10.240.0.0/16, and a VPC's range cannot be changed"
        ):
            run(vpc_cidr="10.241.0.0/16")

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"subnet_ids": ["subnet-00000000000000000"]}, "subnet_ids: there is no subnet subnet-0000"),
            ({"pod_cidr": "10.50.0.0/16"}, "pod_cidr: 10.50.0.0/16 overlaps"),
            ({"subnet_prefix": 15}, "subnet_prefix: /15"),
        ],
    )
    def test_a_network_that_was_brought(self, server: Server, changes: dict[str, Any], message: str) -> None:
        vpc = server.client("ec2").create_vpc(CidrBlock="10.50.0.0/16")["Vpc"]["VpcId"]
        before = picture(server)
        with pytest.raises(DescriptionError, match=message):
            run(vpc_id=vpc, **changes)
        assert picture(server) == before

    def test_a_subnet_without_room(self, server: Server) -> None:
        ec2 = server.client("ec2")
        vpc = ec2.create_vpc(CidrBlock="10.50.0.0/16")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.50.0.0/28", AvailabilityZone=ZONES[0])["Subnet"]["SubnetId"]
        with pytest.raises(DescriptionError, match=r"subnet_ids: .* \(10.50.0.0/28\) has no room for 13 nodes"):
            run(vpc_id=vpc, subnet_ids=[subnet], pools=[pool("control_plane", 1), pool("workers", 12)])

    def test_the_quota_of_vpcs(self, server: Server) -> None:
        for number in range(4):  # beside the default one
            server.client("ec2").create_vpc(CidrBlock=f"10.{number}.0.0/16")
        with pytest.raises(DescriptionError, match="vpc_id: the account has 5 VPCs in us-east-1 and its quota is 5"):
            run()

    def test_the_quota_of_routes(self, server: Server) -> None:
        assert run(check_mode=True, pools=[pool("control_plane", 1), pool("workers", 60)], subnet_prefix=22)["changed"]
        many = [pool("control_plane", 1), pool("workers", 500)]
        wide = {"pod_cidr": "10.192.0.0/14", "subnet_prefix": 22}
        with pytest.raises(
            DescriptionError, match="pod_network: routed needs 503 routes in a table and the quota is 500"
        ):
            run(pools=many, **wide)
        assert run(check_mode=True, pools=many, pod_network="vxlan", **wide)["changed"]

    def test_routes_that_are_there_count(self, server: Server) -> None:
        ec2 = server.client("ec2")
        vpc = ec2.create_vpc(CidrBlock="10.50.0.0/16")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.50.0.0/20", AvailabilityZone=ZONES[0])["Subnet"]["SubnetId"]
        gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
        (table,) = ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["RouteTables"]
        for number in range(40):
            ec2.create_route(
                RouteTableId=table["RouteTableId"], DestinationCidrBlock=f"172.16.{number}.0/24", GatewayId=gateway
            )
        many = [pool("control_plane", 1), pool("workers", 459)]
        brought = {"vpc_id": vpc, "subnet_ids": [subnet], "pod_cidr": "10.192.0.0/14"}
        with pytest.raises(DescriptionError, match="routed needs 501 routes in a table and the quota is 500"):
            run(pools=many, **brought)
        many = [pool("control_plane", 1), pool("workers", 458)]
        assert run(check_mode=True, pools=many, **brought)["changed"]

    def test_somebody_elses_load_balancer(self, server: Server) -> None:
        elb, ec2 = server.client("elbv2"), server.client("ec2")
        subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
        elb.create_load_balancer(Name="demo-api", Type="network", Subnets=[subnet])
        with pytest.raises(
            DescriptionError, match="name: there is a load balancer or target group demo-api that is not"
        ):
            run(pools=HA)
        run(state="absent")
        assert len(elb.describe_load_balancers()["LoadBalancers"]) == 1

    def test_somebody_elses_key_pair(self, server: Server) -> None:
        server.client("ec2").import_key_pair(KeyName="k8sgu-demo", PublicKeyMaterial=KEY.encode())
        before = picture(server)
        with pytest.raises(DescriptionError, match="name: there is a key pair k8sgu-demo that is not the cluster's"):
            run()
        run(state="absent")
        assert picture(server) == before

    @pytest.mark.parametrize("kind", ["IAM role", "instance profile"])
    def test_somebody_elses_role(self, server: Server, kind: str) -> None:
        iam, name = server.client("iam"), "k8sgu-demo-us-east-1-worker"
        if kind == "IAM role":
            iam.create_role(RoleName=name, Path="/mine/", AssumeRolePolicyDocument="{}")
        else:
            iam.create_instance_profile(InstanceProfileName=name, Path="/mine/")
        before = picture(server)
        with pytest.raises(DescriptionError, match=rf"name: there is an {kind} {name} that is not .*path is /mine/"):
            run()
        run(state="absent")
        assert picture(server) == before
        assert run(instance_profiles=False)["changed"]

    @pytest.mark.parametrize("code", sorted(session.EXPIRED_CODES))
    def test_expired_credentials(self, server: Server, code: str) -> None:
        run()
        before = picture(server)
        for given in ({"state": "absent"}, {"pools": HA}):
            aws = ExpiredAws(code)
            with pytest.raises(session.AwsError, match="the credentials have expired"):
                run(aws=aws, **given)
            assert aws.calls and mutations(aws.calls) == []
        assert picture(server) == before

    def test_no_credentials(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        with pytest.raises(session.AwsError, match=r"no credentials.*aws sso login"):
            run(aws=session.Aws(session.Connection()))

    def test_a_server_that_is_not_there(self, server: Server) -> None:
        with pytest.raises(session.AwsError, match="check the network, region and endpoint_url"):
            run(endpoint_url="http://127.0.0.1:9", max_attempts=1, connect_timeout=2)


class SlowAws(session.Aws):
    """An account in which a new instance is pending for ever."""

    def client(self, service: str, region: str | None = None) -> Any:
        client = super().client(service, region)
        client.meta.events.register("after-call.ec2.DescribeInstances", self._pending, unique_id="pending")
        return client

    def _pending(self, parsed: dict[str, Any], **_event: Any) -> None:
        for reservation in parsed.get("Reservations", ()):
            for item in reservation["Instances"]:
                item["State"]["Name"] = "pending"


def test_a_timeout_fails_and_says_what_was_reached(server: Server) -> None:
    with pytest.raises(
        RunFailed,
        match=r"waited 2 s for nodes to be running, which.*not running: .*demo-control-plane-0",
    ) as failed:
        run(aws=SlowAws(session.Connection()), wait_timeout=2)
    reached = [step["resource"] for step in failed.value.result["reached"]]
    assert "instance/demo-worker-1" in reached and "route/public/10.200.0.0/24" not in reached
    assert len(run()["nodes"]) == 3  # the next run goes on from there
    assert len(instances(server)) == 3


def module(arguments: dict[str, Any], directory: Path, *flags: str) -> dict[str, Any]:
    """The module as Ansible runs it."""
    found = ansible_program.run(
        "ansible",
        "localhost",
        "--module-name=k8sgu.cluster.ec2_cluster",
        f"--args={json.dumps(arguments)}",
        *flags,
        cwd=directory,
        environment={
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_LOCAL_TEMP": str(directory / "tmp"),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
            "ANSIBLE_DEPRECATION_WARNINGS": "0",
        },
    )
    try:
        answer: dict[str, Any] = json.loads(found.stdout.partition(" => ")[2])
    except ValueError:
        raise AssertionError(f"{found.stdout}\n{found.stderr}") from None
    return answer


def test_as_ansible_runs_it(server: Server, tmp_path: Path) -> None:
    key = tmp_path / "key.pub"
    key.write_text(KEY + " somebody@somewhere\n")
    arguments = {"name": "demo", "image": AMI, "public_key_file": str(key)}
    before = picture(server)
    promised = module(arguments, tmp_path, "--check", "--diff")
    assert promised["changed"] and picture(server) == before
    assert {"what": "public IPv4 address", "count": 3} in promised["billed"]
    done = module(arguments, tmp_path)
    assert done["billed"] == promised["billed"]
    assert done["plan"] == promised["plan"] and len(done["nodes"]) == 3
    again = module(arguments, tmp_path, "--check")
    assert not again["changed"]
    again = module(arguments, tmp_path)
    assert not again["changed"] and again["api_calls"] <= 12
    refused = module({**arguments, "pools": [pool("control_plane", 2)]}, tmp_path)
    assert refused["msg"].startswith("pools[0].count: 2 etcd members")
    assert module({"name": "demo", "state": "absent"}, tmp_path)["changed"]
    assert picture(server) == before


def test_the_number_of_calls_for_nothing(server: Server) -> None:
    """The promise is 12 for three nodes, whichever way the image is given."""
    for given in ({}, {"image": {"owner": OWNER, "name": "debian-*-amd64-*"}}):
        run(**given)
        aws = session.Aws(session.Connection())
        assert run(aws=aws, **given)["api_calls"] <= 12
        assert mutations(aws.calls) == []
