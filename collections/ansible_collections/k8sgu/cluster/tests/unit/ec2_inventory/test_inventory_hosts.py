from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2_inventory.hosts import (
    Host,
    InventoryError,
    Layout,
    hosts_from,
    shared_variables,
)

TEMPLATE = "{{ lookup('pipe', 'id') }}"


def instance(number: int, name: str | None = "demo-worker-0", **given: Any) -> dict[str, Any]:
    """An instance as DescribeInstances has it, with the region added."""
    tags = {"k8sgu.io/cluster/demo": "owned", "k8sgu.io/role": "worker", "k8sgu.io/pool": "workers"}
    tags.update(given.pop("tags", {}))
    if name is not None:
        tags["Name"] = name
    made: dict[str, Any] = {
        "InstanceId": f"i-{number:04d}",
        "InstanceType": "m5.large",
        "Architecture": "x86_64",
        "Placement": {"AvailabilityZone": "us-east-1a"},
        "VpcId": "vpc-1",
        "PrivateIpAddress": f"10.240.0.{number}",
        "PrivateDnsName": f"ip-10-240-0-{number}.ec2.internal",
        "PublicIpAddress": f"198.51.100.{number}",
        "PublicDnsName": f"ec2-198-51-100-{number}.example",
        "Region": "us-east-1",
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
    }
    made.update(given)
    return {key: value for key, value in made.items() if value is not None}


def one(given: dict[str, Any], layout: Layout | None = None) -> Host:
    found = hosts_from([given], layout or Layout(("demo",)))
    assert found.warnings == []
    [host] = found.hosts
    return host


def test_the_variables_and_groups_of_a_worker() -> None:
    host = one(instance(1, tags={"k8sgu.io/pod-cidr": "10.200.1.0/24", "team": "blue"}))
    assert host.name == "demo-worker-0"
    assert host.groups == ["cluster_demo", "worker", "pool_workers"]
    assert host.variables == {
        "ansible_host": "198.51.100.1",
        "ec2_instance_id": "i-0001",
        "ec2_instance_type": "m5.large",
        "ec2_architecture": "x86_64",
        "ec2_region": "us-east-1",
        "ec2_zone": "us-east-1a",
        "ec2_vpc_id": "vpc-1",
        "ec2_private_ip": "10.240.0.1",
        "ec2_public_ip": "198.51.100.1",
        "ec2_cluster": "demo",
        "ec2_role": "worker",
        "ec2_pool": "workers",
        "ec2_pod_cidr": "10.200.1.0/24",
        "ec2_tags": {"team": "blue"},
    }


def test_the_control_plane_is_etcd_too() -> None:
    host = one(instance(1, tags={"k8sgu.io/role": "control_plane", "k8sgu.io/pool": "control_plane"}))
    assert host.groups == ["cluster_demo", "control_plane", "etcd", "pool_control_plane"]


@pytest.mark.parametrize(
    ("preference", "absent", "address"),
    [
        (("public_ip", "private_ip"), (), "198.51.100.1"),
        (("public_ip", "private_ip"), ("PublicIpAddress",), "10.240.0.1"),
        (("private_ip", "public_ip"), (), "10.240.0.1"),
        (("public_dns",), (), "ec2-198-51-100-1.example"),
        (("public_dns", "private_dns"), ("PublicDnsName",), "ip-10-240-0-1.ec2.internal"),
    ],
)
def test_the_first_address_that_there_is(preference: tuple[str, ...], absent: tuple[str, ...], address: str) -> None:
    given = instance(1, **dict.fromkeys(absent))
    host = one(given, Layout(("demo",), addresses=preference))
    assert host.variables["ansible_host"] == address
    assert ("ec2_public_ip" in host.variables) == ("PublicIpAddress" not in absent)


def test_a_node_without_an_address_is_listed_with_a_warning() -> None:
    found = hosts_from(
        [instance(1, PublicIpAddress=None, PrivateIpAddress=None)], Layout(("demo",), addresses=("public_ip",))
    )
    [host] = found.hosts
    assert "ansible_host" not in host.variables
    [warning] = found.warnings
    assert "demo-worker-0" in warning and "i-0001" in warning and "public_ip" in warning


