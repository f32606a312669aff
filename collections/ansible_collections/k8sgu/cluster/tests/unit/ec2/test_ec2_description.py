# Copyright the k8sgu authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The description's own checks: each bad input with the option that its error names."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2 import groups
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.description import (
    Description,
    DescriptionError,
    Image,
    parse,
)
from ansible_collections.k8sgu.cluster.plugins.module_utils._ec2.options import ARGUMENT_SPECS

AMI = "ami-00000000000000001"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGu4oWvIYh9nTjF5Xf1rDg2pD6oZbq5pyqyKXcUcFwqL"


def described(**changes: Any) -> Description:
    defaults = {name: option.get("default") for name, option in ARGUMENT_SPECS["ec2_cluster"].items()}
    return parse({**defaults, "name": "demo", "image": AMI, "public_key": KEY, **changes}, "us-east-1")


def pools(control_plane: int = 1, workers: int = 2, **more: Any) -> list[dict[str, Any]]:
    return [{"name": "control_plane", "count": control_plane, **more}, {"name": "workers", "count": workers}]


BAD: list[tuple[dict[str, Any], str]] = [
    # names
    ({"name": "Demo"}, "^name: 'Demo'"),
    ({"name": "demo_1"}, "^name: "),
    ({"name": "1demo"}, "^name: "),
    ({"name": "demo-"}, "^name: "),
    ({"name": "d" * 29}, "^name: "),
    ({"name": ""}, "^name: "),
    ({"name": "internal-demo"}, "^name: .*AWS reserves names"),
    # ranges
    ({"vpc_cidr": "10.240.0.0"}, "^vpc_cidr: 10.240.0.0: EC2 takes /16 to /28"),
    ({"vpc_cidr": "10.240.0.1/16"}, "^vpc_cidr: .*host bits set"),
    ({"vpc_cidr": "ten"}, "^vpc_cidr: 'ten' is not an IPv4 range"),
    ({"vpc_cidr": "10.0.0.0/8"}, "^vpc_cidr: .*/16 to /28"),
    ({"vpc_cidr": "10.240.0.0/29"}, "^vpc_cidr: .*/16 to /28"),
    ({"pod_cidr": "10.240.128.0/17"}, "^pod_cidr: .*overlaps vpc_cidr"),
    ({"service_cidr": "10.240.0.0/16"}, "^service_cidr: .*overlaps vpc_cidr"),
    ({"service_cidr": "10.200.0.0/16"}, "^service_cidr: .*overlaps pod_cidr"),
    ({"service_cidr": "10.32.0.0/28"}, "^service_cidr: .*/12 to /27"),
    ({"service_cidr": "169.254.0.0/16"}, "^service_cidr: .*no network may use"),
    ({"pod_cidr": "fd00::/64"}, "^pod_cidr: .*not an IPv4 range"),
    ({"pod_cidr": "10.200.0.0/23"}, "^pod_cidr: .*2 parts of /24 and 3 nodes need one each"),
    ({"pod_cidr_node_prefix": 29}, "^pod_cidr_node_prefix: a /29"),
    ({"pod_cidr_node_prefix": 15}, "^pod_cidr_node_prefix: a /15"),
    ({"subnet_prefix": 29}, "^subnet_prefix: /29"),
    (
        {"private_nodes": True, "nat_gateways": "none", "admin_cidrs": ["203.0.113.0/24"], "pools": pools(3, 1)},
        "^nat_gateways: without one, private workers have no way to an internet-facing load balancer; give one",
    ),
    ({"subnet_prefix": 28, "pools": pools(1, 20)}, "^subnet_prefix: .*room for 11 addresses"),
    ({"vpc_cidr": "10.240.0.0/24", "zones": ["us-east-1a", "us-east-1b"]}, "^vpc_cidr: .*no room for 2 subnets of /24"),
    ({"admin_cidrs": ["203.0.113.7/24"]}, "^admin_cidrs: "),
    ({"admin_cidrs": ["me"]}, "^admin_cidrs: 'me'"),
    ({"node_port_cidrs": ["::/0"]}, "^node_port_cidrs: "),
    # zones and networks that were brought
    ({"zones": ["eu-west-1a"]}, "^zones: 'eu-west-1a' is not in region us-east-1"),
    ({"zones": ["us-east-1a", "us-east-1a"]}, "^zones: .*twice"),
    ({"subnet_ids": ["subnet-1"]}, "^subnet_ids: .*need vpc_id"),
    ({"subnet_ids": ["subnet-1"], "vpc_id": "vpc-1", "zones": ["us-east-1a"]}, "^zones: "),
    ({"subnet_ids": ["subnet-1"], "vpc_id": "vpc-1", "private_nodes": True}, "^private_nodes: "),
    # pools
    ({"pools": pools(2)}, r"^pools\[0\].count: 2 etcd members .* 1 or 3"),
    ({"pools": pools(4)}, r"^pools\[0\].count: 4 etcd members"),
    ({"pools": pools(0)}, r"^pools\[0\].count: "),
    ({"pools": pools(9)}, r"^pools\[0\].count: .*at most 7"),
    ({"pools": pools(1, -1)}, r"^pools\[1\].count: -1"),
    ({"pools": [{"name": "workers", "count": 1}]}, "^pools: there is no pool control_plane"),
    ({"pools": []}, "^pools: there is no pool control_plane"),
    ({"pools": [*pools(), {"name": "worker", "count": 1}]}, "^pools: 'workers' and 'worker': two pools would name"),
    ({"pools": [*pools(), {"name": "GPU", "count": 1}]}, r"^pools\[2\].name: 'GPU'"),
    ({"pools": [*pools(), {"name": "g" * 60, "count": 1}]}, "^pools: .*at most 52"),
    ({"pools": pools(instance_type="large")}, r"^pools\[0\].instance_type: 'large'"),
    ({"pools": pools(root_volume_size=4)}, r"^pools\[0\].root_volume_size: 4 GiB"),
    ({"pools": pools(etcd_volume_size=-1)}, r"^pools\[0\].etcd_volume_size: -1"),
    (
        {"pools": [*pools(), {"name": "big", "count": 1, "etcd_volume_size": 5}]},
        r"^pools\[2\].etcd_volume_size: workers",
    ),
    # images and keys
    ({"image": None}, "^image: neither image nor"),
    ({"image": "debian"}, "^image: 'debian' is not an AMI id"),
    ({"image": {"name": "debian-*"}}, "^image: give an AMI id, or .*both owner"),
    ({"image": {"owner": "1", "name": "d", "arch": "x"}}, "^image: unknown key arch"),
    ({"image": ["a"]}, "^image: give an AMI id"),
    ({"public_key": None}, "^public_key: there is no key for SSH"),
    ({"public_key": "ssh-dss AAAA"}, "^public_key: .*ssh-ed25519 or ssh-rsa"),
    ({"public_key": "-----BEGIN OPENSSH PRIVATE KEY-----\nabc"}, "^public_key: this is a private key"),
    ({"public_key": None, "public_key_file": "/nowhere/key.pub"}, "^public_key_file: cannot read"),
    # the rest
    ({"worker_policy": {"Version": "2012-10-17"}}, "^worker_policy: .*Version and Statement"),
    (
        {"worker_policy": {"Version": "1", "Statement": []}, "instance_profiles": False},
        "^worker_policy: there is no role",
    ),
    ({"tags": {"k8sgu.io/role": "worker"}}, "^tags: 'k8sgu.io/role'"),
    ({"tags": {"Name": "x"}}, "^tags: 'Name'"),
    ({"tags": {"x": "y" * 257}}, "^tags: 'x'"),
    ({"tags": {"x": None}}, "^tags: 'x': the value null"),
    ({"wait_timeout": 0}, "^wait_timeout: 0"),
    # backups
    ({"backup_bucket": "a.b"}, "^backup_bucket: 'a.b' has a dot, and S3's certificate .* choose a name without dots"),
    ({"backup_bucket": "192.168.5.4"}, "^backup_bucket: '192.168.5.4' has a dot"),
    ({"backup_bucket": "Backups"}, "^backup_bucket: 'Backups' cannot be a bucket's name: give 3 to 63"),
    ({"backup_bucket": "ab"}, "^backup_bucket: 'ab' .*give 3 to 63"),
    ({"backup_bucket": "b" * 64}, "^backup_bucket: .*give 3 to 63"),
    ({"backup_bucket": "-backups"}, "^backup_bucket: .*neither end a dash"),
    ({"backup_bucket": "back_ups"}, "^backup_bucket: .*lower-case letters, digits and dashes"),
    ({"backup_bucket": "xn--backups"}, "^backup_bucket: .*reserves names that begin with xn--"),
    ({"backup_bucket": "sthree-backups"}, "^backup_bucket: .*reserves names that begin with sthree-"),
    ({"backup_bucket": "backups-s3alias"}, "^backup_bucket: .*reserves names that end in -s3alias"),
    ({"backup_bucket": "backups--x-s3"}, "^backup_bucket: .*reserves names that end in --x-s3"),
    ({"backup_days": -1}, "^backup_days: -1 days; choose .*0 for never"),
    ({"backup_days": 36501}, "^backup_days: 36501 days; choose .*from 1 to 36500"),
    (
        {"backup_bucket": "backups", "instance_profiles": False},
        "^backup_bucket: .*none with instance_profiles: false; leave out one of the two",
    ),
    (
        {
            "backup_bucket": "backups",
            "control_plane_policy": {"Version": "2012-10-17", "Statement": {"Sid": "BackupUpload"}},
        },
        "^control_plane_policy: its statement BackupUpload has the name of one that backup_bucket adds",
    ),
    ({"vpc_id": "vpc-1", "private_nodes": True, "load_balancer_scheme": "internet-facing"}, "^load_balancer_scheme: "),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DescriptionError, match=message):
        described(**changes)


