from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import pytest
from ansible.utils.vars import merge_hash

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.inventory.hosts import (
    Host,
    InventoryError,
    Layout,
    hosts_from,
    placed,
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
        "OwnerId": "123456789012",
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
    }
    made.update(given)
    return {key: value for key, value in made.items() if value is not None}


def one(given: dict[str, Any], layout: Layout | None = None) -> Host:
    found = hosts_from([given], layout or Layout(("demo",)))
    assert found.warnings == []
    [host] = found.hosts
    return host


def test_the_volume_for_etcd_is_known_by_its_device() -> None:
    mappings = [
        {"DeviceName": "/dev/xvda", "Ebs": {"VolumeId": "vol-1"}},
        {"DeviceName": "/dev/sdf", "Ebs": {"VolumeId": "vol-2"}},
    ]
    member = one(instance(1, tags={"k8sgu.io/role": "control_plane"}, BlockDeviceMappings=mappings))
    assert member.variables["ec2_etcd_volume_id"] == "vol-2"
    for other in (
        instance(1, BlockDeviceMappings=mappings),
        instance(1, tags={"k8sgu.io/role": "control_plane"}, BlockDeviceMappings=mappings[:1]),
    ):
        assert "ec2_etcd_volume_id" not in one(other).variables


def test_the_variables_and_groups_of_a_worker() -> None:
    host = one(instance(1, tags={"k8sgu.io/pod-cidr": "10.200.1.0/24", "team": "blue"}))
    assert host.name == "demo-worker-0"
    assert host.groups == ["cluster_demo", "worker", "pool_workers"]
    assert host.variables == {
        "ansible_host": "198.51.100.1",
        "ec2_instance_id": "i-0001",
        "ec2_instance_type": "m5.large",
        "ec2_architecture": "x86_64",
        "ec2_account": "123456789012",
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


GROUPS = ["all", "ungrouped", "worker", "etcd", "control_plane", "pool_workers", "cluster_demo", "zone_a"]


@pytest.mark.parametrize("name", GROUPS)
def test_a_groups_name_is_no_hosts_name(name: str) -> None:
    found = hosts_from([instance(1, name), instance(2, "node-2")], Layout(("demo",)), ["zone_a"])
    assert [host.name for host in found.hosts] == ["node-2"]
    [warning] = found.warnings
    assert f"i-0001 in us-east-1a (not usable: tag:Name {name!r}, a group's name)" in warning


def test_a_group_of_another_instance_counts_and_the_next_name_is_taken() -> None:
    others = instance(1, "pool_big"), instance(2, "node-2", tags={"k8sgu.io/pool": "big"})
    found = hosts_from(others, Layout(("demo",), hostnames=("tag:Name", "instance_id")))
    assert [host.name for host in found.hosts] == ["i-0001", "node-2"] and found.warnings == []


def test_names_that_are_groups_but_for_their_case_are_hosts() -> None:
    assert one(instance(1, "Worker")).name == "Worker"


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


def test_what_nodes_have_in_common_is_kept_on_their_group() -> None:
    hosts = hosts_from([instance(1, "a"), instance(2, "b", InstanceType="m5.xlarge")], Layout(("demo",))).hosts
    kept = placed(hosts)
    assert kept.groups == {
        "cluster_demo": {
            "ec2_cluster": "demo",
            "ec2_account": "123456789012",
            "ec2_region": "us-east-1",
            "ec2_vpc_id": "vpc-1",
            "ec2_zone": "us-east-1a",
            "ec2_tags": {},
        },
        "pool_workers": {"ec2_role": "worker", "ec2_pool": "workers", "ec2_architecture": "x86_64"},
    }
    assert kept.hosts[1] == {
        "ansible_host": "198.51.100.2",
        "ec2_instance_id": "i-0002",
        "ec2_instance_type": "m5.xlarge",
        "ec2_private_ip": "10.240.0.2",
        "ec2_public_ip": "198.51.100.2",
    }


def shape(clusters: int, pools: int, tags: Callable[[int, int, int], dict[str, str]], count: int = 1000) -> list[Host]:
    """An account of `count` instances, whose further tags are a function of number, cluster and pool."""
    made = []
    for number in range(count):
        cluster, pool = number % clusters, number // clusters % pools
        given = {
            **tags(number, cluster, pool),
            f"k8sgu.io/cluster/c{cluster}": "owned",
            "k8sgu.io/pool": f"pool{pool}",
            "k8sgu.io/pod-cidr": f"10.{200 + number // 256}.{number % 256}.0/24",
        }
        node = instance(
            number,
            f"c{cluster}-pool{pool}-{number}",
            tags=given,
            InstanceId=f"i-{number:017x}",
            PrivateIpAddress=f"10.240.{number // 250}.{number % 250 + 4}",
            PublicIpAddress=f"198.51.{number // 250}.{number % 250 + 4}",
            VpcId=f"vpc-{cluster:017x}",
            Placement={"AvailabilityZone": f"us-east-1{'abc'[number % 3]}"},
        )
        node["Tags"] = [tag for tag in node["Tags"] if tag["Key"] != "k8sgu.io/cluster/demo"]
        made.append(node)
    return hosts_from(made, Layout(())).hosts


def common(number: int, _cluster: int, _pool: int) -> dict[str, str]:
    return {f"company:key-{key}": f"the value of {key}" for key in range(number)}


# An account of each shape is made once.
SHAPES: dict[str, Callable[[], list[Host]]] = {
    "no tags": lambda: shape(1, 1, lambda *_: {}),
    "few tags": lambda: shape(1, 2, lambda *_: common(5, 0, 0)),
    "many tags": lambda: shape(1, 2, lambda *_: common(45, 0, 0)),
    "ten clusters": lambda: shape(
        10, 2, lambda _number, cluster, _pool: {**common(10, 0, 0), "team": f"team {cluster}"}
    ),
    "a pool's own": lambda: shape(1, 3, lambda _number, _cluster, pool: {**common(10, 0, 0), "team": f"team {pool}"}),
    "one odd node": lambda: shape(
        1, 2, lambda number, *_: {**common(10, 0, 0), **({"debug": "yes"} if number == 7 else {})}
    ),
}
# Bytes of a host as compact JSON: its name, addresses, id, zone and pod range. A tenth of the 2645 of aws_ec2, which
# are those of an instance without further tags in bench_inventory.py.
MOST_BYTES_A_HOST = 264


@pytest.mark.parametrize("name", SHAPES)
def test_tags_that_nodes_share_cost_nothing_on_them(name: str) -> None:
    hosts = SHAPES[name]()
    kept = placed(hosts)
    own = {host.name: variables for host, variables in zip(hosts, kept.hosts)}
    assert len(own) == 1000
    assert len(json.dumps(own, separators=(",", ":"))) <= 1000 * MOST_BYTES_A_HOST
    assert sum("ec2_tags" in variables for variables in kept.hosts) == (name == "one odd node")


SHAPES.update({name: functools.cache(make) for name, make in SHAPES.items()})


def several(number: int, _cluster: int, pool: int) -> dict[str, str]:
    also = {"k8sgu.io/cluster/c0": "owned"} if number % 5 == 0 else {}
    return {**also, **(common(4, 0, 0) if number % 3 else {"pool": str(pool)}), **({"own": "x"} if number % 7 else {})}


@pytest.mark.parametrize("merging", [False, True])
@pytest.mark.parametrize("name", [*SHAPES, "several clusters"])
@pytest.mark.parametrize("order", ["names", "names backwards"])
def test_merged_again_the_variables_are_what_they_were(name: str, merging: bool, order: str) -> None:
    """In whatever order the groups come: another source of the inventory may nest them."""
    hosts = {**SHAPES, "several clusters": lambda: shape(3, 3, several, 200)}[name]()
    kept = placed(hosts, merging)
    assert kept.groups and any(len(own) < len(host.variables) for host, own in zip(hosts, kept.hosts))
    for host, own in zip(hosts, kept.hosts):
        merged: dict[str, Any] = {}
        for variables in [kept.groups.get(group, {}) for group in sorted(host.groups, reverse=order != "names")] + [
            own
        ]:
            merged = merge_hash(merged, variables) if merging else {**merged, **variables}
        assert merged == host.variables


def test_nodes_of_two_clusters_keep_their_own() -> None:
    both = {"tags": {"k8sgu.io/cluster/other": "owned"}}
    hosts = hosts_from([instance(1, "a", **both)], Layout(())).hosts
    kept = placed(hosts)
    assert kept.groups == {} and kept.hosts == [hosts[0].variables]


def test_a_bastion_is_the_way_to_private_nodes_and_no_host() -> None:
    door = instance(9, "demo-bastion", tags={"k8sgu.io/role": "bastion", "k8sgu.io/pool": ""})
    private = instance(1, PublicIpAddress=None)
    public = instance(2, "demo-worker-1")
    strange = instance(3, "other-worker-0", PublicIpAddress=None, tags={"k8sgu.io/cluster/other": "owned"})
    strange["Tags"] = [tag for tag in strange["Tags"] if tag["Key"] != "k8sgu.io/cluster/demo"]
    found = hosts_from([private, public, door, strange], Layout(()))
    assert found.warnings == []
    ways = {
        host.name: (host.variables.get("ec2_bastion"), host.variables.get("ec2_bastion_id")) for host in found.hosts
    }
    assert ways == {
        "demo-worker-0": ("198.51.100.9", "i-0009"),
        "demo-worker-1": (None, None),
        "other-worker-0": (None, None),
    }
    # One that is stopped has no public address and leads nowhere.
    stopped = {key: value for key, value in door.items() if key != "PublicIpAddress"}
    [host] = hosts_from([private, stopped], Layout(("demo",))).hosts
    assert "ec2_bastion" not in host.variables