@pytest.mark.parametrize(
    ("preference", "name", "expected"),
    [
        (("tag:Name",), "node-1", "node-1"),
        (("instance_id",), "node-1", "i-0001"),
        (("tag:Name", "instance_id"), None, "i-0001"),
        (("tag:Name", "private_dns"), "", "ip-10-240-0-1.ec2.internal"),
        (("tag:team", "tag:Name"), "node-1", "node-1"),
        (("tag:Name", "instance_id"), TEMPLATE, "i-0001"),
    ],
)
def test_where_the_name_comes_from(preference: tuple[str, ...], name: str | None, expected: str) -> None:
    assert one(instance(1, name), Layout(("demo",), hostnames=preference)).name == expected


@pytest.mark.parametrize(
    "name", [None, "", "a b", "a/b", "../../x", "-oProxyCommand=id", "a,b", "a[1:3]", "!a", TEMPLATE]
)
def test_an_instance_without_a_usable_name_is_left_out_and_named(name: str | None) -> None:
    found = hosts_from([instance(1, name), instance(2, "node-2")], Layout(("demo",)))
    assert [host.name for host in found.hosts] == ["node-2"]
    [warning] = found.warnings
    assert "i-0001 in us-east-1a" in warning and "tag:Name" in warning
    assert not name or repr(name) in warning


def test_two_of_one_name_are_an_error_that_names_both() -> None:
    with pytest.raises(InventoryError, match=r"'demo-worker-0'.*i-0001 in us-east-1a.*i-0002 in us-east-1a"):
        hosts_from([instance(1), instance(2)], Layout(("demo",)))


@pytest.mark.parametrize("name", ["localhost", "LocalHost", "127.0.0.1"])
def test_no_instance_takes_this_machines_place(name: str) -> None:
    with pytest.raises(InventoryError, match=r"i-0001.*this machine"):
        hosts_from([instance(1, name)], Layout(("demo",)))


def test_an_unknown_role_is_a_warning_and_no_group() -> None:
    found = hosts_from([instance(1, tags={"k8sgu.io/role": "queen"})], Layout(("demo",)))
    assert found.hosts[0].groups == ["cluster_demo", "pool_workers"]
    [warning] = found.warnings
    assert "demo-worker-0" in warning and "'queen'" in warning and "control_plane, worker" in warning


def test_an_instance_of_two_clusters_is_in_the_one_that_was_asked_for() -> None:
    given = instance(1, tags={"k8sgu.io/cluster/other": "owned"})
    found = hosts_from([given], Layout(("other",)))
    assert found.hosts[0].groups[0] == "cluster_other"
    assert found.hosts[0].variables["ec2_cluster"] == "other"
    assert "demo, other" in found.warnings[0]


def test_group_names_are_made_of_word_characters() -> None:
    assert one(instance(1, tags={"k8sgu.io/pool": TEMPLATE})).groups[-1] == "pool____lookup__pipe____id_____"


def test_full_has_the_whole_description_in_the_words_of_ansible() -> None:
    given = instance(1, MetadataOptions={"HttpTokens": "required"}, EbsOptimized=False)
    host = one(given, Layout(("demo",), full=True))
    whole = host.variables["ec2_instance"]
    assert whole["metadata_options"] == {"http_tokens": "required"}
    assert whole["private_dns_name"] == "ip-10-240-0-1.ec2.internal"
    assert whole["ebs_optimized"] is False
    assert whole["tags"]["Name"] == "demo-worker-0"


def test_hosts_come_in_the_order_of_their_names() -> None:
    found = hosts_from([instance(n, f"node-{n}") for n in (3, 1, 2)], Layout(("demo",)))
    assert [host.name for host in found.hosts] == ["node-1", "node-2", "node-3"]


def test_what_all_nodes_agree_in_is_kept_on_their_group() -> None:
    hosts = hosts_from([instance(1, "a"), instance(2, "b", InstanceType="m5.xlarge")], Layout(("demo",))).hosts
    assert shared_variables(hosts) == {
        "cluster_demo": {"ec2_cluster": "demo", "ec2_region": "us-east-1", "ec2_vpc_id": "vpc-1"},
        "pool_workers": {"ec2_role": "worker", "ec2_pool": "workers", "ec2_architecture": "x86_64"},
    }


def test_nodes_of_two_clusters_share_nothing() -> None:
    both = {"tags": {"k8sgu.io/cluster/other": "owned"}}
    assert shared_variables(hosts_from([instance(1, "a", **both)], Layout(())).hosts) == {}