def test_a_private_key_is_not_repeated() -> None:
    with pytest.raises(DescriptionError) as refused:
        described(public_key="-----BEGIN OPENSSH PRIVATE KEY-----\nTOPSECRET")
    assert "TOPSECRET" not in str(refused.value)


def test_the_defaults() -> None:
    found = described()
    assert [(pool.name, pool.role, pool.count) for pool in found.pools] == [
        ("control_plane", "control_plane", 1),
        ("workers", "worker", 2),
    ]
    assert found.pools[0].node_name("demo", 0) == "demo-control-plane-0"
    assert found.pools[1].node_name("demo", 1) == "demo-worker-1"
    assert found.pools[0].image == Image(id=AMI) and found.load_balancer_scheme == "internal" and not found.balanced


def test_a_comment_is_no_part_of_a_key() -> None:
    assert described(public_key=KEY + " me@here\n").public_key == KEY


def test_public_load_balancer_only_for_someone() -> None:
    assert described(admin_cidrs=["203.0.113.0/24"]).load_balancer_scheme == "internet-facing"
    assert not described(admin_cidrs=["203.0.113.0/24"]).balanced


def test_the_api_of_private_nodes_faces_administrators_outside() -> None:
    """Those with private addresses have a way of their own, and in a VPC that was brought that is the user's matter."""
    outside = described(admin_cidrs=["10.8.0.0/16", "203.0.113.0/24"], private_nodes=True)
    assert outside.faces_internet and outside.control_plane_count == 1
    for more in ({"admin_cidrs": ["10.8.0.0/16"]}, {"vpc_id": "vpc-1"}, {"load_balancer_scheme": "internal"}):
        found = described(**{"admin_cidrs": ["203.0.113.0/24"], "private_nodes": True, **more})
        assert found.load_balancer_scheme == "internal" and not found.balanced


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pools": pools(3, 70), "admin_cidrs": ["203.0.113.0/24"]}, "^load_balancer_scheme: .*give internal"),
        ({"admin_cidrs": [f"203.0.113.{number}/32" for number in range(40)]}, "^admin_cidrs: so many ranges"),
        ({"node_port_cidrs": [f"203.0.113.{number}/32" for number in range(40)]}, "^node_port_cidrs: so many"),
    ],
)
def test_the_quota_of_rules(changes: dict[str, Any], message: str) -> None:
    found = described(**changes)
    with pytest.raises(DescriptionError, match=message):
        groups.check_quota(found)


def test_the_largest_usual_cluster_is_within_the_quota_of_rules() -> None:
    found = described(pools=pools(7, 40), admin_cidrs=["203.0.113.0/24"], node_port_cidrs=["203.0.113.0/24"])
    assert found.faces_internet
    groups.check_quota(found)
    assert len(groups.rules_wanted(found, "control_plane", [], True)) <= groups.RULES_QUOTA
